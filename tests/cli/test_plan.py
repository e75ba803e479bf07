"""tilecast plan, end to end on small demands."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from predictors.basis import ESTIMATED
from predictors.hardware import shipped_hardware
from predictors.profile import Profile
from reports.plan.answer import answer, notes
from reports.plan.result import UNSTABLE, Candidate, Plan
from tests.cli.run_command import either, negative, refused, run
from tests.tilecast.studies.kept_points import kept_points, opened
from tests.tilecast.test_setup import write_profile
from tilecast.scenario import load_scenario
from tilecast.studies.case import Case
from tilecast.studies.experiment import Experiment
from tilecast.studies.experiment_run import _prepared, demanded, run_experiment
from tilecast.studies.search import search

SCENARIO = """
model = "tiny-image"
[trace]
path = "trace.parquet"
[predictor]
latency_model = "linear"
[slo]
scale = 4.0
[plan]
attainment = 0.9
seeds = 3
max_seeds = 3
requests = 60
max_requests = 120
hardware = [
    { name = "small", profile = "profile.parquet", price_per_hour = 1.0, max_replicas = 8 },
    { name = "large", profile = "fast.parquet", price_per_hour = 2.5, max_replicas = 8 },
]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_profile(folder / "profile.parquet")
    slow = Profile.load(folder / "profile.parquet")
    Profile(slow.frame.assign(seconds=slow.frame["seconds"] / 2, hardware="a faster test")).save(
        folder / "fast.parquet"
    )
    (folder / "scenario.toml").write_text(SCENARIO)
    sizes = ("--sizes", "64x64:1,128x128:1", "--steps", 6, "--model", "tiny-image")
    run("trace", "generate", "--rate", 48, "--duration", 20, *sizes, "-o", folder / "trace.parquet")
    return folder


