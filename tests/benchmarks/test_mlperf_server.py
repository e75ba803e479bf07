"""MLPerf's Server rates: the table, the load generator's arrivals, and the arithmetic of the prediction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tilecast as tc
from benchmarks.mlperf_server import predict as predicting
from benchmarks.mlperf_server.__main__ import fitted, halves, main, missed
from benchmarks.mlperf_server.predict import ENGINE, Assumed, Server, crossing, implied, predict, request
from benchmarks.mlperf_server.systems import RESULTS, Numbers, System, read_systems, schedule, scheduled
from traces.errors import BadInput

SYSTEMS = read_systems()
BY_NAME = {each.name: each for each in SYSTEMS}


def alone(devices: int = 1, **changed: object) -> System:
    """A system whose GPUs take 2 s for every request, each alone."""
    given = {
        **BY_NAME["4.1 Cisco C245M8_L40Sx2"].model_dump(),
        **{"devices": devices, "offline_per_s": devices / 2, "offline_samples": 40 * devices, "offline_min_s": 2.0},
        **{"target_per_s": 0.4 * devices, "min_queries": 100},
    }
    return System(**{**given, **changed})


def test_the_table_holds_each_system_once_and_says_where_it_is_from() -> None:
    assert len({(each.round, each.submitter, each.platform) for each in SYSTEMS}) == len(SYSTEMS) == 35
    for each in SYSTEMS:
        assert each.platform in each.source
        assert f"/{each.submitter}/" in each.source
        assert 0.5 < each.load < 1.1
        assert each.p99_s <= 20


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_arrivals_are_those_of_the_load_generator(system: System) -> None:
    arrivals = system.arrivals()
    assert scheduled(arrivals) == pytest.approx(system.scheduled_per_s, abs=0.0051)
    assert len(arrivals) >= system.min_queries
    assert arrivals[-1] >= 600


def test_the_batch_of_offline_is_what_its_first_latency_shows() -> None:
    found = {each.name: each.offline_batch for each in SYSTEMS}
    assert found["4.0 NVIDIA DGX-H100_H100-SXM-80GBx8"] == 8
    assert found["4.1 NVIDIA DGX-H100_H100-SXM-80GBx8"] == 32
    assert found["4.0 NVIDIA L40Sx8"] == 1


def test_arrivals_end_with_the_first_after_the_duration() -> None:
    long, short = schedule(7, 3.0, duration_s=600.0), schedule(7, 3.0, duration_s=60.0)
    assert short.tolist() == long[: len(short)].tolist()
    assert short[-2] < 60 <= short[-1]
    assert len(schedule(7, 3.0, least=500, duration_s=60.0)) == 500
    assert np.mean(np.diff(long)) == pytest.approx(1 / 3, rel=0.1)


@pytest.mark.parametrize(
    ("column", "cell", "said"),
    [
        ("p99_s", "1", "do not rise"),
        ("completed_per_s", "99", "more than scheduled"),
        ("devices", "0", "devices"),
        ("commit", "abc", "commit"),
        ("offline_per_s", "fast", "offline_per_s"),
    ],
)
def test_a_wrong_cell_is_named(tmp_path: Path, column: str, cell: str, said: str) -> None:
    header, first, *_ = RESULTS.read_text().splitlines()
    names, cells = header.split(","), first.split(",")
    cells[names.index(column)] = cell
    path = tmp_path / "wrong.csv"
    path.write_text("\n".join([header, first, ",".join(cells)]) + "\n")
    with pytest.raises(BadInput, match=rf"wrong.csv: row 2: .*{said}"):
        read_systems(path)


def waited(arrivals: Numbers, service_s: float) -> Numbers:
    """Latencies at one server, first come first served: Lindley's recursion."""
    done_s, latencies = 0.0, []
    for at_s in arrivals.tolist():
        done_s = max(done_s, at_s) + service_s
        latencies.append(done_s - at_s)
    return np.array(latencies)


def test_one_gpu_and_no_batches_is_lindleys_recursion() -> None:
    server = Server(alone())
    arrivals = server.system.arrivals()
    np.testing.assert_allclose(server.latencies(arrivals), waited(arrivals, 2.0), rtol=1e-6)
    np.testing.assert_allclose(server.latencies(arrivals, 1.01), waited(arrivals, 2.02), rtol=1e-6)


@pytest.mark.parametrize("offline_run", [True, False])
def test_the_simulated_offline_result_is_the_published_one(offline_run: bool) -> None:
    system = BY_NAME["4.1 Dell XE9640_H100_SXM_80GBx4"]
    assert (system.offline_batch, system.server_batch) == (32, 8)
    server = Server(system, Assumed(offline_run, offline_batch=offline_run))
    requests = system.offline_samples if offline_run else system.devices * system.server_batch
    done_s = server.latencies(np.zeros(requests)).max()
    assert requests / done_s == pytest.approx(system.offline_per_s, rel=1e-6)


