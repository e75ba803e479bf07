"""One evaluation of the denoiser for the tiles of several requests: equal windows share a forward."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

from backend.coroutine import DenoiserCall
from backend.merge import Mixer, run_merged
from backend.tiled.run import TiledRun
from policies.tiling.grid import Box


class _Window(NamedTuple):
    run: TiledRun
    box: Box
    call: DenoiserCall


def evaluate_windows(runs: Sequence[TiledRun], mixer: Mixer, batch: int) -> tuple[dict[str, BaseException], float]:
    """Run one step of each request to its end.

    Args:
        runs: each between two steps; on several ranks all of them call this with the same requests.
        mixer: runs the denoiser calls of windows.
        batch: windows in one forward at most.

    Returns:
        By request id what went wrong, and the seconds that the denoiser took. Where there are several ranks nothing
        goes wrong for one request alone: it is raised.
    """
    errors: dict[str, BaseException] = {}
    busy_s = 0.0
    due = {run.request.request_id: run.evaluations_due for run in runs}
    for evaluation in range(max(due.values(), default=0)):
        active = [run for run in runs if (name := run.request.request_id) not in errors and due[name] > evaluation]
        for run in active:
            _guarded(run, errors, run.step)
        while calling := [r for r in active if r.pending is not None and r.request.request_id not in errors]:
            busy_s += _answer(calling, mixer, batch, errors)
    for run in runs:
        if run.request.request_id not in errors:
            run.step_done()
    return errors, busy_s


def not_finite(runs: Sequence[TiledRun]) -> list[str]:
    """The requests of whose latents this rank owns some that are no numbers."""
    return [run.request.request_id for run in runs if not run.finite]


def _answer(runs: Sequence[TiledRun], mixer: Mixer, batch: int, errors: dict[str, BaseException]) -> float:
    """Answer the pending call of each request."""
    windows: list[_Window] = []
    for run in runs:
        _guarded(run, errors, _cut, run, windows)
    started = time.perf_counter()
    outputs = _outputs(windows, mixer, batch, errors)
    busy_s = time.perf_counter() - started
    for run in runs:
        if run.request.request_id not in errors:
            own = [(w.call, output) for w, output in zip(windows, outputs, strict=True) if w.run is run]
            _guarded(run, errors, run.answer, [call for call, _ in own], [output for _, output in own])
    return busy_s


def _cut(run: TiledRun, windows: list[_Window]) -> None:
    tiles = [tile for _, tile in run.refinement.mine]
    windows += [_Window(run, tile.window, call) for tile, call in zip(tiles, run.calls(), strict=True)]


def _outputs(windows: Sequence[_Window], mixer: Mixer, batch: int, errors: dict[str, BaseException]) -> list[Any]:
    outputs: list[Any] = [None] * len(windows)
    for group in _alike(windows, mixer) if batch > 1 else [[index] for index in range(len(windows))]:
        for some in [group[i : i + batch] for i in range(0, len(group), batch)]:
            first = windows[some[0]]
            with first.run.adapter.placed(first.box, first.run.shape.grid.canvas):
                given, failed = run_merged(mixer, [windows[i].call for i in some])
            for index, output in zip(some, given, strict=True):
                outputs[index] = output
            for index, error in failed.items():
                _failed(windows[some[index]].run, errors, error)
    return outputs


def _alike(windows: Sequence[_Window], mixer: Mixer) -> list[list[int]]:
    """Windows that can run in one forward."""
    groups: dict[Hashable, list[int]] = {}
    for index, (run, box, call) in enumerate(windows):
        place = run.adapter.place(box, run.shape.grid.canvas)
        where = None if place is None else (place, run.shape.grid.canvas)
        groups.setdefault((where, mixer.key(call)), []).append(index)
    return list(groups.values())


def _guarded(run: TiledRun, errors: dict[str, BaseException], work: Callable[..., None], *args: Any) -> None:
    try:
        work(*args)
    except Exception as error:
        _failed(run, errors, error)


def _failed(run: TiledRun, errors: dict[str, BaseException], error: BaseException) -> None:
    if run.group.size > 1:
        raise error
    errors[run.request.request_id] = error
