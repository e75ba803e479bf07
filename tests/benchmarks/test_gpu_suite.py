"""The GPU suite: its plan, how it keeps results, what its tables say, and a smoke run."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from benchmarks.gpu_suite import run as running
from benchmarks.gpu_suite.__main__ import main
from benchmarks.gpu_suite.bench import Bench
from benchmarks.gpu_suite.budget import MARGIN, REPLAY_S, START_S, Alike, Estimated, Pace, plan
from benchmarks.gpu_suite.goals import NOT_MEASURED, NOT_REACHED, REACHED, verdicts
from benchmarks.gpu_suite.limits import DEVICE, SMOKE, Limits
from benchmarks.gpu_suite.point import GROUPS, Point, Result
from benchmarks.gpu_suite.points import EXECUTORS, SCHEDULERS, THREE, default_points, smoke_points, squares
from benchmarks.gpu_suite.run import DeviceLost, bench_on, run
from benchmarks.gpu_suite.store import Store, Suite, read_suite
from benchmarks.gpu_suite.table import results_table
from benchmarks.gpu_suite.timing import Timer
from predictors.hardware import find_hardware
from tests.examples_tried import examples
from tests.tilecast.studies.kept_points import opened
from tests.waiting import PATIENCE_S
from traces.errors import BadInput

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
FACTS = {"hardware": "a device", "torch": "2.11", "dtype": "bfloat16", "models": "real", "date": "2026-11-28T10:00:00"}
STEPS = [Point("step", "sdxl", "eager", squares(side)) for side in (256, 512, 768, 1024)]


def h200() -> Estimated:
    return Estimated(find_hardware("h200-sxm"), DEVICE)


def text_of(table: Any) -> str:
    console = Console(width=250)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def bench() -> Bench:
    return Bench(CPU, torch.float32, smoke=True)


def took(seconds: float, **more: Any) -> Result:
    return {"seconds": seconds, "repeats": [seconds], "peak_bytes": None, **more}


class TestPoints:
    @pytest.mark.parametrize("points", [default_points(), smoke_points()], ids=["default", "smoke"])
    def test_keys_name_points(self, points: list[Point]) -> None:
        assert len({point.key for point in points}) == len(points)
        assert [Point.of_key(point.key) for point in points] == points

    def test_what_is_no_key_is_refused(self) -> None:
        for text in ("step/sdxl", "stride/sdxl/eager", "step/sdxl/eager/512x512"):
            with pytest.raises(BadInput):
                Point.of_key(text)

    def test_smoke_points_take_the_same_ways_as_real_ones(self) -> None:
        def ways(points: list[Point]) -> set[tuple[str, str]]:
            return {(point.group, point.way) for point in points if point.group != "ceiling"}

        assert ways(smoke_points()) == ways(default_points())
        assert {point.group for point in smoke_points()} == set(GROUPS)

    def test_every_model_has_a_step_and_every_mixing_model_a_mix(self) -> None:
        steps = {point.name for point in default_points() if point.group == "step"}
        assert steps == {"sdxl", "sd3.5-medium", "flux", "wan-1.3b", "cogvideox-1.5", "hunyuanvideo"}
        assert {(p.name, p.way) for p in default_points() if p.group == "mix"} == set(EXECUTORS.items())

    def test_replays_are_those_of_known_trials_and_schedulers(self) -> None:
        from benchmarks.gpu_suite.served import TRIALS
        from policies.scheduling import SCHEDULERS as KNOWN

        replays = [point for point in [*default_points(), *smoke_points()] if point.group == "replay"]
        assert {point.way for point in replays} == set(SCHEDULERS) <= set(KNOWN)
        assert {point.name for point in replays} == {"sdxl", "tiny-image"} <= set(TRIALS)
        assert TRIALS["sdxl"].profile_s + TRIALS["sdxl"].span_s + 20 <= REPLAY_S  # 20: to build, warm up, simulate


class TestPlan:
    def test_eight_minutes_on_an_h200_are_enough_for_something_of_everything(self) -> None:
        planned = [each for each in plan(default_points(), 8, h200()) if each.end_s is not None]
        assert START_S + sum(each.seconds for each in planned) <= (1 - MARGIN) * 8 * 60
        points = [each.point for each in planned]
        assert {point.group for point in points} == set(GROUPS)
        assert {point.name for point in points if point.group == "step"} >= {
            *EXECUTORS,
            "cogvideox-1.5",
            "hunyuanvideo",
        }
        assert {point.way for point in points if point.group == "step"} == {"eager", "compiled", "graph", "packed"}
        assert {point.way for point in points if point.group == "replay"} == set(SCHEDULERS)

    def test_a_minute_shows_something_of_ceilings_steps_kernels_and_mixes(self) -> None:
        early = {each.point.group for each in plan(default_points(), 8, h200()) if each.end_s and each.end_s <= 60}
        assert early >= {"ceiling", "step", "kernel", "mix"}

    @given(st.floats(0.2, 20))
    @settings(max_examples=examples(12), deadline=None)
    def test_what_is_left_out_did_not_fit_when_its_turn_came(self, minutes: float) -> None:
        points, limit = default_points(), (1 - MARGIN) * 60 * minutes
        planned = plan(points, minutes, h200())
        assert [each.point for each in planned] == points
        reserved = sum(p.seconds for p in planned if p.point.group == "replay" and p.end_s is not None)
        end = START_S
        for each in planned:
            if each.point.group == "replay":
                break
            if each.end_s is None:
                assert end + each.seconds + reserved > limit
            else:
                assert each.end_s == pytest.approx(end + each.seconds)
                end = each.end_s
                assert end + reserved <= limit

    def test_more_minutes_never_measure_less(self) -> None:
        counts = [sum(p.end_s is not None for p in plan(default_points(), m, h200())) for m in (1, 2, 5, 8, 15, 60)]
        assert counts == sorted(counts)
        assert counts[-1] == len(default_points())

    def test_networks_are_built_once_while_points_stay_with_a_model(self) -> None:
        costs, (first, second, *_) = h200(), STEPS
        before = costs.seconds(second)
        costs.ran(first)
        assert costs.seconds(second) < before
        costs.ran(Point("step", "flux", "eager", squares(512)))
        assert costs.seconds(second) == before

    def test_a_run_that_is_slower_than_predicted_leaves_more_out(self) -> None:
        pace = Pace(1, Alike(point_s=10), STEPS)
        assert pace.fits(STEPS[1], 35)
        pace.ended(STEPS[0], 70)
        assert pace.ratio == pytest.approx(3)
        assert not pace.fits(STEPS[1], 35)

    def test_replays_have_their_time_kept(self) -> None:
        replay = Point("replay", "sdxl", "lookahead")
        pace = Pace(1, Alike(point_s=10, replay_s=20), [*STEPS, replay])
        assert not pace.fits(STEPS[0], 30)
        assert pace.fits(replay, 30)
        pace.ended(replay, 5)
        assert pace.fits(STEPS[0], 35)


class TestLimits:
    @given(st.floats(1e-6, 100), st.sampled_from([DEVICE, SMOKE, DEVICE.of_ways(5)]))
    def test_slow_points_are_repeated_less(self, seconds: float, limits: Limits) -> None:
        repeats = limits.repeats(seconds)
        assert 1 <= repeats <= limits.most
        assert (repeats - 1) * seconds <= limits.cap_s
        assert repeats >= min(limits.least, limits.cap_s // seconds)
        assert 1 <= limits.warm(seconds) <= limits.warmups

    def test_the_median_of_all_repeats_is_told(self) -> None:
        calls: list[int] = []
        timer = Timer(CPU, Limits(warmups=2, target_s=0.02, least=3, most=3))
        result = timer.timed(lambda: calls.append(time.sleep(0.001 * (1 + 3 * (len(calls) == 3))) or 0))
        assert len(calls) == 5
        assert len(result["repeats"]) == 3
        assert result["seconds"] == sorted(result["repeats"])[1] >= 0.001
        assert max(result["repeats"]) >= 0.004
        assert result["peak_bytes"] is None

    def test_repeats_end_when_a_point_has_had_its_time(self) -> None:
        timer = Timer(CPU, Limits(warmups=1, target_s=1.0, least=50, most=50, cap_s=0.02))
        assert len(timer.timed(lambda: time.sleep(0.005))["repeats"]) <= 5

    def test_ways_are_timed_round_by_round_and_take_turns_to_begin(self) -> None:
        order: list[str] = []
        timer = Timer(CPU, Limits(warmups=4, least=3, most=3))
        found = timer.timed_ways({name: lambda name=name: order.append(name) for name in "abc"})  # type: ignore[misc]
        assert "".join(order) == "abc" + "abc" + "bca" + "cab"
        assert {name: len(result["repeats"]) for name, result in found.items()} == {"a": 3, "b": 3, "c": 3}

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: events and memory are its own")
    def test_a_device_is_timed_by_its_events_and_its_memory_is_counted(self) -> None:
        device, size = torch.device("cuda"), 2**28
        tensor = torch.ones(size, dtype=torch.uint8, device=device)
        timer = Timer(device, DEVICE)
        for queued in (False, True):
            result = timer.timed(tensor.clone, queued=queued)
            assert 0 < result["seconds"] < 0.1
            assert result["activation_bytes"] >= size
            assert result["peak_bytes"] >= result["activation_bytes"] + size


class TestBench:
    def test_one_object_of_a_kind_is_kept(self) -> None:
        made: list[str] = []
        on = bench()

        def make(name: str) -> Callable[[], str]:
            return lambda: made.append(name) or name

        for name in "aabba":
            assert on.kept("kind", name, make(name)) == name
        on.kept("other", "a", make("other"))
        assert on.kept("kind", "a", make("a")) == "a"
        assert made == ["a", "b", "a", "other"]
        on.forget(but="other")
        assert on.kept("other", "a", make("other")) == "other"
        assert on.kept("kind", "a", make("a")) == "a"
        assert made == ["a", "b", "a", "other", "a"]

    def test_an_unknown_device_is_refused(self) -> None:
        for device, smoke in (("gpu", True), ("cpu", False), ("meta", True)):
            with pytest.raises(BadInput, match="device is"):
                bench_on(device, "auto", smoke)
        with pytest.raises(BadInput, match="kernels is"):
            bench_on("cpu", "fast", True)


class TestStore:
    def test_what_is_missing_is_measured_again(self, tmp_path: Path) -> None:
        with Store(tmp_path, FACTS) as store:
            store.add(STEPS[0], took(1.0))
            store.add(STEPS[1], took(2.0))
        with closing(opened(tmp_path)) as file:
            file.execute("DELETE FROM points WHERE key = ?", (STEPS[1].key,))
        assert list(read_suite(tmp_path).results) == STEPS[:1]
        with Store(tmp_path, {**FACTS, "date": "later"}) as store:
            assert STEPS[0] in store
            assert STEPS[1] not in store
            store.add(STEPS[1], took(3.0))
        assert [result["seconds"] for result in read_suite(tmp_path).results.values()] == [1.0, 3.0]
        assert read_suite(tmp_path).facts == FACTS

    def test_what_another_device_measured_is_not_mixed_in(self, tmp_path: Path) -> None:
        with Store(tmp_path, FACTS):
            pass
        with pytest.raises(BadInput, match=r"measured with torch 2\.11, this is 2\.13"):
            Store(tmp_path, {**FACTS, "torch": "2.13"}).__enter__()
        with Store(tmp_path, FACTS):  # and the folder is free again
            pass

    def test_a_row_of_no_point_is_named(self, tmp_path: Path) -> None:
        with Store(tmp_path, FACTS) as store:
            store.add(STEPS[0], took(1.0))
        with closing(opened(tmp_path)) as file:
            file.execute("INSERT INTO points (key, point, result) VALUES ('nothing', '', '{}')")
        with pytest.raises(BadInput, match=r"points\.sqlite: 'nothing' names no point"):
            read_suite(tmp_path)


class TestRun:
    @pytest.fixture
    def store(self, tmp_path: Path) -> Any:
        with Store(tmp_path, FACTS) as store:
            yield store

    def run(self, store: Store, measure: Callable[[Point, Bench], Result], **more: Any) -> tuple[int, list[Point]]:
        given: dict[str, Any] = {"points": STEPS, "pace": Pace(8, Alike(), STEPS), "elapsed": lambda: 0.0}
        return run(store=store, bench=bench(), measures={"step": measure}, say=lambda _: None, **(given | more))

    def test_a_point_that_fails_says_why_and_the_others_run(self, store: Store) -> None:
        problems = {
            256: torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nAnd more."),
            512: BadInput("no such way"),
            768: ValueError("\nline one\nline two"),
        }

        def measure(point: Point, _: Bench) -> Result:
            if problem := problems.get(point.composition[0][0][0]):
                raise problem
            return took(0.5)

        assert self.run(store, measure) == (3, [])
        assert [store[point] for point in STEPS] == [
            {"failed": "out of memory: CUDA out of memory. Tried to allocate 9 GiB."},
            {"failed": "BadInput: no such way"},
            {"failed": "ValueError: line one"},
            took(0.5),
        ]
        assert "raise problem" in (store.folder / "failures.txt").read_text()

    def test_a_run_goes_on_with_what_is_missing_and_then_tries_what_failed(self, store: Store) -> None:
        store.add(STEPS[0], {"failed": "for some reason"})
        store.add(STEPS[1], took(0.5))
        ran: list[Point] = []
        self.run(store, lambda point, _: ran.append(point) or took(0.1))
        assert ran == [STEPS[2], STEPS[3], STEPS[0]]
        assert not store.failed(STEPS[0])

    @pytest.mark.parametrize("result", [{"failed": "two\nlines"}, took(1.0, tflop=torch.ones(1))])
    def test_what_cannot_be_kept_is_a_failure(self, store: Store, result: Result) -> None:
        assert self.run(store, lambda *_: result, points=STEPS[:1]) == (1, [])
        assert "\n" not in store[STEPS[0]]["failed"]

    def test_a_point_that_does_not_end_is_given_up(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Pace, "deadline_s", lambda _, point: 1 if point == STEPS[0] else 600)
        start = time.monotonic()

        def measure(point: Point, _: Bench) -> Result:
            while point == STEPS[0]:
                try:
                    time.sleep(0.01)
                except Exception:
                    pytest.fail("taken for a failure of its own")
            return took(0.1)

        assert self.run(store, measure, points=STEPS[:2]) == (1, [])
        assert time.monotonic() - start < PATIENCE_S  # and not for ever, however busy the machine
        assert store[STEPS[0]] == {"failed": "given up after 1 s"}

    def test_the_clock_decides_what_is_left_out(self, store: Store) -> None:
        clock = 0.0

        def measure(*_: Any) -> Result:
            nonlocal clock
            clock += 20
            return took(0.1)

        ended = self.run(store, measure, pace=Pace(1, Alike(point_s=15), STEPS), elapsed=lambda: clock)
        assert ended == (0, STEPS[2:])
        assert [point in store for point in STEPS] == [True, True, False, False]

    def test_no_time_is_kept_for_replays_that_were_measured(self, store: Store) -> None:
        replay = Point("replay", "tiny-image", "lookahead")
        store.add(replay, took(1.0))
        points = [*STEPS[:1], replay]
        pace = Pace(1, Alike(point_s=40, replay_s=20), points)
        assert not pace.fits(STEPS[0], 0.0)
        assert self.run(store, lambda *_: took(0.1), points=points, pace=pace) == (0, [])

    def test_how_soon_points_fail_makes_no_others_look_short(self, store: Store) -> None:
        pace = Pace(8, Alike(), STEPS)
        self.run(store, lambda *_: {"failed": "at once"}, pace=pace)
        assert pace.ratio == 1

    def test_ctrl_c_keeps_what_ended(self, store: Store) -> None:
        def measure(point: Point, _: Bench) -> Result:
            if point == STEPS[1]:
                raise KeyboardInterrupt
            return took(0.1)

        with pytest.raises(KeyboardInterrupt):
            self.run(store, measure)
        assert list(read_suite(store.folder).results) == STEPS[:1]

    def test_a_lost_device_ends_the_run(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        def lost(_: Bench, point: Point) -> None:
            raise DeviceLost(f"the device was lost in {point.key}")

        monkeypatch.setattr(running, "_must_live", lost)
        with pytest.raises(DeviceLost):
            self.run(store, lambda *_: {"failed": "CUDA error: an illegal memory access was encountered"})
        assert store.failed(STEPS[0])
        assert STEPS[1] not in store


def mixed(own: float, **ways: float) -> Result:
    return took(own, ways={name.replace("_", "-"): took(value, tokens=100) for name, value in ways.items()})


def replayed(p50: float, p95: float, attainment: float) -> Result:
    errors = {"latency_p50_s": p50, "latency_p95_s": p95, "slo_attainment": attainment}
    return took(1.0, figures={name: {"sim": 0.0, "real": 0.0, "error": error} for name, error in errors.items()})


SDXL = Point("mix", "sdxl", "patched", squares(*THREE))
FLUX = Point("mix", "flux", "packed", squares(*THREE))
STITCH = Point("kernel", "stitch", "fused", squares(*THREE), "sdxl")
GOOD: dict[Point, Result] = {
    Point("ceiling", "matmul", "bfloat16", detail="8192"): took(1e-3, tflop=0.7),
    Point("ceiling", "copy", "device", detail="4096"): took(1e-3, bytes=4e9),
    STEPS[3]: took(0.06, tflop=21.0, peak_bytes=7.5e9),
    SDXL: mixed(1.0, patched=1.0, one_by_one=1.6, same_size=1.0, reference=1.2),
    FLUX: mixed(1.0, packed=1.0, one_by_one=1.3, same_size=0.98, equal_tokens=0.98),
    STITCH: took(1e-4, bytes=0.26e9, copy_bytes_per_s=4e12),
    Point("replay", "sdxl", "lookahead"): replayed(0.01, -0.04, 0.01),
    Point("step", "flux", "eager", squares(1024)): {"failed": "out of memory"},
}


class TestGoals:
    def test_all_can_be_reached(self) -> None:
        found = verdicts(Suite(FACTS, GOOD))
        assert [verdict.verdict for verdict in found] == [REACHED] * 5
        assert [verdict.found for verdict in found] == [
            "1.60x, sdxl 1@512x512+1@768x768+1@1024x1024",
            "0.98x, flux 1@512x512+1@768x768+1@1024x1024 (the worst of 2)",
            "65%, stitch 1@512x512+1@768x768+1@1024x1024",
            "+2.0%, flux 1@512x512+1@768x768+1@1024x1024",
            "lookahead: P50 +1.0%, P95 -4.0%, attainment +1.0 points",
        ]

    @pytest.mark.parametrize(
        ("goal", "point", "result"),
        [
            (0, SDXL, mixed(1.0, patched=1.0, one_by_one=1.4, same_size=1.1)),
            (1, SDXL, mixed(1.0, patched=1.0, one_by_one=1.6, same_size=0.9)),
            (2, STITCH, took(1e-4, bytes=0.2e9, copy_bytes_per_s=4e12)),
            (3, FLUX, mixed(1.0, packed=1.0, one_by_one=1.3, same_size=1.0, equal_tokens=0.9)),
            (4, Point("replay", "sdxl", "same-size-continuous"), replayed(0.01, 0.06, 0.0)),
        ],
    )
    def test_each_can_be_missed(self, goal: int, point: Point, result: Result) -> None:
        expected = [NOT_REACHED if index == goal else REACHED for index in range(5)]
        assert [verdict.verdict for verdict in verdicts(Suite(FACTS, {**GOOD, point: result}))] == expected

    def test_without_figures_nothing_is_claimed(self) -> None:
        failed = {point: {"failed": "out of memory"} for point in GOOD}
        assert [verdict.verdict for verdict in verdicts(Suite(FACTS, failed))] == [NOT_MEASURED] * 5

    def test_tokens_that_are_not_quite_as_many_are_counted(self) -> None:
        result = mixed(1.0, packed=1.0, equal_tokens=1.0)
        result["ways"]["equal-tokens"]["tokens"] = 110
        found = verdicts(Suite(FACTS, {FLUX: result}))[3]
        assert (found.verdict, found.found[:6]) == (NOT_REACHED, "+10.0%")


class TestTable:
    def test_narrow_models_reach_no_goals(self) -> None:
        text = text_of(results_table(Suite({**FACTS, "models": "narrow"}, GOOD)))
        assert "narrow models" in text
        assert "reached" not in text.replace("not what is reached", "")

    def test_attention_is_held_against_products_of_matrices(self) -> None:
        point = Point("kernel", "attention", "fused", squares(*THREE), "flux")
        result = took(1e-3, tflop=0.35, bytes=1e6, copy_bytes_per_s=4e12)
        text = text_of(results_table(Suite(FACTS, {**GOOD, point: result})))
        assert " ".join(text[text.index(point.key) :].replace("│", " ").split()[1:5]) == "1 ms 350 TFLOP/s"
        assert "50%" in next(line for line in text.splitlines() if point.key in line)

    def test_it_says_what_is_reached_of_ceilings_and_beside_other_ways(self) -> None:
        lines = text_of(results_table(Suite(FACTS, GOOD))).splitlines()

        def line(key: str) -> str:
            return " ".join(next(line for line in lines if key in line).replace("│", " ").split())

        assert line("matmul/bfloat16") == "ceiling/matmul/bfloat16/-/8192 1 ms 700 TFLOP/s"
        assert line("step/sdxl") == "step/sdxl/eager/1@1024x1024 60 ms 350 TFLOP/s 50% 7.50"
        assert "1.60x one-by-one, 1.00x same-size, 1.20x reference" in line("mix/sdxl")
        assert " 2.6e+03 GB/s 65%" in line("kernel/stitch")
        assert line("step/flux").endswith("failed out of memory")
        assert "simulated: P50 +1.0%" in line("replay/sdxl")


class TestCommand:
    def test_a_plan_is_printed_without_torch(self) -> None:
        asked = "import sys; from benchmarks.gpu_suite.__main__ import main; main(['--dry-run']); print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True)
        *plan_lines, modules = done.stdout.splitlines()
        assert "torch" not in modules.split()
        printed = "\n".join(plan_lines)
        assert all(point.key in printed for point in default_points())
        assert "left out" in printed

    @pytest.mark.parametrize(
        "given",
        [
            ["--only", "step/sdxl", "stride"],
            ["--minutes", "0"],
            ["--dry-run", "--hardware", "h999"],
            ["--smoke", "--device", "tpu"],
            ["--smoke", "--kernels", "fast"],
            ["--table", "-o", "nowhere"],
        ],
    )
    def test_bad_input_is_one_line(self, given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert main(given) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1

    @pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device: the suite would run")
    def test_without_a_device_it_says_so(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([]) == 2
        assert "no CUDA device" in capsys.readouterr().err

    def test_a_smoke_run_measures_points_of_every_group(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """But replays, which have tests of their own, and further ways, which `test_gpu_suite_measures` runs."""
        only = [*GROUPS[:2], "step/sdxl", "mix/sd3.5-medium", *GROUPS[4:6], "tile/sdxl", "cached/sd3.5-medium"]
        points = [point for point in smoke_points() if point.key.startswith(tuple(only))]
        assert {point.group for point in points} == set(GROUPS) - {"replay"}
        assert main(["--smoke", "-o", str(tmp_path / "suite"), "--minutes", "60", "--only", *only]) == 0
        printed = capsys.readouterr().out
        suite = read_suite(tmp_path / "suite")
        assert list(suite.measured) == points
        assert all(result["seconds"] > 0 and result["repeats"] for result in suite.results.values())
        table = printed[printed.index("of ceiling") :]
        assert all(point.key in table for point in points)
        assert "Goals" in table
