"""What a transformation changes, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples_tried import examples
from traces.errors import BadInput
from traces.geometry import GEOMETRIES, geometry_of
from traces.mix import parse_counts
from traces.request import Request
from traces.sizes import scaled_sides
from traces.streams import stream
from traces.trace import Trace

ARRIVALS = st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=20)
FACTORS = st.floats(1e-3, 1e3)


def trace_at(arrivals: list[float], **columns: object) -> Trace:
    base = {"arrival_s": arrivals, "height": 1024, "width": 768, "steps": 30, "model": "sdxl"}
    return Trace.from_frame(pd.DataFrame(base | columns), "t")


@settings(deadline=None, max_examples=examples(13))
@given(ARRIVALS, FACTORS)
def test_scale_rate_is_undone_by_its_inverse_and_keeps_spans(arrivals: list[float], factor: float) -> None:
    trace = trace_at(arrivals, deadline_s=[arrival + 10 for arrival in arrivals])
    scaled = trace.scale_rate(factor)
    back = scaled.scale_rate(1 / factor).frame
    np.testing.assert_allclose(back["arrival_s"], trace.frame["arrival_s"], rtol=1e-12, atol=1e-12)
    spans = scaled.frame["deadline_s"] - scaled.frame["arrival_s"]
    np.testing.assert_allclose(spans, 10, atol=1e-6)
    assert len(scaled.requests()) == len(arrivals)


@pytest.mark.parametrize("factor", [0, -1, float("nan"), float("inf"), 1e-310])
def test_a_rate_factor_must_be_a_number_above_0(factor: float) -> None:
    with pytest.raises(BadInput, match="rate factor"):
        trace_at([0.0, 10.0]).scale_rate(factor)


@settings(deadline=None, max_examples=examples(13))
@given(ARRIVALS, st.floats(0, 1e6), st.floats(1, 1e6))
def test_slices_part_a_trace(arrivals: list[float], start: float, length: float) -> None:
    trace = trace_at(arrivals)
    end = start + length
    inside = trace.slice(start, end, rebase=False).requests()
    assert inside == [request for request in trace if start <= request.arrival_s < end]
    rebased = trace.slice(start, end).requests()
    assert [request.arrival_s for request in rebased] == [request.arrival_s - start for request in inside]


def test_a_slice_needs_a_span() -> None:
    with pytest.raises(BadInput, match="slice from 5 to 5 s"):
        trace_at([0.0]).slice(5, 5)


def test_head_keeps_the_first() -> None:
    assert [request.request_id for request in trace_at([3.0, 1.0, 2.0]).head(2)] == ["2", "3"]
    assert len(trace_at([3.0]).head(9)) == 1


@settings(deadline=None)
@given(
    st.sampled_from(sorted(GEOMETRIES)),
    st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), min_size=1, max_size=9),
    st.floats(0.01, 10),
    st.none() | st.integers(64, 400),
    st.none() | st.integers(512, 3000),
)
def test_scaled_sizes_can_be_made_within_the_limits(
    model: str, sides: list[tuple[int, int]], factor: float, low: int | None, high: int | None
) -> None:
    to = geometry_of(model)
    scaled = scaled_sides(np.array(sides), factor, to, low, high)
    assert (scaled % to.size_multiple == 0).all()
    assert (scaled >= max(to.size_multiple, low or 0)).all()
    if high is not None:
        assert (scaled <= high).all()
    elif low is None:
        exact = np.array(sides) * factor
        assert (np.abs(scaled - exact) <= np.maximum(to.size_multiple / 2, to.size_multiple - exact)).all()


def test_sizes_scale_from_native_to_native() -> None:
    tiny = geometry_of("tiny-image")
    scaled = trace_at([0.0]).scale_sizes(tiny)
    assert [request.size for request in scaled] == [(128, 96, 1)]
    assert [request.model for request in scaled] == ["tiny-image"]
    scaled.check(tiny)
    assert [request.size for request in trace_at([0.0]).scale_sizes(tiny, maximum=64)] == [(64, 64, 1)]
    assert [request.size for request in trace_at([0.0]).scale_sizes(tiny, 1 / 16, minimum=96)] == [(128, 96, 1)]


def test_frames_are_rounded_to_what_the_model_makes() -> None:
    wan = geometry_of("wan-1.3b")
    scaled = trace_at([0.0], frames=80).scale_sizes(wan, 1.0)
    assert [request.frames for request in scaled] == [77]
    scaled.check(wan)


def test_size_scaling_that_cannot_be_is_refused() -> None:
    tiny = geometry_of("tiny-image")
    with pytest.raises(BadInput, match="native size of model 'mine' is not known"):
        trace_at([0.0], model="mine").scale_sizes(tiny)
    with pytest.raises(BadInput, match="hold no multiple of 32 px"):
        trace_at([0.0]).scale_sizes(tiny, maximum=15)
    with pytest.raises(BadInput, match="size factor is 0"):
        trace_at([0.0]).scale_sizes(tiny, 0)


def test_steps_scale_and_stay_at_least_1() -> None:
    trace = trace_at([0.0, 1.0], steps=[30, 1])
    assert [request.steps for request in trace.with_steps(0.25)] == [8, 1]
    assert [request.steps for request in trace.with_steps(0.01)] == [1, 1]


def test_a_share_of_requests_skips_its_first_steps() -> None:
    trace = trace_at([float(i) for i in range(4000)], steps=[50, 20] * 2000, slo_s=9.0)
    skip = parse_counts("5:0.3,10:0.4,25:0.3", "skip")
    reduced = trace.with_step_reduction(0.5, skip, stream(1, "skip")).frame
    skipped = trace.frame["steps"] - reduced["steps"]
    by_steps = {steps: sorted(set(skipped[trace.frame["steps"] == steps])) for steps in (50, 20)}
    assert by_steps == {50: [0, 5, 10, 25], 20: [0, 2, 4, 10]}
    assert (skipped > 0).mean() == pytest.approx(0.5, abs=0.03)
    of_50 = skipped[(trace.frame["steps"] == 50) & (skipped > 0)]
    assert of_50.value_counts(normalize=True)[10] == pytest.approx(0.4, abs=0.05)
    pd.testing.assert_frame_equal(reduced.drop(columns="steps"), trace.frame.drop(columns="steps"))


def test_a_larger_share_only_adds_requests_that_skip() -> None:
    trace = trace_at([float(i) for i in range(500)], steps=50)
    skip = parse_counts("5,10,25", "skip")
    some, more = (trace.with_step_reduction(share, skip, stream(1, "s")).frame["steps"] for share in (0.3, 0.6))
    assert (some[some < 50] == more[some < 50]).all()
    assert (more < 50).sum() > (some < 50).sum() > 0


@pytest.mark.parametrize(("share", "steps"), [(0.0, 50), (1.0, 1)])
def test_no_share_skips_nothing_and_one_step_is_always_left(share: float, steps: int) -> None:
    trace = trace_at([0.0, 1.0], steps=[steps, steps])
    reduced = trace.with_step_reduction(share, parse_counts("49", "skip"), stream(1, "s"))
    assert [request.steps for request in reduced] == [steps, steps]


@pytest.mark.parametrize(("share", "skip", "words"), [(1.5, "5", "share .* is 1.5"), (0.5, "5,50", "skip is 50 of 50")])
def test_a_step_reduction_that_cannot_be_is_refused(share: float, skip: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        trace_at([0.0]).with_step_reduction(share, parse_counts(skip, "skip"), stream(1, "s"))


def test_resampling_is_deterministic_and_keeps_intervals_and_requests() -> None:
    trace = trace_at([0.0, 1.0, 3.0], width=[8, 16, 24], deadline_s=[5.0, 6.0, 8.0])
    drawn = trace.resample(50, stream(1, "r"))
    pd.testing.assert_frame_equal(drawn.frame, trace.resample(50, stream(1, "r")).frame)
    assert len({request.request_id for request in drawn}) == 50
    assert set(np.diff(drawn.frame["arrival_s"])) <= {1.0, 2.0}
    assert set(drawn.frame["width"]) <= {8, 16, 24}
    np.testing.assert_allclose(drawn.frame["deadline_s"] - drawn.frame["arrival_s"], 5)
    with pytest.raises(BadInput, match="cannot draw 3 requests from 1"):
        trace.head(1).resample(3, stream(1, "r"))


def test_merging_keeps_every_request_under_an_id_of_its_own() -> None:
    one, two = trace_at([0.0, 5.0], note=["a", "b"]), trace_at([1.0, 5.0])
    merged = one.merge(two, two)
    ids = [request.request_id for request in merged]
    assert ids == ["0:1", "1:1", "2:1", "0:2", "1:2", "2:2"]
    assert merged.frame["note"].dropna().tolist() == ["a", "b"]


def test_prompts_are_drawn_from_the_list() -> None:
    trace = trace_at([0.0] * 20).with_prompts(["a cat", "a dog"], stream(0, "prompts"))
    assert {request.prompt for request in trace} == {"a cat", "a dog"}
    with pytest.raises(BadInput, match="no prompts"):
        trace.with_prompts([], stream(0, "prompts"))


def test_an_slo_fills_only_requests_without_a_deadline() -> None:
    trace = trace_at([0.0, 1.0, 2.0], slo_s=[9.0, None, None], deadline_s=[None, 8.0, None])
    filled = trace.with_slo(5.0)
    assert [request.slo_s for request in filled] == [9.0, None, 5.0]
    assert [request.deadline for request in trace.with_slo(5.0, overwrite=True)] == [5.0, 6.0, 7.0]


def test_an_slo_by_size_or_by_standalone_latency() -> None:
    trace = trace_at([0.0, 1.0], width=[768, 1024])

    def standalone(request: Request) -> float:
        return request.steps * request.width / 1024

    scaled = trace.with_slo(scale=2.0, standalone=standalone)
    assert [request.slo_s for request in scaled] == [45.0, 60.0]
    by_size = trace.with_slo({(1024, 768, 1): 3.0, (1024, 1024, 1): 4.0})
    assert [request.slo_s for request in by_size] == [3.0, 4.0]
    with pytest.raises(BadInput, match=r"request .2.: the SLO of size \(1024, 1024, 1\) is not given"):
        trace.with_slo({(1024, 768, 1): 3.0})
    with pytest.raises(BadInput, match=r"is -1\.0, expected a span above 0 s"):
        trace.with_slo(-1.0)
    with pytest.raises(TypeError):
        trace.with_slo(5.0, scale=2.0, standalone=standalone)


def test_one_of_each_kind_is_the_first_and_an_slo_is_asked_of_it_alone() -> None:
    asked = [Request(str(n), float(n), 64 * (1 + n % 2), 64, 5, prompt=f"picture {n}", seed=n) for n in range(6)]
    trace = Trace.from_requests([*asked, Request("guided", 9.0, 64, 64, 5, true_cfg_scale=2.0)])
    assert [request.request_id for request in trace.one_of_each_kind()] == ["0", "1", "guided"]
    seen: list[str] = []

    def standalone(request: Request) -> float:
        seen.append(request.request_id)
        return request.height / 64

    spans = [request.slo_s for request in trace.with_slo(scale=2.0, standalone=standalone).requests()]
    assert (spans, seen) == ([2.0, 4.0, 2.0, 4.0, 2.0, 4.0, 2.0], ["0", "1", "guided"])
    with pytest.raises(BadInput, match=r"request .1.: the SLO"):
        trace.with_slo(scale=1.0, standalone=lambda request: 1.0 if request.height == 64 else 0.0)
