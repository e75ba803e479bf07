"""A closed loop: users who ask, wait, think and ask again, and what they can expect."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.cli.run_command import negative, refused, run
from tilecast.asking import ask
from tilecast.results import Result
from tilecast.running import simulate
from tilecast.scenario import Scenario, load_scenario
from traces.errors import BadInput
from traces.request import Request
from traces.streams import stream
from traces.trace import Trace
from traces.users import Users

EXAMPLES = Path(__file__).parents[2] / "examples"


def trace(count: int = 60, **columns: object) -> Trace:
    frame = pd.DataFrame({"arrival_s": np.arange(count) * 0.5, "height": 128, "width": 128, "steps": 8})
    return Trace.from_frame(frame.assign(**columns), "made")


def scenario(users: int, think_s: float = 0.0, asked: Trace | None = None, **keys: object) -> Scenario:
    section = {"path": trace() if asked is None else asked, "users": users, "think_s": think_s}
    return Scenario("tiny-image", trace=section, hardware="l4").replaced(dict(keys))


def under_way(result: Result) -> int:
    """The most requests that had come and not ended at once."""
    rows = result.requests
    changes = [(at, 1) for at in rows["arrival_s"]] + [(at, -1) for at in rows["finish_s"]]
    return int(np.cumsum([by for _, by in sorted(changes)]).max())


def test_each_user_asks_when_it_has_been_answered() -> None:
    rows = simulate(scenario(1)).requests
    assert rows["arrival_s"].iloc[0] == 0
    assert rows["arrival_s"].to_numpy()[1:] == pytest.approx(rows["finish_s"].to_numpy()[:-1], abs=1e-11)
    assert list(rows["request_id"]) == [request.request_id for request in trace()]
    thinking = simulate(scenario(1, 0.2)).requests
    thoughts = thinking["arrival_s"].to_numpy()[1:] - thinking["finish_s"].to_numpy()[:-1]
    assert thoughts.mean() == pytest.approx(0.2, rel=0.5)
    assert thoughts.min() > 0


@pytest.mark.parametrize(("users", "think_s"), [(4, 0.0), (12, 0.05), (100, 1.0)])
def test_no_more_are_under_way_than_there_are_users(users: int, think_s: float) -> None:
    asked = scenario(users, think_s, **{"policies.scheduling": "mixed-fcfs"})
    result = simulate(asked)
    assert (result.requests["status"] == "finished").all()
    assert under_way(result) <= users
    assert result.requests["arrival_s"].is_monotonic_increasing
    again = simulate(asked)
    pd.testing.assert_frame_equal(result.requests, again.requests)
    pd.testing.assert_frame_equal(result.steps, again.steps)
    other = simulate(asked.replaced({"seed": 1}))
    assert think_s == 0 or list(other.requests["arrival_s"]) != list(result.requests["arrival_s"])


def test_step_by_step_users_ask_at_the_same_times() -> None:
    asked = scenario(6, 0.05, **{"predictor.online": False, "policies.scheduling": "same-size-continuous"})
    quanta, steps = simulate(asked).requests, simulate(asked, per_step=True).requests
    assert steps["finish_s"].to_numpy() == pytest.approx(quanta["finish_s"].to_numpy(), abs=1e-9)


def test_users_go_on_after_a_request_that_was_dropped_or_failed() -> None:
    late = scenario(8, **{"slo.scale": 2.0, "policies.scheduling": {"name": "edf", "drop_late": True}})
    rows = simulate(late).requests
    assert set(rows["status"]) == {"finished", "dropped"}
    assert (rows["deadline_s"] - rows["arrival_s"]).to_numpy() == pytest.approx(2 * rows["standalone_s"].to_numpy())
    assert under_way(simulate(late)) <= 8
    failing = scenario(3, **{"faults.outages": ["0.05:0:0.5"], "faults.in_flight": "fail"})
    rows = simulate(failing).requests
    assert (rows["status"] == "failed").sum() >= 1
    assert (rows["status"] != "failed").sum() >= 50


def test_deadlines_move_with_the_arrivals() -> None:
    dated = trace(deadline_s=np.arange(60) * 0.5 + 3.0)
    rows = simulate(scenario(5, 0.1, dated)).requests
    assert (rows["deadline_s"] - rows["arrival_s"]).to_numpy() == pytest.approx(3.0)


def test_users_of_several_pools_and_of_replicas_that_come_and_go() -> None:
    run_of_pools = {"trace.users": 6, "trace.think_s": 5.0, "trace.limit": 40}
    rows = simulate(load_scenario(EXAMPLES / "pools.toml", run_of_pools)).requests
    assert (rows["status"] == "finished").all()
    scaled = scenario(12, 0.2, **{"cluster.replicas": 4, "policies.scaling": "queue", "scaling.provisioning_s": 0.5})
    result = simulate(scaled)
    assert (result.requests["status"] == "finished").all()
    assert result.summary()["starts"] > 0


def test_the_law_of_closed_loops_holds() -> None:
    """Users = answers a second x (wait + thought), whatever the scheduler does (Little's law)."""
    many = trace(900)
    for users, think_s in ((5, 0.2), (30, 1.0)):
        rows = simulate(scenario(users, think_s, many)).requests
        steady = rows.iloc[200:-users]
        span_s = steady["arrival_s"].iloc[-1] - steady["arrival_s"].iloc[0]
        wait_s = (steady["finish_s"] - steady["arrival_s"]).mean()
        assert len(steady) / span_s * (wait_s + think_s) == pytest.approx(users, rel=0.1)


def test_thoughts_are_each_users_own() -> None:
    requests = [Request(str(number), 0.0, 64, 64, 1) for number in range(5)]
    few, more = (Users(count, 2.0, requests, stream(0, "trace/users")) for count in (2, 3))
    assert few.first() == more.first()[:2]
    asked = few.asks(1, 0, 4.0)
    assert (asked.request_id, asked.arrival_s) == ("0", 4.0)
    assert few.answered("0") is not None
    one = Users(7, 0.0, requests, stream(0, "trace/users"))
    assert one.first() == [(0.0, user) for user in range(5)]
    one.asks(3, 0, 0.0)
    assert one.answered("0") is None


def test_what_users_cannot_be_asked_for_is_refused(tmp_path: Path) -> None:
    for section, said in (
        ({"think_s": 3.0}, "expected users beside think_s"),
        ({"users": 3, "rate_scale": 2.0}, "no rate_scale and no spikes beside users"),
        ({"users": 0}, "trace.users"),
    ):
        with pytest.raises(BadInput, match=said):
            Scenario("tiny-image", trace=section)
    with pytest.raises(BadInput, match=r"faults\.patience_s is of requests that come at times of their own"):
        simulate(scenario(3, **{"faults.patience_s": 5.0}))
    for verb in ("plan", "replay"):
        words = (verb, EXAMPLES / "sdxl_h200.toml", "-o", tmp_path / verb, "--set", "trace.users=3")
        assert "trace.users is" in refused(*words)


def test_more_users_wait_longer_and_more_replicas_help() -> None:
    quick = {"model": "tiny-image", "think_s": 0.5, "hardware": "l4", "scheduler": "fcfs", "seeds": 2}
    few, many = ask(users=2, **quick), ask(users=24, **quick)
    assert few.waits.p95_s.mean < many.waits.p95_s.mean
    assert few.waits.busy.mean < many.waits.busy.mean
    assert few.enough is None
    limit_s = (few.waits.p95_s.high + many.waits.p95_s.mean) / 2
    found = ask(users=24, limit_s=limit_s, **quick)
    assert found.enough is not None
    assert found.enough.p95_s.high <= limit_s
    assert found.waits.p50_s == many.waits.p50_s
    assert found.between is not None
    assert found.error > 1
    fewest, most = found.between
    assert fewest is not None
    assert fewest <= found.enough.replicas
    assert most is None or most >= found.enough.replicas
    assert ask(users=24, replicas=found.enough.replicas - 1, **quick).waits.p95_s.high > limit_s
    with pytest.raises(BadInput, match="seeds is 1, expected at least 2"):
        ask("tiny-image", users=2, seeds=1)


def test_the_command_says_it_in_words() -> None:
    asked = (
        "ask",
        "--users",
        8,
        "--model",
        "tiny-image",
        "--hardware",
        "l4",
        "--think",
        0.5,
        "--seeds",
        2,
        "--scheduler",
        "fcfs",
    )
    told = " ".join(run(*asked, "--within", 5).split())
    assert told.startswith("For 95 % of the requests to be answered within 5.00 s: 1 replica (P95 ")
    assert "; if the times are wrong by x/÷ 1." in told
    assert "8 users of tiny-image on 1 replica of NVIDIA L4 24GB wait " in told
    assert "each thinking 0.500 s between an answer and the next request" in told
    assert "ESTIMATED" in told
    assert "No number of replicas" in " ".join(negative(*asked, "--within", 0.001).split())
    assert "did you mean 'sdxl'" in refused("ask", "--users", 3, "--model", "SDXLL")
