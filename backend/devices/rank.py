"""What a rank does that is not the first: it loads the model, and computes its share of what the first one says."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, NoReturn

import torch

from backend.coroutine import DenoiserCall, intercept_components, intercept_denoisers
from backend.decode import decode_by
from backend.devices.bands import Undividable
from backend.devices.calls import ReceivedCalls
from backend.devices.decoding import ComponentTask, in_bands, in_dtype
from backend.devices.divided import Shares
from backend.executor import dividing_mixers, kernels_of, mixers_of, rank_settings
from backend.handover.absent import is_absent
from backend.kernels.choice import Kernels
from backend.kernels.cuda_graphs import recorder_on
from backend.kernels.graphs import Recorder
from backend.loading import denoiser_name, load_pipeline
from backend.merge import Elsewhere, Mixer
from backend.ranks.environment import torchrun
from backend.ranks.group import Group
from backend.ranks.heartbeat import RankLost
from backend.ranks.launch import ranks_from_environment
from backend.ranks.subgroup import Subgroup
from backend.ranks.workers import Devices
from backend.tiled.execution import Tiling
from backend.tiled.rank import TiledRank


class RankFailed(BaseException):
    """This rank has failed in the middle of a forward of several, which nobody can go on with."""


class Rank:
    """One rank but the first: made by loading the model, called with its group to obey the first.

    Args:
        device: device of this rank.
        model: to load, with ``dtype``.
        settings: see `PipelineRank`.
    """

    def __init__(self, device: str, model: str, dtype: str, **settings: Any) -> None:
        self._rank = PipelineRank(load_pipeline(model, device, dtype), **settings)

    def __call__(self, group: Group) -> None:
        """Obey the first rank's orders until the last."""
        while (order := group.broadcast_object(patient=True))["verb"] != "end":
            self._rank.obey(order, group)


def serve_torchrun(
    devices: Devices,
    device: str,
    mode: str,
    kernels: str,
    patch_floor: int | None,
    tiling: Tiling | None,
    decode: str = "whole",
) -> None:
    """Be the rank that torchrun says, which is not the first, until the first one has done with it.

    Args:
        devices: of the replica.
        device: ``cpu`` or ``cuda``.
        mode: of the first rank's executor; ``kernels``, ``patch_floor``, ``tiling`` and ``decode`` likewise.
    """
    place = torchrun()
    own = device if device == "cpu" or place is None else f"{device}:{place.local}"
    settings = rank_settings(mode, kernels_of(mode, kernels, torch.device(own)), patch_floor, tiling, decode)
    rank = Rank(own, devices.model, devices.dtype, **settings)
    with ranks_from_environment(devices.timeout_s, device) as ranks:
        ranks.group.barrier(patient=True)
        rank(ranks.group)


class PipelineRank:
    """A pipeline that computes its share of what the first rank says.

    Args:
        pipeline: on the device of this rank; it is the rank's from now on.
        mode: of the executor; ``patch_floor`` likewise.
        fused: whether its kernels are fused, and ``graphs`` recorded.
        tiled: arguments of `backend.tiled.rank.TiledRank`; None: nothing is tiled.
        decode: how latents become pictures, see `backend.decode.decode_by`.
    """

    def __init__(
        self,
        pipeline: Any,
        mode: str = "whole",
        patch_floor: int | None = None,
        fused: bool = False,
        graphs: bool = False,
        tiled: dict[str, Any] | None = None,
        decode: str = "whole",
    ) -> None:
        device = torch.device(pipeline.device)
        recorder = recorder_on(device) if graphs else Recorder()
        ways = {"patch_floor": patch_floor, "kernels": Kernels(fused, graphs), "recorder": recorder}
        denoises = not is_absent(getattr(pipeline, denoiser_name(pipeline)))
        self._mixer: Mixer = mixers_of(pipeline, mode, **ways) if denoises else Elsewhere()
        of_several = dividing_mixers(pipeline, mode, self._mixer, **ways) if denoises else self._mixer
        forwards = intercept_denoisers(pipeline)
        self._shares = Shares(of_several, failed=_leave)
        self._tiled = None if tiled is None else TiledRank(pipeline, forwards, **tiled)
        self._received = ReceivedCalls(device)
        if not is_absent(getattr(pipeline, "vae", None)):
            decode_by(pipeline, decode)
        self._pipeline, self._functions = pipeline, intercept_components(pipeline)

    def share(self, calls: Sequence[DenoiserCall], ranks: tuple[int, ...], group: Group) -> list[Any]:
        """The outputs of calls of one `Mixer.key`, which these ranks run together, on the first of them at least."""
        return self._mixer.run(calls) if len(ranks) == 1 else self._shares.run(calls, ranks, group)

    def component(self, task: ComponentTask, group: Group) -> Any:
        """What a network beside the denoisers gives these ranks together, on the first of them at least.

        Raises:
            Undividable: they cannot share the call, as all of them find.
        """
        function = self._functions[task.name]
        with in_dtype(getattr(self._pipeline, task.name), task.dtype):
            if len(task.ranks) == 1:
                return function(*task.args, **task.kwargs)
            try:
                return in_bands(function, task, Subgroup(group, task.ranks))
            except (RankLost, Undividable):
                raise
            except Exception as error:  # the others wait for this one
                _leave(error)

    @torch.no_grad()
    def obey(self, order: dict[str, Any], group: Group) -> None:
        """Do what the first rank says, see `backend.devices.divided` and `backend.tiled.execution`."""
        verb = order["verb"]
        if verb == "forward":
            self._forward(order, group)
        elif verb == "component":
            self._component(order, group)
        elif self._tiled is not None and verb in self._tiled.verbs:
            self._tiled.verbs[verb](order, group)
        elif verb != "nothing":
            raise ValueError(f"unknown order {verb!r}")

    def _forward(self, order: dict[str, Any], group: Group) -> None:
        self._received.forget(order["forget"])
        ranks = tuple(order["ranks"])
        if group.rank not in ranks:
            return
        group.exchange([], [(0, tensor) for tensor in self._received.new(order, group.rank)])
        calls = self._received.calls(order)
        with contextlib.suppress(Exception):  # the others see that this one does not go on; the first says what it is
            self.share(calls, ranks, group)

    def _component(self, order: dict[str, Any], group: Group) -> None:
        self._received.forget(order["forget"])
        ranks = tuple(order["ranks"])
        if group.rank not in ranks:
            return
        group.exchange([], [(0, tensor) for tensor in self._received.new(order, group.rank)])
        (call,) = self._received.calls(order)
        with contextlib.suppress(Undividable):  # which the first finds, too
            self.component(
                ComponentTask(call.denoiser, call.args, call.kwargs, ranks, getattr(torch, order["dtype"])), group
            )


def _leave(error: BaseException) -> NoReturn:
    raise RankFailed(f"{type(error).__name__}: {error}") from error