def test_longer_batches_are_taken_where_offline_ran_larger_ones() -> None:
    plain, longer = Assumed(), Assumed(longer=0.02)
    large, same = BY_NAME["4.1 Dell XE9640_H100_SXM_80GBx4"], alone()
    assert Server(large, longer).factor == pytest.approx(1.02 * Server(large, plain).factor)
    assert Server(same, longer).factor == Server(same, plain).factor


def test_simulations_are_those_of_the_library() -> None:
    system = BY_NAME["4.1 Cisco C245M8_H100_PCIe_80GBx2"]
    server = Server(system)
    arrivals = system.arrivals()[:200]
    scenario = tc.Scenario(
        "sdxl",
        trace=tc.Trace.from_requests([request(i, at_s) for i, at_s in enumerate(arrivals.tolist())]),
        predictor={"hardware": "h100-pcie", "dtype": "fp8", "engine": ENGINE},
        scheduler={"name": "same-size-dynamic", "max_batch": 8, "window_s": 3.0},
        replicas=2,
        world={"noise": False, "slowdown": server.factor},
    )
    run = tc.simulate(scenario).requests
    np.testing.assert_allclose(server.latencies(arrivals), run["finish_s"] - run["arrival_s"], rtol=1e-9)


def test_the_highest_rate_is_where_the_bound_is_met() -> None:
    server = Server(alone(2))
    most = server.most_per_s(seed=3)
    scale = most / scheduled(server.system.arrivals(1.0, 3))
    below, above = [server.p99_s(server.system.arrivals(scale * x, 3)) for x in (0.98, 1.02)]
    assert below < 20 < above
    assert server.p99_s(server.system.arrivals(seed=3), 1.02) > server.p99_s(server.system.arrivals(seed=3))


def test_what_batches_took_is_found_from_what_they_did() -> None:
    system = alone(2)
    p99_s = Server(system).p99_s(system.arrivals(), 1.04)
    told = system.model_copy(update={"p99_s": p99_s})
    took = implied(told, Assumed())
    assert took == pytest.approx(1.04, abs=2e-3)
    row = predict(told, Assumed(log_sd=0.01), took, seeds=2)
    assert row.low_s < row.shorter_s < row.p99_s < row.longer_s < row.high_s < p99_s
    assert row.ratio < 1 < row.implied
    assert not row.inside
    assert replace(row, high_s=p99_s).inside
    assert len(row.seeds_per_s) == len(row.seeds_p99_s) == 2


def test_crossings() -> None:
    assert crossing(lambda x: x - 3.7, 1.0) == pytest.approx(3.7, rel=1e-3)
    assert crossing(lambda x: x**3 - 0.5, 1.0) == pytest.approx(0.5 ** (1 / 3), rel=1e-3)
    assert crossing(lambda x: 1.0 if x > 0.9 else -1e-9, 1.0) == pytest.approx(0.9, rel=1e-3)
    with pytest.raises(BadInput, match=r"between 0\.2 and 5"):
        crossing(lambda x: 1.0, 1.0)


def test_each_half_has_systems_near_the_bound_and_others() -> None:
    first, second = halves(SYSTEMS)
    assert sorted([*first, *second], key=SYSTEMS.index) == SYSTEMS
    assert abs(len(first) - len(second)) <= 2
    assert {each.near for each in first} == {each.near for each in second} == {True, False}


def test_misses_up_and_down_weigh_the_same() -> None:
    assert missed([2.0, 0.5]) == pytest.approx(1.0)
    assert missed([1.0]) == 0


def test_what_is_chosen_makes_the_median_right() -> None:
    large = [each for each in SYSTEMS if each.rebatched][:3]
    took = {alone(): 1.01, **dict(zip(large, (1.02, 1.03, 1.05), strict=True))}
    found = fitted(Assumed(), took, list(took))
    assert found.longer == pytest.approx(0.03)
    left = [1.01, 1.02 / 1.03, 1.0, 1.05 / 1.03]
    assert found.log_sd == pytest.approx(np.std(np.log(left)))
    assert fitted(Assumed(), {alone(): 1.01}, [alone()]).longer == 0


def test_the_command_prints_each_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(predicting, "RESOLVED", 0.02)
    p99_s = {"a": 19.0, "b": 18.0, "c": 11.0}
    rows = [alone(platform=name, p99_s=p99_s, max_s=30.0).model_dump() for name, p99_s in p99_s.items()]
    path = tmp_path / "some.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    assert main(["--results", str(path), "--seeds", "1", "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert [said.count(f"4.1 Cisco {name} ") for name in p99_s] == [1, 1, 1]
    assert said.count("chosen on these*: P99 over the published one") == 2
    assert said.count("the others: P99 over the published one") == 1
    assert said.count("rate over the published one") == 2
    with pytest.raises(BadInput, match="--only 'nothing': none of the 3 systems"):
        main(["--results", str(path), "--only", "nothing"])
