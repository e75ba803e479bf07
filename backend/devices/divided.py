"""Denoiser calls on several devices: the first rank tells the others which, and all run them together.

The first rank alone has the requests: their pipelines, samplers and latents. So requests join and leave, and the number
of devices changes, between any two steps; and a lost rank costs nothing but time: the first one runs the calls by
itself, and the others are started anew for the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from backend.coroutine import DenoiserCall
from backend.devices.bands import Undividable
from backend.devices.calls import NotSendable, SentCalls
from backend.devices.decoding import ComponentTask, DecodedAlone, Decoding, in_bands, in_dtype
from backend.devices.rows import run_rows
from backend.merge import Mixer, Several
from backend.packed import Blocks
from backend.packed.division import Division
from backend.ranks.group import Group, RankLost
from backend.ranks.subgroup import Subgroup
from backend.ranks.workers import Workers


class DividedWork(NamedTuple):
    """What a rank did so far in forwards of several.

    Attributes:
        exchanges: in which it sent tensors of divided tokens, and their ``sent_bytes``.
        divided: how often tokens were divided, and ``undivided``: how often the ranks did not agree to.
    """

    exchanges: int
    sent_bytes: int
    divided: int
    undivided: int


class Shares:
    """How one rank takes part in forwards of several.

    Args:
        mixer: what runs calls on one.
        lost: called when another rank is lost.
        failed: called when this rank fails while others wait for it.
    """

    def __init__(
        self, mixer: Mixer, lost: Callable[[], None] = lambda: None, failed: Callable[[BaseException], None] = print
    ) -> None:
        self._mixer = mixer
        self._lost, self._failed = lost, failed
        self._divisions: dict[tuple[int, ...], tuple[Group, Subgroup, Division]] = {}

    def run(self, calls: Sequence[DenoiserCall], ranks: tuple[int, ...], group: Group) -> list[Any]:
        """The outputs of calls of one `Mixer.key`, on the first of ``ranks`` at least. All of them call it alike."""
        mixer = self._mixer
        while isinstance(mixer, Several):
            mixer = mixer.mixers[calls[0].denoiser]
        known = self._divisions.get(ranks)
        if known is None or known[0] is not group:
            some = Subgroup(group, ranks)
            known = self._divisions[ranks] = group, some, Division(some, self._lost, self._failed)
        _, some, division = known
        if isinstance(mixer, Blocks) and not division.by_rows:
            return mixer.run_divided(calls, division)
        return run_rows(mixer, calls, some)

    @property
    def traffic(self) -> DividedWork:
        """What this rank did so far, with the ranks that live."""
        divisions = [division for _, _, division in self._divisions.values()]
        return DividedWork(*[sum(getattr(one, name) for one in divisions) for name in DividedWork._fields])


class Divided:
    """A `Mixer` that runs calls on as many devices as it is told: the first rank's.

    Args:
        mixer: what runs them on one.
        of_several: what runs them where they are divided.
        workers: the other ranks.

    Attributes:
        ranks: that run calls from now on, this one first; see `on`.
        alone: forwards that were to run on several ranks and did on one, by why.
        decoding: which calls of decoders they share.
    """

    def __init__(self, mixer: Mixer, of_several: Mixer, workers: Workers) -> None:
        self.ranks: tuple[int, ...] = (0,)
        self.alone: Counter[str] = Counter()
        self.decoding = Decoding(self._carried_out)
        self._own: dict[str, tuple[Any, Callable[..., Any]]] = {}
        self._mixer = mixer
        self._of_several = of_several
        self._workers = workers
        self._sent = SentCalls()
        self._shares = Shares(of_several, lost=workers.lost, failed=lambda error: workers.lost())

    @property
    def notes(self) -> list[str]:
        """What a reader of its figures must know, a line each."""
        alone = [f"{count} forwards ran on one device instead of several: {why}" for why, count in self.alone.items()]
        return [*getattr(self._mixer, "notes", []), *alone, *self.decoding.notes]

    @property
    def traffic(self) -> DividedWork:
        """See `Shares.traffic`."""
        return self._shares.traffic

    def most(self, rows: int) -> int:
        """On how many devices a batch of so many rows can run: on any where tokens are divided."""
        mixers = self._of_several.mixers.values() if isinstance(self._of_several, Several) else [self._of_several]
        count = self._workers.devices.count
        return count if all(isinstance(mixer, Blocks) for mixer in mixers) else min(count, rows)

    @contextmanager
    def on(self, devices: Sequence[int]) -> Iterator[None]:
        """Meanwhile, run calls on as many devices; the first of the replica leads in any case."""
        self.ranks = tuple(range(len(devices)))
        try:
            yield
        finally:
            self.ranks = (0,)

    def functions(self, own: Mapping[str, Callable[..., Any]], pipeline: Any) -> dict[str, Callable[..., Any]]:
        """What stands for functions of a pipeline's networks beside the denoisers, by their names."""
        self._own = {name: (getattr(pipeline, name), function) for name, function in own.items()}
        return {name: self.decoding.function(name, *of_name, lambda: self.ranks) for name, of_name in self._own.items()}

    def _carried_out(self, task: ComponentTask) -> Any:
        """What a network beside the denoisers gives on some devices, see `backend.devices.decoding.Asks`."""
        module, function = self._own[task.name]
        with in_dtype(module, task.dtype):
            if len(task.ranks) == 1:
                return function(*task.args, **task.kwargs)
            call = DenoiserCall(task.args, task.kwargs, denoiser=task.name)
            why = self._told("component", [call], task.ranks, dtype=str(task.dtype).removeprefix("torch."))
            if why:
                raise DecodedAlone(why)
            try:
                return in_bands(function, task, Subgroup(self._workers.group, task.ranks))
            except Undividable as error:
                raise DecodedAlone(str(error)) from error
            except BaseException:
                self._workers.lost()
                raise

    def key(self, call: DenoiserCall) -> Hashable:
        return self._mixer.key(call)

    def run(self, calls: Sequence[DenoiserCall]) -> list[Any]:
        if len(self.ranks) == 1:
            return self._mixer.run(calls)
        why = self._told("forward", calls, self.ranks)
        if why:
            self.alone[why] += 1
            return self._mixer.run(calls)
        try:
            return self._shares.run(calls, self.ranks, self._workers.group)
        except RankLost as error:
            self._workers.lost()
            self.alone[str(error)] += 1
            return self._mixer.run(calls)

    def _told(self, verb: str, calls: Sequence[DenoiserCall], ranks: tuple[int, ...], **more: Any) -> str:
        """Why the other ranks do not know of the calls; empty: they do."""
        why = ""
        for _ in range(2):  # one may have died since the last forward
            try:
                if not self._workers.running:
                    self._sent.forget()
                    self._workers.start()
                self._tell(verb, calls, ranks, more)
                return ""
            except NotSendable as error:
                why = str(error)
                break
            except RankLost as error:
                why = str(error)
                self._workers.lost()
        return why

    def _tell(self, verb: str, calls: Sequence[DenoiserCall], ranks: tuple[int, ...], more: Mapping[str, Any]) -> None:
        order, tensors = self._sent.order(calls, ranks[1:])
        self._workers.order(verb, ranks=list(ranks), **order, **more)
        pieces = [(rank, tensor) for rank, mine in tensors.items() for tensor in mine]
        self._workers.group.exchange(pieces, [])
