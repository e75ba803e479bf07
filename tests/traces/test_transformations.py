"""What a transformation changes, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traces.errors import BadInput
from traces.geometry import GEOMETRIES, geometry_of
from traces.request import Request
from traces.sizes import scaled_sides
from traces.streams import stream
from traces.trace import Trace

ARRIVALS = st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=20)
FACTORS = st.floats(1e-3, 1e3)


def trace_at(arrivals: list[float], **columns: object) -> Trace:
    base = {"arrival_s": arrivals, "height": 1024, "width": 768, "steps": 30, "model": "sdxl"}
    return Trace.from_frame(pd.DataFrame(base | columns), "t")


@settings(deadline=None, max_examples=40)
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


@settings(deadline=None, max_examples=40)
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
    one, two = trace_at([0.0, 5.0], checkpoint=["a", "b"]), trace_at([1.0, 5.0])
    merged = one.merge(two, two)
    ids = [request.request_id for request in merged]
    assert ids == ["0:1", "1:1", "2:1", "0:2", "1:2", "2:2"]
    assert merged.frame["checkpoint"].dropna().tolist() == ["a", "b"]


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
    with pytest.raises(BadInput, match=r"row 2: the SLO of size \(1024, 1024, 1\) is not given"):
        trace.with_slo({(1024, 768, 1): 3.0})
    with pytest.raises(BadInput, match=r"is -1\.0, expected a span above 0 s"):
        trace.with_slo(-1.0)
    with pytest.raises(TypeError):
        trace.with_slo(5.0, scale=2.0, standalone=standalone)
