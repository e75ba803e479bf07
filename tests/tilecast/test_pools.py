"""Clusters of several pools and models, from the scenario to the run's log."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import tilecast as tc
from policies.record import run_arrays
from reports.breakdown import by_model, by_pool, by_tenant
from reports.comparison import Comparison
from reports.plan.joint import JointPlan
from reports.plan.terminal import show_joint_plan
from reports.plan.write import write_joint_plan
from tilecast.checking import check_scenario
from tilecast.setup import prepare
from tilecast.simulation import run_simulation
from tilecast.studies.pools import plan_pool_scaling
from traces.errors import BadInput
from traces.notes import Severity
from traces.request import Request
from traces.trace import Trace

FLUX, WAN = {"model": "flux"}, {"model": "wan-1.3b", "frames": 81}
POOLS = (
    {"name": "large", "models": ["flux"], "hardware": "h100-sxm", "replicas": 2, "price_per_hour": 2.5},
    {"name": "small", "models": ["wan-1.3b", "flux"], "hardware": "l40s", "replicas": 1, "price_per_hour": 1.0},
)


def trace(*more: Mapping[str, Any], every_s: float = 4.0) -> Trace:
    asked = [{**(WAN if at % 6 == 5 else FLUX), "tenant": "ab"[at % 2]} for at in range(30)]
    return Trace.from_requests(
        [
            Request(f"r{at}", every_s * at, 512, 512, 10, **given)  # type: ignore[arg-type]
            for at, given in enumerate([*asked, *more])
        ]
    )


def scenario(*, asked: Trace | None = None, pools: tuple[Mapping[str, Any], ...] = POOLS, **more: Any) -> tc.Scenario:
    given: dict[str, Any] = {"scheduler": "lookahead", "slo": {"scale": 6.0}, **more}
    given.setdefault("trace", trace() if asked is None else asked)
    return tc.Scenario(model="flux", pool=list(pools), **given)


def test_each_model_runs_on_the_pools_that_serve_it_at_their_own_costs() -> None:
    run = tc.simulate(scenario(asked=trace(every_s=0.5), scheduler="fcfs"))
    assert set(run.requests["status"]) == {"finished"}
    ran = run.requests.groupby("model")["replica"].agg(set)
    assert ran["wan-1.3b"] == {2}
    assert ran["flux"] >= {0, 1}
    denoised = run.steps[(run.steps["stage"] == "denoise") & (run.steps["composition"] == "1@512x512")]
    step_s = (denoised["end_s"] - denoised["start_s"]).groupby(denoised["replica"]).sum() / denoised.groupby("replica")[
        "steps"
    ].sum()
    assert step_s[2] > 1.2 * step_s[0]
    pools = run.info["pools"]
    assert [(pool["name"], pool["replicas"], pool["hardware"]) for pool in pools] == [
        ("large", 2, "NVIDIA H100 SXM 80GB"),
        ("small", 1, "NVIDIA L40S 48GB"),
    ]
    assert pools[1]["models"] == {"wan-1.3b": "ESTIMATED", "flux": "ESTIMATED"}


def test_a_run_is_told_by_model_pool_and_tenant_the_same_from_its_log_and_from_memory() -> None:
    ready = prepare(scenario())
    arrays = run_arrays(run_simulation(ready), ready.requests, ready.pools)
    logged = tc.simulate(scenario()).comparison.arrays[0]
    for table in (by_model, by_pool, by_tenant):
        assert table(arrays).equals(table(logged))
    assert by_model(arrays)["requests"].to_dict() == {"flux": 25.0, "wan-1.3b": 5.0}
    assert by_tenant(arrays)["requests"].to_dict() == {"a": 15.0, "b": 15.0}
    pools = by_pool(arrays)
    assert list(pools.index) == ["large", "small"]
    assert pools["requests"].sum() == 30
    assert pools["cost"].to_list() == pytest.approx([arrays.span_s / 3600 * each for each in (5.0, 1.0)])


def test_an_overload_of_one_pool_is_said_of_its_models() -> None:
    often = Trace.from_requests(
        [
            *[Request(f"f{at}", 1.0 * at, 512, 512, 10, **FLUX) for at in range(400)],  # type: ignore[arg-type]
            *[Request(f"w{at}", 8.0 * at, 512, 512, 10, **WAN) for at in range(50)],  # type: ignore[arg-type]
        ]
    )
    apart = ({**POOLS[0], "replicas": 4}, {**POOLS[1], "models": ["wan-1.3b"]})
    run = tc.simulate(scenario(asked=often, pools=apart, scheduler="fcfs"))
    [said] = [note.text for note in Comparison.of([run.log]).notes() if note.severity is Severity.GRAVE]
    assert said.startswith("fcfs: OVERLOADED: requests of wan-1.3b arrive")
    assert not any("prediction" in row.label.lower() for row in Comparison.of([run.log]).rows())  # nothing was wrong
    assert {row.label: row.cells for row in Comparison.of([run.log]).setup()}["Model"] == ("flux and wan-1.3b",)


def test_per_step_mode_is_an_oracle_for_several_models_and_pools() -> None:
    ready = prepare(scenario(asked=trace(every_s=1.0)))
    finished = [
        [(job.request.request_id, job.state, job.finish_s) for job in run_simulation(ready, per_step).jobs]
        for per_step in (False, True)
    ]
    assert finished[0] == finished[1]


def test_deadlines_are_multiples_of_the_latency_where_it_is_least() -> None:
    ready = prepare(scenario())
    both = [pool.costs.standalone_s(ready.requests[0]) for pool in ready.pools]
    assert ready.requests[0].slo_s == pytest.approx(6 * min(both))
    assert both[0] < both[1]


def test_models_are_weights_that_come_and_go_where_a_pool_holds_fewer_than_it_serves() -> None:
    weights = {"memory_gb": 80.0, "weights_gb": 24.0, "checkpoints_gb": ["wan-1.3b:30"]}
    pools = [{**POOLS[0], "models": ["flux", "wan-1.3b"]}, {**POOLS[1], "memory_gb": 40.0}]
    run = tc.simulate(scenario(pools=tuple(pools), asked=trace(every_s=30.0), weights=weights, scheduler="fcfs"))
    loads = run.steps[run.steps["stage"] == "load"]
    assert set(loads["checkpoint"]) == {"flux", "wan-1.3b"}
    assert set(run.requests["status"]) == {"finished"}
    with pytest.raises(BadInput, match=r"pool 'small': checkpoint 'wan-1.3b' is 30.0 GB, expected .* 25.0"):
        prepare(scenario(pools=(POOLS[0], {**POOLS[1], "memory_gb": 25.0}), weights=weights))


def test_what_is_loaded_from_the_beginning_lies_where_it_is_served() -> None:
    weights = {"memory_gb": 80.0, "weights_gb": 24.0, "preload": ["wan-1.3b", "flux"]}
    assert prepare(scenario(weights=weights)).loaded == [["flux"], ["flux"], ["wan-1.3b", "flux"]]


def test_a_key_of_one_pool_is_set_by_its_name() -> None:
    changed = scenario().replaced({"pool.small.replicas": 7})
    assert [pool.replicas for pool in changed.pools] == [2, 7]
    with pytest.raises(BadInput, match=r"--set pool.tiny.replicas: expected pool.NAME.KEY, .* one of: large, small"):
        scenario().replaced({"pool.tiny.replicas": 7})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"asked": trace({"model": "sdxl"})},
            "request 'r30': model 'sdxl' is served by no pool; expected one of",
        ),
        ({"pools": (POOLS[0],)}, "model 'wan-1.3b' is served by no pool"),
        (
            {"pools": (*POOLS, {"name": "idle", "models": ["sdxl"], "hardware": "a10g", "price_per_hour": 1.0})},
            "pool 'idle' serves sdxl, which no request of .* asks for",
        ),
        ({"pools": (POOLS[0], {**POOLS[1], "price_per_hour": None})}, "expected a price_per_hour for every pool"),
        ({"pools": (POOLS[0], {**POOLS[1], "name": "large"})}, "expected pools of different names"),
        ({"pools": (POOLS[0], {**POOLS[1], "hardware": "h999"})}, "pool 'small': unknown hardware 'h999'"),
        ({"pools": (POOLS[0], {**POOLS[1], "models": ["nobody"]})}, "pool 'small': unknown model 'nobody'"),
        ({"pools": (POOLS[0], {**POOLS[1], "executor": {"sdxl": "whole"}})}, "executor of 'sdxl', which is none of"),
        ({"pools": (POOLS[0], {**POOLS[1], "replica": 2})}, "unknown key 'pool.1.replica'; did you mean 'replicas'"),
        ({"policies": {"caching": "first-block", "scheduling": "fcfs"}}, "policies.caching is 'first-block': expected"),
        (
            {"weights": {"memory_gb": 80.0, "weights_gb": 24.0, "preload": ["nobody"]}},
            "weights.preload: no request asks for 'nobody', so which of flux, wan-1.3b is it of",
        ),
        ({"tiling": {}}, r"\[tiling\] is of one model on one pool"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(given: dict[str, Any], said: str) -> None:
    if "policies" in given:
        given["scheduler"] = None
    with pytest.raises(BadInput, match=said) as found:
        prepare(scenario(**given))
    assert "\n" not in str(found.value)


def test_what_was_prepared_runs_with_other_replicas_noise_and_speed() -> None:
    ready = prepare(scenario())
    base = ready.scenario
    for changed, trace_ in ((base, ready.trace), (base.replaced({"pool.small.replicas": 5, "seed": 3}), ready.trace)):
        run = ready.running(changed, trace_)
        again = prepare(changed)
        assert [pool.replicas for pool in run.pools] == [pool.replicas for pool in again.pools]
        ended = [[(job.request.request_id, job.finish_s) for job in run_simulation(each).jobs] for each in (run, again)]
        assert ended[0] == ended[1]
    alone = prepare(tc.Scenario(model="tiny-image", trace=one_model(), profile="cpu-1core"))
    more = alone.running(alone.scenario.replaced({"cluster.replicas": 3, "world.slowdown": 2.0}), alone.trace)
    assert [pool.replicas for pool in more.pools] == [3]
    assert {job.replica for job in run_simulation(more).jobs} == {0, 1, 2}


def one_model() -> Trace:
    return Trace.from_requests([Request(f"r{at}", 0.01 * at, 64, 64, 4) for at in range(9)])


FEW = {"seeds": 2, "max_seeds": 2, "requests": 60, "max_requests": 60}
APART = (POOLS[0], {**POOLS[1], "models": ["wan-1.3b"]})


def test_pools_of_different_models_are_planned_each_for_its_own_requests_at_the_rates_asked_for(tmp_path: Path) -> None:
    planned = scenario(pools=APART, scheduler="fcfs", plan=FEW)
    made = tc.plan_pools(planned, tmp_path / "plan", rate_rps={"flux": 0.5, "wan-1.3b": 0.02}, workers=1)
    assert {name: each.demand.model for name, each in made.of.items()} == {"large": "flux", "small": "wan-1.3b"}
    assert [each.demand.rate_rps for each in made.of.values()] == pytest.approx([0.5, 0.02])
    together = tc.plan_pools(planned, tmp_path / "plan", rate_rps=0.6, workers=1)
    assert [each.demand.rate_rps for each in together.of.values()] == pytest.approx([0.5, 0.1], rel=0.1)
    assert sorted(path.name for path in (tmp_path / "plan").iterdir()) == ["large", "small"]
    answers = [each.answer for each in made.of.values()]
    if made.keeps:
        assert made.price_per_hour == pytest.approx(sum(answer.price_per_hour for answer in answers if answer))
    considered = {each.candidate.hardware for each in made.of["small"].considered}
    assert considered == {"NVIDIA L40S 48GB"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"pools": APART, "asked": trace({"model": "sdxl"})}, "model 'sdxl' is served by no pool"),
        (
            {"pools": (*APART, {**POOLS[0], "name": "idle", "models": ["sdxl"]})},
            "pool 'idle' serves sdxl, which no request of .* asks for",
        ),
        ({"trace": {"path": trace(), "limit": 3}}, "trace.limit counts the requests of all pools together"),
        (
            {"plan": {**FEW, "policies": ["fcfs"]}},
            r"plan.policies is of pools that serve one model each, .* large\+small",
        ),
        ({"slo": {}}, "no request has a deadline, so any cluster keeps the promise"),
        ({"faults": {"outages": ["0:1:2"]}}, "faults.outages and faults.slow name replicas"),
    ],
)
def test_what_cannot_be_planned_is_said_in_one_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        tc.plan_pools(scenario(**{"plan": FEW, **given}))
    with pytest.raises(BadInput, match="each of which is planned for itself: ask plan_pools"):
        tc.plan(scenario(**{"plan": FEW, **given}))


MANY = Trace.from_requests(
    [Request(f"r{at}", 0.7 * at + 0.1 * (at % 7), 512, 512, 10, **(WAN if at % 6 == 5 else FLUX)) for at in range(900)]  # type: ignore[arg-type]
)
SHORT = {"seeds": 3, "max_seeds": 6, "requests": 300, "max_requests": 600, "attainment": 0.9}


def test_pools_that_share_models_are_planned_together(tmp_path: Path) -> None:
    """Wan runs on the small ones alone; pictures go there too, for less than a large one costs."""
    planned = scenario(asked=MANY, scheduler="fcfs", plan=SHORT)
    made = tc.plan_pools(planned, tmp_path / "plan", rate_rps={"flux": 1.5, "wan-1.3b": 0.1}, workers=1)
    assert not made.of
    together = made.joint["large+small"]
    assert together.rates_rps == {"flux": 1.5, "wan-1.3b": 0.1}
    answer, checked = together.answer, together.checked
    assert answer is not None
    assert checked is not None
    assert all(met.mean >= 0.9 for met in checked.attainment.values())
    assert made.replicas == answer.replicas
    assert made.price_per_hour == answer.price_per_hour >= together.least_price
    cheaper = [each for each in together.considered if each.price_per_hour < answer.price_per_hour]
    assert cheaper
    assert not any(each.keeps for each in cheaper)
    again = tc.plan_pools(planned, tmp_path / "plan", rate_rps={"flux": 1.5, "wan-1.3b": 0.1}, workers=1)
    assert again.joint["large+small"] == together
    page, table, facts = write_joint_plan(together, tmp_path / "plan" / "large+small")
    assert JointPlan.from_json(facts.read_text()) == together
    shown = Console(record=True, width=100, file=StringIO())
    show_joint_plan(together, shown)
    for said in (page.read_text(), table.read_text(), shown.export_text()):
        assert answer.spelled in said
        assert f"{answer.price_per_hour:.2f}" in said


def test_what_no_pool_can_serve_in_time_is_said_without_a_simulation() -> None:
    """A deadline of once the latency alone on the large ones is none that a small one keeps."""
    pools = (POOLS[0], {**POOLS[1], "replicas": 3})
    hard = scenario(asked=MANY, pools=pools, slo={"scale": 1.2}, scheduler="fcfs", plan=SHORT)
    made = tc.plan_pools(hard, rate_rps={"flux": 500.0, "wan-1.3b": 1.0}, workers=1).joint["large+small"]
    assert made.points == 0
    assert made.answer is None
    assert "small: even alone only 0% on small of flux would be in time" in made.refused
    assert "large and small: the work takes more than 64 of large and 64 of small" in made.refused
    assert made.sentence.startswith("No cluster keeps 90 % of deadlines of flux at 1,800,000/h and wan-1.3b at 3,600/h")


def test_one_pool_of_several_models_is_planned_for_all_of_them() -> None:
    both = {**POOLS[1], "models": ["wan-1.3b", "flux"]}
    made = tc.plan_pools(scenario(asked=MANY, pools=(both,), scheduler="fcfs", plan=SHORT), workers=1).joint["small"]
    assert made.answer is not None
    assert sum(made.rates_rps.values()) == pytest.approx(1 / 0.7, rel=0.01)
    assert set(made.answer.attainment) == {"flux", "wan-1.3b"}


def test_each_pool_has_the_scaling_policy_that_keeps_its_promise_for_least(tmp_path: Path) -> None:
    scaling = {"plan": {**SHORT, "attainment": 0.8, "scaling": ["queue"]}, "scaling": {"least": 0, "load_s": 5.0}}
    found = plan_pool_scaling(scenario(pools=APART, scheduler="fcfs", **scaling), tmp_path / "plan", workers=1)
    assert {name: {each.name for each in made.choices} for name, made in found.items()} == {
        "large": {"queue", "fixed, 2", "fixed, 1"},
        "small": {"queue", "fixed, 1"},
    }
    cost = {each.name: each.cost.mean for each in found["large"].choices}
    assert cost["queue"] < cost["fixed, 2"] == pytest.approx(2 * cost["fixed, 1"], rel=0.05)
    assert sorted(path.name for path in (tmp_path / "plan").iterdir()) == ["large", "small"]
    with pytest.raises(BadInput, match=r"plan.scaling is of pools that serve one model each, .* large\+small share"):
        plan_pool_scaling(scenario(**scaling))


def test_what_is_of_one_model_is_refused_where_pools_share_models() -> None:
    for name, value in (("growth", 0.1), ("hardware", "l40s"), ("replicas", 2)):
        with pytest.raises(BadInput, match=f"--{name} is of pools that serve one model each"):
            tc.plan_pools(scenario(plan=SHORT), **{name: value})


def test_rates_by_model_name_every_model() -> None:
    with pytest.raises(BadInput, match=r"rates are given for flux; expected one for each of flux, wan-1\.3b"):
        tc.plan_pools(scenario(pools=APART, plan=FEW), rate_rps={"flux": 1.0})


def test_a_checked_scenario_names_every_pool() -> None:
    said = " ".join(check_scenario(scenario()).sentences())
    assert "2 replicas of NVIDIA H100 SXM 80GB (large) and 1 replica of NVIDIA L40S 48GB (small) serve them by" in said
