"""The comparison's command on a small made-up table: every section is there, nothing is measured twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import patchedserve
from benchmarks.serving import journal
from benchmarks.serving.contenders import CONTENDERS, OURS, PUBLISHED
from benchmarks.serving.measure import decision_times, goodput, simulate
from benchmarks.serving.point import Point, Source, capacity, known, predictor_of, requests_of, truth
from benchmarks.serving.regimes import REGIMES
from benchmarks.serving.report import interval, ratio, verdict
from predictors.costs import Batch
from predictors.profile import Profile
from traces.composition import composition_of, format_composition
from traces.errors import BadInput


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """SD3 on hardware where a step costs an overhead and the pixels, whole and in patches, with 2 % noise."""
    rng = np.random.default_rng(0)
    rows = []
    for images in range(1, 7):
        for other in range(4):
            for side in (512, 768, 1024):
                mix = [((side, side, 1), images)] + [((512, 512, 1), other)] * (other > 0 and side > 512)
                pixels = sum(n * h * w for (h, w, _), n in mix)
                composition = format_composition(composition_of(mix))
                for repeat in range(2):
                    seconds = 50 * (0.02 + 1e-8 * pixels) * rng.normal(1, 0.02)
                    rows.append(("patched", "denoise", composition, 50, repeat, seconds))
                    if len(mix) == 1:
                        rows.append(("whole", "denoise", composition, 50, repeat, 1.1 * seconds))
                        rows.append(("whole", "decode", composition, 1, repeat, 0.01 + 1e-8 * pixels))
    frame = pd.DataFrame(rows, columns=["executor", "stage", "composition", "steps", "repeat", "seconds"])
    frame = frame.assign(hardware="abacus", software="test", model="sd3", guided=True)
    folder = tmp_path_factory.mktemp("source")
    Profile.from_frame(frame, {}).save(folder / "profile.parquet")
    return Source(folder, folder / "profile.parquet")


def test_the_command_runs_resumes_and_writes(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    some = [
        regime for regime in REGIMES if regime.name in ("5x", "5x, whole", "5x, 2x overload", "5x, GenTD26 arrivals")
    ]
    some.append(next(regime for regime in REGIMES if regime.less_is_better))
    scale = patchedserve.Scale(1, 40, (2,), 3, tuple(some), sparse=True)
    monkeypatch.setattr(patchedserve.Scale, "quick", lambda: scale)
    schedulers = ["same-size-continuous", "mixed-fcfs", "patchedserve", "patchedserve-seconds", "nirvana", "lookahead"]
    arguments = ["--quick", "--profile", source.profile, "--jobs", "1", "-o", tmp_path, "--data", tmp_path]
    command = [*map(str, arguments), "--", *schedulers]
    assert patchedserve.main(command) == 0
    text = (tmp_path / "report.md").read_text()
    for section in ("(%) against requests/s", "by size", "lookahead over the others", "every regime", "against GPUs"):
        assert section in text
    for section in ("predictor knows", "ablation", "paper's rates", "patchedserve over", "under load", "thinks"):
        assert section in text
    assert "Mix 'bursty' is left out" in text
    for regime in some:
        assert (f"| {regime.name} |" in text) == ("GenTD26" not in regime.name)
    points = pd.read_parquet(tmp_path / "points.parquet")
    assert set(points["scheduler"]) == set(schedulers)
    assert (points["goodput_90"].dropna() > 0).all()
    points_kept = (tmp_path / "points.jsonl").read_text()
    assert patchedserve.main(command) == 0
    assert (tmp_path / "points.jsonl").read_text() == points_kept
    assert (tmp_path / "report.md").read_text() == text
    assert "0 points" not in capsys.readouterr().out
    assert patchedserve.main(["--regimes", *command]) == 0
    assert text.startswith((tmp_path / "report.md").read_text().split("### sd3: the figure")[0])
    assert "predictor knows" not in (tmp_path / "report.md").read_text()


def test_without_measurements_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert patchedserve.main(["--data", str(tmp_path), "-o", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.startswith("skipped: no measurements under")
    assert not (tmp_path / "out").exists()


def test_an_unknown_scheduler_is_refused(source: Source, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="unknown scheduler 'quickest'; known: fcfs"):
        patchedserve.main(["--profile", str(source.profile), "-o", str(tmp_path), "quickest"])


def test_goodput_is_the_rate_at_which_the_goal_is_met(source: Source) -> None:
    point = Point("sd3", "mixed-fcfs", requests=150)
    found = goodput(source, point)
    assert 0 < found["goodput_99"] < found["goodput_90"]
    for goal in (0.90, 0.99):
        rate = found[f"goodput_{100 * goal:.0f}"]
        assert simulate(source, point, rate / 1.05)["attainment"] >= goal - 0.01
        assert simulate(source, point, rate * 1.05)["attainment"] <= goal + 0.01
    hopeless = goodput(source, Point("sd3", "mixed-fcfs", requests=50, slo=0.5, goals=(0.90,)))
    assert hopeless["goodput_90"] == 0.0


def test_points_share_their_random_numbers(source: Source) -> None:
    one = requests_of(source, Point("sd3", "fcfs", requests=50, slo=3.0), 0.5)
    other = requests_of(source, Point("sd3", "edf", requests=50, replicas=2), 1.0)
    assert [r.size for r in one] == [r.size for r in other]
    assert [r.arrival_s for r in one] == pytest.approx([4 * r.arrival_s for r in other])
    assert [r.slo_s for r in one] == pytest.approx([0.6 * r.slo_s for r in other if r.slo_s])
    skipping = requests_of(source, Point("sd3", "fcfs", requests=50, steps_skipped=0.5), 0.5)
    assert 0.2 < sum(r.steps < 50 for r in skipping) / 50 < 0.8


def test_the_predictor_knows_half_and_the_oracle_all(source: Source) -> None:
    batch = composition_of([((768, 768, 1), 3), ((512, 512, 1), 2)])
    world = truth(source, "sd3", "patched").step_s("denoise", Batch("sd3", batch))
    half = known(source, "sd3", "patched", 0).step_s("denoise", Batch("sd3", batch))
    assert half != world
    assert half == pytest.approx(world, rel=0.1)
    oracle = Point("sd3", "fcfs", knowledge="oracle", error=0.2)
    assert predictor_of(source, oracle).step_s("denoise", Batch("sd3", batch)) == pytest.approx(1.2 * world)
    with pytest.raises(BadInput, match="knowledge is 'magic'"):
        Point("sd3", "fcfs", knowledge="magic")  # type: ignore[arg-type]


def test_decisions_are_timed_with_the_queue_full(source: Source) -> None:
    times = decision_times(source, "sd3", "patchedserve", waiting=20, decisions=10)
    assert 0 < times["mean_ms"] <= times["p99_ms"]


def test_intervals_and_ratios() -> None:
    assert interval([1.0, 2.0, 3.0]) == "2 ± 2.48"  # t(0.975, 2) / sqrt(3)
    assert interval([0.5]) == "0.5"
    assert interval([float("nan")]) == "–"
    assert ratio([2.0, 6.0], [1.0, 3.0]) == (2.0, 0.0)  # a seed with more of everything changes nothing
    found, half = ratio([1.0, 2.0, 3.0], [2.0, 2.0, 2.0])
    assert (found, half) == (1.0, pytest.approx(2.48 / 2, abs=0.01))
    assert np.isnan(ratio([1.0, 1.0], [0.0, 0.0])[0])


def test_the_verdict_takes_the_strongest_of_each_kind_and_says_where_ours_does_not_win() -> None:
    rows = [("5x", "ours", 1.2), ("5x", "text", 1.0), ("5x", "code", 0.75), ("5x", "third", 0.6)]
    rows += [("none", "ours", 4.0), ("none", "text", 5.0), ("none", "code", 6.0), ("none", "third", 3.0)]
    frame = pd.DataFrame(rows, columns=["regime", "scheduler", "value"]).assign(model="m", seed=0)
    frame["less_is_better"] = frame["regime"] == "none"
    shown = verdict(frame, "ours", ["text", "code"]).rows
    assert shown[:2] == [["5x", "1.20 (text)", "1.20 (text)"], ["none", "1.25 (text)", "0.75 (third)"]]
    assert shown[2:4] == [["**mean**", "**1.225**", "**0.975**"], ["**least**", "1.200", "0.750"]]
    assert shown[-1][:2] == ["not better", "m none: 0.750 of third"]
    alone = frame[frame["scheduler"].isin(["ours", "code"])]
    assert verdict(alone, "ours", ["text", "code"]).rows[-1][1] == "nowhere"


def test_all_get_the_batches_and_drops_of_ours_where_they_have_the_choice() -> None:
    for contender in CONTENDERS.values():
        policy = contender.policy()
        assert getattr(policy, "max_batch", 12) == 12
        assert getattr(policy, "drop_late", True)
    assert {CONTENDERS[name].policy().slack for name in PUBLISHED} == {"multiples", "seconds"}  # type: ignore[attr-defined]
    assert set(PUBLISHED) < set(CONTENDERS)


def test_an_overload_is_a_share_of_what_full_batches_of_one_size_carry(source: Source) -> None:
    """One step costs 0.02 s and 1e-8 s a pixel, a decode 0.01 s and 1e-8 s a pixel; of three sizes alike often."""
    point = Point("sd3", OURS, requests=3000)
    pixels = np.mean([side**2 for side in (512, 768, 1024)])
    exact = 1 / (50 * (0.02 / 12 + 1e-8 * pixels) + 0.01 + 1e-8 * pixels)
    assert capacity(source, point) == pytest.approx(exact, rel=0.05)
    twice = next(regime for regime in REGIMES if regime.load == 2.0).point(source, point)
    assert twice.rate == pytest.approx(2 * exact, rel=0.05)
    assert simulate(source, twice, twice.rate or 0.0)["attainment"] < 0.8


def test_without_deadlines_all_finish_and_in_bursts_the_rate_is_the_same(source: Source) -> None:
    without = simulate(source, Point("sd3", OURS, requests=80, slo=float("inf")), 0.5)
    assert (without["attainment"], without["worst_size"], without["dropped"]) == (1.0, 1.0, 0.0)
    assert without["p50_s"] / 3 < without["mean_s"] < without["p99_s"]
    arrivals = [request.arrival_s for request in requests_of(source, Point("sd3", OURS, mix="cv-4", requests=400), 0.5)]
    assert arrivals[-1] == pytest.approx(399 / 0.5)
    assert np.std(np.diff(arrivals)) / np.mean(np.diff(arrivals)) > 2


def test_a_changed_scheduler_leaves_the_points_of_others(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edf, nirvana = Point("sd3", "edf"), Point("sd3", "nirvana")
    kept = journal.Journal(tmp_path / "points.jsonl", source)
    kept.add(edf, {"attainment": 0.5})
    kept.add(nirvana, {"attainment": 0.25})
    for folder in ("benchmarks", "policies", "predictors", "sim", "traces"):
        shutil.copytree(journal.ROOT / folder, tmp_path / folder)
    monkeypatch.setattr(journal, "ROOT", tmp_path)
    same = journal.Journal(tmp_path / "points.jsonl", source)
    assert (same[edf], same[nirvana]) == ({"attainment": 0.5}, {"attainment": 0.25})
    with (tmp_path / "policies/scheduling/nirvana.py").open("a") as file:
        file.write("# changed\n")
    changed = journal.Journal(tmp_path / "points.jsonl", source)
    assert edf in changed
    assert nirvana not in changed
    with (tmp_path / "policies/controller.py").open("a") as file:
        file.write("# changed\n")
    assert edf not in journal.Journal(tmp_path / "points.jsonl", source)


def test_a_cache_makes_the_world_and_the_predictor_faster(source: Source) -> None:
    plain, cached = (Point("sd3", "mixed-fcfs", requests=80, computed=share) for share in (1.0, 0.6))
    batch = composition_of([((1024, 1024, 1), 3)])
    slow, fast = (predictor_of(source, point).step_s("denoise", Batch("sd3", batch)) for point in (plain, cached))
    assert 0.6 <= fast / slow < 0.95
    without, with_it = (simulate(source, point, 1.0) for point in (plain, cached))
    assert with_it["utilisation"] < without["utilisation"] or with_it["p50_s"] < without["p50_s"]
    assert with_it["prediction_error"] < 0.1