@pytest.fixture(scope="module")
def kept(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where plans go on from the simulations of each other."""
    return Path(shutil.copytree(made, tmp_path_factory.mktemp("kept"), dirs_exist_ok=True))


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path, dirs_exist_ok=True))


def plan(folder: Path, name: str, *more: object, workers: int = 1) -> Plan:
    either("plan", folder / "scenario.toml", "--workers", workers, "-o", folder / name, *more)
    return Plan.from_json((folder / name / "plan.json").read_text())


def test_a_plan_finds_the_least_cluster_and_says_what_it_rests_on(kept: Path) -> None:
    made = plan(kept, "plan", "--policies", "edf,fcfs", "--growth", 0.5, "--months", 1)
    assert made.answer is not None
    best = made.answer.candidate
    policy = best.scheduler
    assert made.answer.state != UNSTABLE
    assert made.answer.figures.attainment.low >= 0.9
    assert made.answer.price_per_hour == best.replicas * {"small": 1.0, "large": 2.5}[best.hardware]
    by_candidate = {evaluation.candidate: evaluation for evaluation in made.considered}
    assert not by_candidate[Candidate(best.hardware, 1, best.replicas - 1, policy)].keeps
    assert all(
        evaluation.price_per_hour >= made.answer.price_per_hour for evaluation in made.considered if evaluation.keeps
    )
    prices = [evaluation.price_per_hour for evaluation in made.considered]
    assert prices == sorted(prices)
    assert 1.0 <= made.headroom.mean < 2.0
    curve = [what_if.figures.attainment.mean for what_if in made.load_curve]
    assert curve == sorted(curve, reverse=True)
    assert made.lost_replica is not None
    assert not made.lost_replica.keeps
    of_scheduler = {cost.scheduler: cost.evaluation for cost in made.policies}
    assert of_scheduler[policy] == made.answer
    for scheduler, least in of_scheduler.items():
        assert least is not None
        assert least.candidate.scheduler == scheduler
        assert least.price_per_hour >= made.answer.price_per_hour
    costs = [month.evaluation.price_per_hour for month in made.growth if month.evaluation is not None]
    assert costs == sorted(costs)
    assert [month.rate_scale for month in made.growth] == [1.0, 1.5]
    assert sum(size.requests for size in made.by_size) > 225
    assert {(kept / "plan" / name).is_file() for name in ("plan.html", "plan.md", "candidates.parquet")} == {True}
    assert "on a test" in made.slo


def test_what_no_number_of_replicas_can_keep_is_refused_before_anything_runs(folder: Path) -> None:
    late = ("--set", "slo.scale=0.4")  # one kind takes half as long as the other
    for how in ((), ("--replicas", 3, "--hardware", "small")):
        said = refused("plan", folder / "scenario.toml", "-o", folder / "late", *how, *late)
        assert "no number of replicas keeps 90 % of deadlines: alone on an idle" in said
        assert "requests already take longer than theirs, " in said
        assert not (folder / "late").exists()


def test_the_best_of_the_policies_named_is_the_answer_whatever_the_scenario_names(kept: Path) -> None:
    given = ("--hardware", "small", "--attainment", 0.8)
    alone = {name: plan(kept, "plan", "--policies", name, *given).answer for name in ("fcfs", "clockwork")}
    assert all(alone.values())
    both = plan(kept, "plan", "--set", 'plan.policies=["fcfs", "clockwork"]', *given)
    assert both.answer is not None
    assert both.answer.price_per_hour == min(least.price_per_hour for least in alone.values() if least)
    assert both.answer == alone[both.answer.candidate.scheduler]
    assert [cost.scheduler for cost in both.policies] == ["fcfs", "clockwork"]


def test_a_plan_is_for_the_rate_that_is_asked_whatever_the_trace_has(kept: Path) -> None:
    hourly = plan(kept, "plan", "--hardware", "small", "--rate", "90000/h")
    assert hourly.policies == ()  # none was named
    assert hourly.demand.rate_rps == pytest.approx(25.0, rel=1e-12)
    assert hourly.answer is not None
    drawn = hourly.answer.figures.drawn_rps
    assert drawn.mean == pytest.approx(25.0, rel=0.1)
    assert "--rate 90000/h" in hourly.command
    trace = plan(kept, "plan", "--hardware", "small")
    assert trace.answer is not None
    assert hourly.answer.candidate.replicas < trace.answer.candidate.replicas
    said = refused("plan", kept / "scenario.toml", "--rate", "5/fortnight", "-o", kept / "no")
    assert "--rate is '5/fortnight', expected a rate like 500/h" in said


def test_a_plan_promises_a_throughput_and_a_headroom_too(kept: Path) -> None:
    plain = plan(kept, "plan", "--hardware", "small", "--attainment", 0.8)
    given = (
        "--hardware",
        "small",
        "--attainment",
        0.8,
        "--headroom",
        "50%",
        "--throughput",
        f"{plain.demand.rate_rps}/s",
    )
    roomy = plan(kept, "plan", *given)
    assert plain.answer is not None
    assert roomy.answer is not None
    assert roomy.answer.candidate.replicas > plain.answer.candidate.replicas
    assert roomy.headroom.mean >= 1.45
    assert roomy.answer.figures.throughput_rps.mean >= roomy.answer.figures.goodput_rps.mean > 0
    candidates = pd.read_parquet(kept / "plan" / "candidates.parquet")
    assert {"throughput_rps", "throughput_rps_half_width", "broken_by"} <= set(candidates)
    text = (kept / "plan" / "plan.md").read_text()
    page = (kept / "plan" / "plan.html").read_text().replace("&nbsp;", " ").replace("\u00a0", " ")
    for said in ("are completed, at 1.5 times the demand, too", "with 50 % headroom", "at 1.5 times the load"):
        assert said in text
        assert said in page
    keys = ("--set", "plan.headroom='50%'", "--set", f"plan.throughput='{plain.demand.rate_rps}/s'")
    assert plan(kept, "plan", *given[:4], *keys).answer == roomy.answer


def test_a_killed_plan_goes_on_to_the_same_bytes_whatever_the_processes(folder: Path) -> None:
    few = [f"--set=plan.{name}={value}" for name, value in (("seeds", 2), ("max_seeds", 2), ("max_requests", 60))]
    plan(folder, "whole", "--hardware", "small", *few)
    rows = kept_points(folder / "whole")
    part = folder / "part"
    part.mkdir()
    half = len(rows) // 2
    (part / "points.sqlite").write_bytes((folder / "whole" / "points.sqlite").read_bytes())
    with closing(opened(part)) as file:
        file.execute("DELETE FROM points WHERE rowid > ?", (half,))
    plan(folder, "part", "--hardware", "small", *few, workers=2)
    assert (part / "plan.json").read_bytes() == (folder / "whole" / "plan.json").read_bytes()
    assert kept_points(part)[:half] == rows[:half]
    assert sorted(kept_points(part)) == sorted(rows)


def test_another_promise_runs_only_what_is_new(folder: Path) -> None:
    first = plan(folder, "plan", "--replicas", 6, "--hardware", "small")
    assert first.answer is not None
    assert first.answer.candidate == Candidate("small", 1, 6, "fcfs")
    assert first.headroom.mean >= 1.0
    assert answer(first).startswith("6 × small with fcfs carry ")
    before = len(kept_points(folder / "plan"))
    assert before == first.points
    second = plan(folder, "plan", "--replicas", 6, "--hardware", "small", "--attainment", 0.8)
    assert second.attainment == 0.8
    assert second.headroom.mean > first.headroom.mean
    assert len(kept_points(folder / "plan")) - before < second.points / 2


def test_a_cluster_that_looks_well_in_a_short_run_is_called_unstable(folder: Path) -> None:
    scenario = folder / "scenario.toml"
    text = SCENARIO.replace("scale = 4.0", "absolute_s = 12.0").replace("max_replicas = 8", "max_replicas = 1")
    text = text.replace("requests = 60", "requests = 500").replace("max_requests = 120", "max_requests = 8000")
    scenario.write_text(text)
    one = Candidate("small", 1, 1, "fcfs")
    case = Case(load_scenario(scenario, {}))
    busy = run_experiment(case.run_of(Experiment(one, 0, 1000, saturate=True)))
    scale = 1.03 * busy["submitted"] / busy["drain_s"] / case.demand().rate_rps
    given = {"trace.rate_scale": scale}
    short = Case(load_scenario(scenario, given))
    assert min(run_experiment(short.run_of(Experiment(one, seed, 500)))["attainment"] for seed in range(3)) > 0.95
    made = plan(folder, "trap", "--hardware", "small", "--set", f"trace.rate_scale={scale}")
    [evaluation] = made.considered
    assert evaluation.state == UNSTABLE
    assert evaluation.keeps is False
    assert evaluation.figures.requests > 1000
    assert made.answer is None
    [overloaded] = [note.text for note in notes(made) if note.severity == "grave"]
    assert overloaded.startswith("OVERLOADED: ")
    assert evaluation.figures.latency_p95_s.mean == math.inf  # it would depend on how long one looks
    again = ("plan", scenario, "--workers", 1, "-o", folder / "trap", "--hardware", "small")
    assert "! OVERLOADED: " in negative(*again, "--set", f"trace.rate_scale={scale}")


def test_deadlines_are_the_same_on_all_hardware(folder: Path) -> None:
    case = Case(load_scenario(folder / "scenario.toml", {}))
    runs = [case.run_of(Experiment(Candidate(kind, 1, 2, "fcfs"), 1, 50)) for kind in ("small", "large")]
    assert runs[0].reference == runs[1].reference
    assert runs[0].scenario.seed == runs[1].scenario.seed
    small, large = (run_experiment(one) for one in runs)
    assert large["latency_mean_s"] < 0.7 * small["latency_mean_s"]
    assert large["attainment"] >= small["attainment"]


def test_what_a_cluster_carries_does_not_depend_on_how_long_clients_wait_nor_on_a_date(folder: Path) -> None:
    scenario = folder / "scenario.toml"
    carried = []
    for faults in ("", '[faults]\noutages = ["1:1:30"]\nslow = ["0:0:99:3"]\nstarts_cold = true\npatience_s = 0.1\n'):
        scenario.write_text(SCENARIO + faults)
        case = Case(load_scenario(scenario, {}))
        carried.append(run_experiment(case.run_of(Experiment(Candidate("small", 1, 1, "fcfs"), 0, 100, saturate=True))))
    assert json.dumps(carried[0]) == json.dumps(carried[1])
    assert case.run_of(Experiment(Candidate("small", 1, 2, "fcfs"), 0, 100)).scenario.faults == case.scenario.faults


def test_what_a_simulation_says_does_not_depend_on_those_before_it(folder: Path) -> None:
    caching = '[cluster]\nexecutor = "packed"\n[policies.caching]\nname = "threshold"\nthreshold = 0.2\n'
    scenario = folder / "scenario.toml"
    scenario.write_text(SCENARIO + caching)
    sizes = ("--sizes", "64x64:1,128x128:1", "--steps", "3:1,9:1", "--model", "tiny-image")
    run("trace", "generate", "--rate", 20, "--duration", 20, *sizes, "-o", folder / "trace.parquet")
    for path in (folder / "profile.parquet", folder / "fast.parquet"):
        Profile(Profile.load(path).frame.assign(executor="packed")).save(path)
    case = Case(load_scenario(scenario, {}))
    asked = [case.run_of(Experiment(Candidate("small", 1, 2, "fcfs"), seed, 50)) for seed in range(2)]
    after_others = [run_experiment(one) for one in asked][-1]
    _prepared.cache_clear()
    demanded.cache_clear()
    assert json.dumps(run_experiment(asked[-1])) == json.dumps(after_others)


@pytest.mark.parametrize(
    ("change", "options", "says"),
    [
        ("", ("--hardware", "huge"), "no hardware 'huge'; there is: small, large; to consider another, set "),
        ("", ("--replicas", 2), "expected one hardware"),
        ("", ("--growth", -2), "--growth is -2.0, expected a number of -0.99 to 10"),
        ("", ("--policies", "fifo"), "unknown scheduling policy 'fifo'"),
        ("", ("--attainment", 1.5), "--attainment is 1.5"),
        ("", ("--headroom", "some"), "--headroom is 'some', expected a number of 0 to 1,000 % like 20%, or 0.2"),
        ("", ("--headroom", "20"), "--headroom is '20', expected a number of 0 to 1,000 %"),
        ("", ("--set", "plan.headroom='lots'"), "plan.headroom"),
        ("", ("--throughput", "5/fortnight"), "--throughput is '5/fortnight', expected a rate like 500/h"),
        ("", ("--throughput", "900000/h"), "plan.throughput is 900,000/h, but 1"),
        ("", ("--set", "plan.throughput=-1"), "plan.throughput is -1"),
        ("scale = 4.0", (), "no request has a deadline"),
        ("price_per_hour = 2.5,", (), "expected a price_per_hour for every hardware or for none"),
        ("", ("--set", "plan.hardwear=1"), "did you mean 'hardware'?"),
    ],
)
def test_bad_input_ends_with_one_line(folder: Path, change: str, options: tuple[object, ...], says: str) -> None:
    (folder / "scenario.toml").write_text(SCENARIO.replace(change, "") if change else SCENARIO)
    assert says in refused("plan", folder / "scenario.toml", "--workers", 1, "-o", folder / "plan", *options)
    assert not (folder / "plan").exists()


def test_a_plan_needs_no_torch(folder: Path) -> None:
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.partition('.')[0] in ('torch', 'diffusers', 'transformers'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from cli.main import main\n"
        "main()\n"
    )
    few = [f"--set=plan.{name}={value}" for name, value in (("seeds", 2), ("requests", 20), ("max_requests", 20))]
    given = ["--replicas", "4", "--hardware", "small", "--workers", "1", *few, "-o", str(folder / "plan")]
    command = [sys.executable, "-c", code, "plan", str(folder / "scenario.toml"), *given]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )
    assert done.returncode in (0, 3), done.stderr  # the promise is kept, or it is not
    assert (folder / "plan" / "plan.html").is_file()


def test_batches_are_as_large_as_memory_allows_and_a_model_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    l4 = shipped_hardware()["l4"].model_dump(exclude_none=True)
    for name, gb in (("some", 14), ("little", 5)):
        entry = {**l4, "memory_bytes": gb * 1e9}
        text = "\n".join(f"{field} = {json.dumps(value)}" for field, value in entry.items())
        (tmp_path / f"{name}.toml").write_text(f"[{name}]\n{text}\n")
    kinds = ", ".join(f'{{ name = "{name}", hardware = "{name}.toml" }}' for name in ("some", "little"))
    (tmp_path / "scenario.toml").write_text(
        'model = "sdxl"\ntrace.path = "trace.parquet"\nslo.scale = 5.0\npolicies.scheduling = "mixed-fcfs"\n'
        f"plan.hardware = [{kinds}]\n"
    )
    run("trace", "generate", "--rate", 1, "--duration", 60, "--sizes", "1024x1024", "-o", tmp_path / "trace.parquet")
    case = Case(load_scenario(tmp_path / "scenario.toml", {}))
    some, little = (case.options[name, 1, "mixed-fcfs"] for name in ("some", "little"))
    assert some.memory is not None
    assert some.label == ESTIMATED
    assert some.max_batch == some.memory.max_batch
    assert 1 <= some.max_batch < 12
    asked = case.run_of(Experiment(some.cluster(2), 0, 10)).scenario
    assert asked.policies.scheduling.parameters == {"max_batch": some.max_batch}
    assert case.demand().model == "sdxl"
    found = search([little], 0.1, lambda candidate: pytest.fail(f"{candidate} was simulated"), lambda option: 1, 0.9)
    assert "memory: the model does not fit" in found.refused[0].why


def test_a_plan_takes_failures_by_chance_alone(folder: Path) -> None:
    given = ("plan", folder / "scenario.toml", "-o", folder / "out")
    assert "faults.mtbf_s" in refused(*given, "--set", 'faults.outages=["10:1:30"]')
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--growth", "inf"), "--growth is inf"),
        (("--months", 3), "--months goes with --growth"),
        (("--devices", 2), "--devices goes with --replicas"),
    ],
)
def test_options_that_go_with_others(folder: Path, options: tuple[object, ...], says: str) -> None:
    assert says in refused("plan", folder / "scenario.toml", "-o", folder / "out", *options)
    assert not (folder / "out").exists()
