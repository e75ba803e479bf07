"""Recorded forwards: the logic of buckets here, with a recorder that only replays; CUDA graphs on a device.

The replayer is as strict as a graph: it goes on with the function and the numbers of the call it recorded, reads fixed
buffers and writes fixed results. A key that lacks something, a stale buffer or a shared result shows as a difference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from backend.coroutine import DenoiserCall, RequestRun, intercept_denoisers  # noqa: E402
from backend.executor import Executor, mixer_for  # noqa: E402
from backend.kernels import graphs  # noqa: E402
from backend.kernels.choice import Kernels  # noqa: E402
from backend.kernels.graphs import RECORDINGS, STALE, TRIALS, Recorder, replaced  # noqa: E402
from backend.loading import denoiser_name  # noqa: E402
from backend.merge import Mixer  # noqa: E402
from policies.caching import FixedInterval  # noqa: E402
from tests.backend import tiny_pipelines, tiny_unets  # noqa: E402
from tests.backend.mixed import latents_together  # noqa: E402
from tests.sweep import some  # noqa: E402
from traces.request import Request  # noqa: E402

torch.set_num_threads(1)
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: it captures graphs")


class Replayed:
    """A recording that runs the recorded function again on fixed buffers."""

    def __init__(self, capture: Replayer, function: Callable[..., Any], inputs: tuple[Any, ...]) -> None:
        self.capture, self.function, self.buffers = capture, function, []
        self.fixed = replaced(inputs, self._buffer)
        self.output = function(*self.fixed)
        self.held_bytes = sum(buffer.nbytes for buffer in self.buffers)

    def _buffer(self, tensor: torch.Tensor) -> torch.Tensor:
        self.buffers.append(tensor.clone())
        return self.buffers[-1]

    def replay(self, tensors: list[torch.Tensor]) -> Any:
        self.capture.replays += 1
        for buffer, tensor in zip(self.buffers, tensors, strict=True):
            buffer.copy_(tensor)
        fresh: list[torch.Tensor] = []
        replaced(self.function(*self.fixed), lambda tensor: fresh.append(tensor) or tensor)
        replaced(self.output, lambda tensor: tensor.copy_(fresh.pop(0)))
        return replaced(self.output, torch.clone)


def waits(*_: Any) -> Any:
    raise AssertionError("the host waits for the device")


class Replayer:
    """Says that a forward takes a second, of which the host starts it for ``starting``, and a replay ``replay_s``."""

    def __init__(self, starting: float = 1.0, replay_s: float = 0.5, limit_bytes: int = 2**30) -> None:
        self.device = torch.device("cpu")
        self.starting, self.replay_s, self.limit_bytes = starting, replay_s, limit_bytes
        self.replays = self.recorded = 0
        self.fails: Exception | None = None

    def timed(self, call: Callable[[], Any]) -> tuple[Any, float, float]:
        before = self.replays
        output = call()
        seconds = self.replay_s if self.replays > before else 1.0
        return output, self.starting * seconds, seconds

    def record(self, function: Callable[..., Any], inputs: tuple[Any, ...]) -> Replayed:
        if self.fails is not None:
            raise self.fails
        self.recorded += 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.Tensor, "tolist", waits)  # of a CPU's tensors this goes unseen otherwise
            return Replayed(self, function, inputs)


def double(x: torch.Tensor, by: float = 2.0) -> torch.Tensor:
    return x * by


def test_the_third_call_is_recorded_and_later_ones_are_replayed() -> None:
    capture = Replayer()
    recorder = Recorder(capture)
    for call in range(1, TRIALS + 3):
        assert torch.equal(recorder.run("double", double, torch.full((2,), float(call))), torch.full((2,), 2.0 * call))
        assert recorder.recorded == (call >= TRIALS)
    assert capture.recorded == 1
    assert capture.replays == 2 + 2  # the trial of the recording itself, and two calls
    assert recorder.held_bytes == 8


def test_results_belong_to_the_caller_and_inputs_are_left_alone() -> None:
    recorder = Recorder(Replayer())
    given = [torch.full((3,), float(i)) for i in range(TRIALS + 4)]
    results = [recorder.run("same", lambda x: (x, x + 1), x) for x in given]
    for i, (same, more) in enumerate(results):
        assert given[i].tolist() == [i] * 3
        assert same.tolist() == [i] * 3
        assert more.tolist() == [i + 1] * 3
        more.zero_()
    assert recorder.run("same", lambda x: (x, x + 1), given[0])[1].tolist() == [1] * 3


def test_each_set_of_weights_has_its_own_recordings_which_wait_for_its_return() -> None:
    capture = Replayer()
    recorder = Recorder(capture)
    x = torch.ones(2)
    for weights, by in (("a", 2.0), ("b", 3.0)):
        recorder.weights = weights
        for _ in range(TRIALS):
            assert torch.equal(recorder.run("double", lambda x, by=by: x * by, x), x * by)
    assert recorder.recorded == 2
    replays = capture.replays
    recorder.weights = "a"
    assert torch.equal(recorder.run("double", waits, x), x * 2.0)
    assert capture.replays == replays + 1


def test_numbers_flags_shapes_types_and_keys_tell_buckets_apart() -> None:
    recorder = Recorder(Replayer())

    def forward(options: dict[str, Any]) -> torch.Tensor:
        return options["x"] * options["scale"] + bool(options["flag"])

    x = torch.ones(2, 3)
    kinds = [
        {"x": x, "scale": 1, "flag": False},
        {"x": x, "scale": 1, "flag": None},
        {"x": x, "scale": 2, "flag": True},
        {"x": x, "scale": 1.0, "flag": True},
        {"x": x.double(), "scale": 1, "flag": False},
        {"x": x[:1], "scale": 1, "flag": False},
        {"x": torch.ones(3, 2).T, "scale": 1, "flag": False},
    ]
    for _ in range(TRIALS + 1):
        for kind in kinds:
            assert torch.equal(recorder.run("a", forward, kind), forward(kind))
    assert recorder.recorded == len(kinds)
    for _ in range(TRIALS + 1):
        assert recorder.run("b", lambda x: x + 5, x).sum() == 36  # another key, another function
    assert recorder.recorded == len(kinds) + 1


def scaled_by_its_sum(x: torch.Tensor) -> torch.Tensor:
    return x * float(x.sum().item())


def positive(x: torch.Tensor) -> torch.Tensor:
    return x[x > 0]


def repeated(x: torch.Tensor) -> torch.Tensor:
    return x.repeat_interleave(x.clamp(min=0).long())


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (scaled_by_its_sum, "_local_scalar_dense waits for the device"),
        (positive, "index by a mask waits"),
        (repeated, "repeat_interleave waits"),
        (lambda x: x + torch.tensor([1.0]), "made of the host's numbers"),
    ],
)
def test_what_waits_for_the_device_runs_as_ever(function: Callable[..., Any], words: str) -> None:
    capture = Replayer()
    recorder = Recorder(capture)
    for i in range(2 * TRIALS):
        x = torch.tensor([float(i), -1.0, 2.0])
        assert torch.equal(recorder.run("f", function, x), function(x))
    assert (capture.recorded, capture.replays) == (0, 0)
    (reason,) = recorder.eager
    assert words in reason


@pytest.mark.parametrize(
    ("capture", "fails", "words"),
    [
        (Replayer(), RuntimeError("operation not permitted when stream is capturing\nmore"), "operation not permitted"),
        (Replayer(), torch.OutOfMemoryError("tried to allocate too much"), "tried to allocate"),
        (Replayer(starting=0.3), None, "the device is busy enough"),
        (Replayer(replay_s=1.0), None, "a replay is not faster"),
        (Replayer(limit_bytes=7), None, "too much memory"),
    ],
)
def test_what_fails_or_does_not_pay_runs_as_ever(capture: Replayer, fails: Exception | None, words: str) -> None:
    capture.fails = fails
    recorder = Recorder(capture)
    for i in range(2 * TRIALS):
        assert recorder.run("f", double, torch.full((2,), float(i))).tolist() == [2.0 * i] * 2
    assert recorder.recorded == 0
    assert capture.recorded <= 1  # it is not tried again
    (reason,) = recorder.eager
    assert words in reason
    assert "\n" not in reason


def test_a_replay_that_fails_is_made_good(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(Replayer())
    for _ in range(TRIALS):
        recorder.run("f", double, torch.ones(2))

    def fail(*_: Any) -> Any:
        raise RuntimeError("launch failed")

    monkeypatch.setattr(Replayed, "replay", fail)
    assert recorder.run("f", double, torch.full((2,), 3.0)).tolist() == [6.0, 6.0]
    assert recorder.recorded == 0
    assert dict(recorder.eager) == {"launch failed": 1}


def test_an_error_of_the_forward_is_the_callers() -> None:
    recorder = Recorder(Replayer())

    def fail(x: torch.Tensor) -> torch.Tensor:
        raise ValueError("bad input")

    for _ in range(2 * TRIALS):
        with pytest.raises(ValueError, match="bad input"):
            recorder.run("f", fail, torch.ones(1))
    for _ in range(2 * TRIALS):  # an argument that cannot be told from others is no error
        assert recorder.run("g", lambda x, _: x, torch.ones(1), object()).item() == 1
    assert recorder.recorded == 0


def test_recordings_are_few_and_the_stale_ones_give_way() -> None:
    recorder = Recorder(Replayer())

    def call(key: int, times: int) -> None:
        for _ in range(times):
            assert recorder.run(key, double, torch.ones(1)).item() == 2

    for key in range(RECORDINGS + 1):
        call(key, TRIALS)
    assert recorder.recorded == RECORDINGS  # all are in use: there is no room for the last
    call(0, STALE)
    call(RECORDINGS, 1)
    assert recorder.recorded == RECORDINGS
    recordings = [key for (key, *_), bucket in recorder._buckets.items() if bucket.recording]
    assert 0 in recordings
    assert RECORDINGS in recordings
    assert 1 not in recordings
    recorder.clear()
    assert (recorder.recorded, recorder.held_bytes) == (0, 0)


def test_exchanged_weights_are_seen_after_clear() -> None:
    executor = Executor(tiny_pipelines.sdxl())
    executor.recorder._capture = Replayer()
    factor = [1.0]
    for _ in range(TRIALS + 1):
        executor.recorder.run("f", lambda x, by=factor[0]: x * by, torch.ones(1))
    factor[0] = 3.0
    executor.weights_changed()
    assert executor.recorder.run("f", lambda x, by=factor[0]: x * by, torch.ones(1)).item() == 3


def calls_of(pipeline: Any, requests: list[Request]) -> list[DenoiserCall]:
    """The first denoiser call of each request."""
    intercept_denoisers(pipeline)
    calls = [RequestRun(pipeline, request).resume() for request in requests]
    assert all(isinstance(call, DenoiserCall) for call in calls)
    return calls  # type: ignore[return-value]


FRESH = {"hidden_states", "encoder_hidden_states", "pooled_projections", "guidance", "added_cond_kwargs", "text_embeds"}


def with_other_content(call: DenoiserCall, draw: torch.Generator) -> DenoiserCall:
    """The call at another timestep, with another sample and another text."""

    def fresh(name: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {inner: fresh(inner, item) for inner, item in value.items()}
        if not isinstance(value, torch.Tensor):
            return value
        if name == "timestep":
            return torch.randint(1, 900, value.shape, generator=draw).to(value.dtype)
        return torch.randn(value.shape, generator=draw).to(value.dtype) if name in FRESH else value

    args = tuple(fresh(("hidden_states", "timestep")[i], value) for i, value in enumerate(call.args))
    return call._replace(args=args, kwargs={name: fresh(name, value) for name, value in call.kwargs.items()})


def mixes_of(unit: int, **more: Any) -> list[Request]:
    more |= {"steps": 3}
    return [
        Request("square", 0.0, 2 * unit, 2 * unit, seed=1, prompt="a cat", **more),
        Request("wide", 0.0, unit, 2 * unit, seed=2, prompt="two dogs", guidance_scale=1.0, **more),
        Request("wide too", 0.0, unit, 2 * unit, seed=3, prompt="a bird", guidance_scale=1.0, **more),
        Request("tall", 0.0, 2 * unit, unit, seed=4, prompt="a whale", guidance_scale=1.0, **more),
        Request("tall too", 0.0, 2 * unit, unit, seed=5, prompt="a fox", guidance_scale=1.0, **more),
    ]


BATCHES = [[0, 1], [1, 2, 3], [1, 3, 4], [1, 2], [0]]
"""The second and the third are as many tokens and patches."""


PIPELINES = {
    "patched": [(tiny_pipelines.sdxl, mixes_of(8)), (tiny_unets.sd15, mixes_of(8))],
    "packed": [
        (tiny_pipelines.sd3, mixes_of(4)),
        (tiny_pipelines.flux, mixes_of(4)),
        (tiny_pipelines.pixart, mixes_of(128)),
        (tiny_pipelines.wan, mixes_of(16, frames=5)),
        (tiny_pipelines.cogvideox, mixes_of(16, frames=5)),
        (tiny_pipelines.hunyuan_video, mixes_of(16, frames=5)),
    ],
}
MODELS = [(mode, *pair) for mode, pairs in PIPELINES.items() for pair in pairs]
WHOLE = {build.__name__: ("whole", build, requests) for pairs in PIPELINES.values() for build, requests in pairs}
MODELS += [WHOLE[name] for name in some(WHOLE, "sdxl", "flux")]


def outputs_of(mixer: Mixer, calls: list[DenoiserCall]) -> list[torch.Tensor]:
    """Those of calls that may have to run apart."""
    groups: dict[Any, list[int]] = {}
    for index, call in enumerate(calls):
        groups.setdefault(mixer.key(call), []).append(index)
    found: dict[int, torch.Tensor] = {}
    with torch.no_grad():
        for indices in groups.values():
            done = mixer.run([calls[index] for index in indices])
            found |= {index: output[0] for index, output in zip(indices, done, strict=True)}
    return [found[index] for index in range(len(calls))]


@pytest.mark.parametrize(
    ("mode", "build", "requests"), MODELS, ids=[f"{mode}-{build.__name__}" for mode, build, _ in MODELS]
)
def test_replayed_forwards_are_the_eager_ones_to_the_bit(
    mode: str, build: Callable[[], Any], requests: list[Request]
) -> None:
    pipeline, capture = build(), Replayer()
    recorder = Recorder(capture)
    plain = mixer_for(alone := build(), denoiser_name(alone), mode, patch_floor=1)
    mixer = mixer_for(pipeline, denoiser_name(pipeline), mode, patch_floor=1, recorder=recorder)
    calls = calls_of(pipeline, requests)
    draw = torch.Generator().manual_seed(0)
    order = [*range(len(BATCHES))] * TRIALS + torch.randint(len(BATCHES), (6,), generator=draw).tolist()
    for batch in order:
        chosen = [with_other_content(calls[index], draw) for index in BATCHES[batch]]
        for given, expected in zip(outputs_of(mixer, chosen), outputs_of(plain, chosen), strict=True):
            assert torch.equal(given, expected)
    assert recorder.recorded >= 3
    assert capture.replays > 2 * recorder.recorded
    assert not recorder.eager  # nothing waits for the device on the way


def test_requests_that_join_leave_and_pause_are_the_same_recorded() -> None:
    requests = [*mixes_of(8), Request("long", 0.0, 16, 16, steps=9, seed=6, prompt="a hen")]
    expected = latents_together(Executor(tiny_pipelines.sdxl(), "patched", patch_floor=1), requests, pause="wide")
    executor = Executor(tiny_pipelines.sdxl(), "patched", patch_floor=1)
    executor.recorder._capture = capture = Replayer()
    given = latents_together(executor, requests, pause="wide")
    assert all(torch.equal(given[name], latents) for name, latents in expected.items())
    assert capture.replays > 0


def test_a_cache_is_not_recorded() -> None:
    executor = Executor(tiny_pipelines.sdxl(), "patched", FixedInterval(2), cache_patch=8)
    executor.recorder._capture = capture = Replayer()
    request = mixes_of(8)[0]
    executor.execute("encode", [request])
    assert executor.execute("denoise", [request], 3).failed is None
    assert capture.recorded == 0


def on_device(build: Callable[[], Any]) -> Any:
    return build().to("cuda")


@CUDA
@pytest.mark.parametrize(
    ("mode", "build", "requests"), MODELS, ids=[f"{mode}-{build.__name__}" for mode, build, _ in MODELS]
)
def test_cuda_graphs_give_what_the_eager_forwards_give(
    mode: str, build: Callable[[], Any], requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    from backend.kernels.cuda_graphs import recorder_on

    monkeypatch.setattr(graphs, "STARTING", 0.0)
    monkeypatch.setattr(graphs, "GAIN", float("inf"))
    pipeline = on_device(build)
    recorder = recorder_on(torch.device("cuda", torch.cuda.current_device()))
    plain = mixer_for(alone := on_device(build), denoiser_name(alone), mode, patch_floor=1)
    mixer = mixer_for(pipeline, denoiser_name(pipeline), mode, patch_floor=1, recorder=recorder)
    calls = calls_of(pipeline, requests)
    draw = torch.Generator().manual_seed(0)
    for _ in range(TRIALS + 3):
        for batch in BATCHES:
            chosen = [with_other_content(calls[index], draw) for index in batch]
            chosen = [
                call._replace(args=replaced(call.args, to_cuda), kwargs=replaced(call.kwargs, to_cuda))
                for call in chosen
            ]
            for given, expected in zip(outputs_of(mixer, chosen), outputs_of(plain, chosen), strict=True):
                torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)
    assert recorder.recorded >= 3
    assert not recorder.eager
    recorder.clear()


def to_cuda(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to("cuda")


@CUDA
def test_a_capture_that_fails_leaves_the_device_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    from backend.kernels.cuda_graphs import CudaCapture

    device = torch.device("cuda", torch.cuda.current_device())
    capture = CudaCapture(device)
    x = torch.randn(64, 64, device=device)
    recording = capture.record(lambda a: (a @ a).relu(), (x,))
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the driver says
        capture.record(lambda a: a * a.sum().item(), (x,))
    assert torch.cuda.current_stream(device) == torch.cuda.default_stream(device)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.testing.assert_close(recording.replay([2 * x]), (4 * (x @ x)).relu())
    assert Executor(on_device(tiny_pipelines.sdxl), "patched").kernels == Kernels(fused=True, graphs=True)
