"""The comparison's command on a small made-up table: every section is there, nothing is measured twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import patchedserve
from benchmarks.serving.measure import decision_times, goodput, simulate
from benchmarks.serving.point import Point, Source, known, predictor_of, requests_of, truth
from benchmarks.serving.report import interval, ratios, verdict
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
    monkeypatch.setattr(patchedserve.Scale, "quick", lambda: patchedserve.Scale(1, 40, ("uniform",), (1, 2), 3, True))
    schedulers = ["same-size-continuous", "mixed-fcfs", "patchedserve", "nirvana"]
    arguments = ["--quick", "--profile", source.profile, "--jobs", "1", "-o", tmp_path, "--data", tmp_path]
    command = [*map(str, arguments), "--", *schedulers]
    assert patchedserve.main(command) == 0
    text = (tmp_path / "report.md").read_text()
    for section in ("(%) against requests/s", "by size", "against SLO scale", "goodput at 99 %", "against GPUs"):
        assert section in text
    for section in ("predictor knows", "ablation", "paper's rates", "patchedserve over", "under load", "thinks"):
        assert section in text
    assert "Mix 'bursty' is left out" in text
    points = pd.read_parquet(tmp_path / "points.parquet")
    assert set(points["scheduler"]) == set(schedulers)
    assert (points["goodput_90"].dropna() > 0).all()
    journal = (tmp_path / "points.jsonl").read_text()
    assert patchedserve.main(command) == 0
    assert (tmp_path / "points.jsonl").read_text() == journal
    assert (tmp_path / "report.md").read_text() == text
    assert "0 points" not in capsys.readouterr().out


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
    frame = pd.DataFrame({"scheduler": ["a", "a", "b", "b"], "seed": [0, 1, 0, 1], "value": [2.0, 4.0, 3.0, 8.0]})
    found = ratios(frame, [], "value", "a").set_index(["scheduler", "seed"])["ratio"]
    assert found["b"].tolist() == [1.5, 2.0]


def test_the_verdict_is_over_means_of_each_mix() -> None:
    rows = [("a", "ours", 1.2), ("a", "patchedserve", 1.0), ("a", "third", 0.5)]
    rows += [("b", "ours", 1.5), ("b", "patchedserve", 1.0), ("b", "third", 2.0)]
    frame = pd.DataFrame(rows, columns=["mix", "scheduler", "goodput_90"]).assign(model="m", seed=0)
    known = [("online", error, name, value) for error in (-0.2, 0.2) for name, value in (("ours", 2.0), ("third", 1.6))]
    known += [("online", 0.0, "ours", 1.8), ("oracle", 0.0, "ours", 2.0)]
    wrong = pd.DataFrame(known, columns=["knowledge", "error", "scheduler", "goodput_90"]).assign(model="m", seed=0)
    found = [row[1] for row in verdict(frame, wrong, "ours").rows]
    assert found == ["1.35", "0.975", "0.75", "1.25", "1.25", "0.9"]
    both = pd.concat([frame, frame.assign(seed=1, goodput_90=10 * frame["goodput_90"])])
    assert verdict(both, wrong, "ours").rows[0][1] == "1.35 ± 0"  # a seed with more of everything changes nothing


def test_a_changed_scheduler_leaves_the_points_of_others(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edf, nirvana = Point("sd3", "edf"), Point("sd3", "nirvana")
    journal = patchedserve.Journal(tmp_path / "points.jsonl", source)
    journal.add(edf, {"attainment": 0.5})
    journal.add(nirvana, {"attainment": 0.25})
    for folder in ("benchmarks", "policies", "predictors", "sim", "traces"):
        shutil.copytree(patchedserve.ROOT / folder, tmp_path / folder)
    monkeypatch.setattr(patchedserve, "ROOT", tmp_path)
    same = patchedserve.Journal(tmp_path / "points.jsonl", source)
    assert (same[edf], same[nirvana]) == ({"attainment": 0.5}, {"attainment": 0.25})
    with (tmp_path / "policies/scheduling/nirvana.py").open("a") as file:
        file.write("# changed\n")
    changed = patchedserve.Journal(tmp_path / "points.jsonl", source)
    assert edf in changed
    assert nirvana not in changed
    with (tmp_path / "policies/controller.py").open("a") as file:
        file.write("# changed\n")
    assert edf not in patchedserve.Journal(tmp_path / "points.jsonl", source)


def test_a_cache_makes_the_world_and_the_predictor_faster(source: Source) -> None:
    plain, cached = (Point("sd3", "mixed-fcfs", requests=80, computed=share) for share in (1.0, 0.6))
    batch = composition_of([((1024, 1024, 1), 3)])
    slow, fast = (predictor_of(source, point).step_s("denoise", Batch("sd3", batch)) for point in (plain, cached))
    assert 0.6 <= fast / slow < 0.95
    without, with_it = (simulate(source, point, 1.0) for point in (plain, cached))
    assert with_it["utilisation"] < without["utilisation"] or with_it["p50_s"] < without["p50_s"]
    assert with_it["prediction_error"] < 0.1
