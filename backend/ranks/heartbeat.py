"""Who is lost: ranks watch each other, so that a lost one is named instead of waited for.

A transport knows only that a peer is silent or that a connection closed, and the peer it names is often a healthy rank
that itself waits for the lost one. So each rank tells the others through a store, a few times a second, that it lives
and which exchange it has come to; the rank that started the others also sees how their processes ended. Whoever finds
a loss first writes the verdict, and every rank reports that one. All store traffic is on a thread of its own: a rank
in a long computation still answers, and a rank whose store is silent still reaches its own timeout.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from subprocess import Popen
from typing import Any

LEFT = 76  # exit code of a rank that left because the group broke; why is in the verdict
_VERDICT = "verdict"
_GRACE_S = 2.0  # a closed connection is seen before the cause of it
_STOOD_STILL_S = 1.0
"""A rank that looks again only after so long stood still itself, as others may have on a machine that stalls."""


class RankLost(RuntimeError):  # noqa: N818 - named for what it is
    """A rank of the group died, hung or failed; the group cannot go on. The message is one line that names the rank."""


def status_key(rank: int) -> str:
    """Where a rank's status is kept: ``beat exchange``. It exists from when the rank has started."""
    return f"status/{rank}"


def open_verdict(store: Any) -> None:
    """Rank 0, before any other: nobody is lost yet."""
    store.set(_VERDICT, "")


def verdict_of(store: Any) -> str:
    """The verdict so far, empty while nobody is lost. Waits until rank 0 has opened it."""
    return str(store.get(_VERDICT).decode())


def give_verdict(store: Any, message: str) -> str:
    """Say who is lost. Returns the verdict that holds: this one, or one that was given before."""
    return str(store.compare_set(_VERDICT, "", message).decode())


def how_it_ended(rank: int, code: int) -> str:
    """One line for a process that is gone; ``code`` as `subprocess.Popen.returncode`."""
    return f"rank {rank} died ({f'exit code {code}' if code >= 0 else f'killed by signal {-code}'})"


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind if it says nothing."""
    return str(error).strip().split("\n")[0][:200] or type(error).__name__


class Heartbeat:
    """The heartbeat of one rank, and its view of the others.

    Args:
        store: a client of the group's store, used by nobody else. Every rank's status is already in it.
        rank: this rank.
        size: number of ranks.
        timeout_s: a rank that shows no sign of life for longer is lost.
        children: the processes this rank started, by their rank.
        on_loss: called once, on any thread, as soon as somebody is lost.

    Attributes:
        lost: the verdict, None while all live.
        exchange: the number of the exchange this rank has come to. The group counts it up.
    """

    def __init__(
        self,
        store: Any,
        rank: int,
        size: int,
        timeout_s: float,
        children: Mapping[int, Popen[bytes]] | None = None,
        on_loss: Callable[[], None] = lambda: None,
    ) -> None:
        self.rank, self.timeout_s = rank, timeout_s
        self.lost: str | None = None
        self.exchange = 0
        self._store, self._children, self._on_loss = store, dict(children or {}), on_loss
        self._peers = [peer for peer in range(size) if peer != rank]
        now = time.monotonic()
        self._status = dict.fromkeys(self._peers, b"")
        self._seen = dict.fromkeys(self._peers, now)
        self._store_seen = now
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch of rank {rank}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the heartbeat. The others will miss it, so all stop together or their processes end."""
        self._stopped.set()
        self._thread.join(timeout=1.0)

    def timed_out(self, peer: int) -> str:
        """The verdict after an exchange of this rank has waited for ``peer`` for the whole timeout."""
        self._look_at_children()
        return self.lost or self._conclude(self._silent(peer))

    def broken(self, message: str) -> str:
        """The verdict after a connection broke: the cause, if it shows within two seconds, else ``message``."""
        until = time.monotonic() + _GRACE_S
        while self.lost is None and time.monotonic() < until:
            self._look_at_children()
            time.sleep(0.01)
        return self.lost or self._conclude(message)

    def _run(self) -> None:
        interval = min(0.25, self.timeout_s / 20)
        beat = 0
        while self.lost is None and not self._stopped.wait(interval):
            self._look_at_children()
            beat += 1
            try:
                self._read_store(beat)
            except RuntimeError as error:  # DistStoreError and DistNetworkError among them
                if not self._stopped.is_set():
                    self._settle(f"rank 0 is gone (its store: {first_line(error)})")
                return

    def _read_store(self, beat: int) -> None:
        self._store.set(status_key(self.rank), f"{beat} {self.exchange}")
        keys = [_VERDICT, *(status_key(peer) for peer in self._peers)]
        verdict, *statuses = self._store.multi_get(keys)
        now = time.monotonic()
        if now - self._store_seen > _STOOD_STILL_S:
            stood_still_s = now - self._store_seen
            self._seen = {peer: seen + stood_still_s for peer, seen in self._seen.items()}
        self._store_seen = now
        for peer, status in zip(self._peers, statuses, strict=True):
            if status != self._status[peer]:
                self._status[peer], self._seen[peer] = status, now
        if verdict:
            self._settle(verdict.decode())
            return
        stalest = min(self._peers, key=lambda peer: self._seen[peer])
        if now - self._seen[stalest] > self.timeout_s:
            self._conclude(self._no_answer(stalest, "no sign of life"))

    def _look_at_children(self) -> None:
        for rank, child in self._children.items():
            code = child.poll()
            if code is not None and code != LEFT and self.lost is None and not self._stopped.is_set():
                self._conclude(how_it_ended(rank, code))

    def _silent(self, peer: int) -> str:
        """Who keeps this rank waiting: one without a heartbeat, else the one furthest behind, else the peer itself."""
        now = time.monotonic()
        if self.rank and now - self._store_seen > self.timeout_s / 2:
            return self._no_answer(0, "no sign of life")
        stalest = min(self._peers, key=lambda other: self._seen[other])
        if now - self._seen[stalest] > self.timeout_s / 2:
            return self._no_answer(stalest, "no sign of life")
        last = min(self._peers, key=self._come_to)
        if self._come_to(last) >= self.exchange:
            last = peer
        return self._no_answer(last, f"it lives, but the others wait for it in exchange {self.exchange}")

    def _come_to(self, peer: int) -> int:
        return int(self._status[peer].split()[1]) if self._status[peer] else 0

    def _no_answer(self, rank: int, detail: str) -> str:
        return f"rank {rank} has not answered for {self.timeout_s:g} s ({detail})"

    def _conclude(self, message: str) -> str:
        if self._store_seen + self.timeout_s / 2 > time.monotonic():  # else the store would not answer either
            with contextlib.suppress(RuntimeError):  # nobody left to tell
                message = give_verdict(self._store, message)
        return self._settle(message)

    def _settle(self, verdict: str) -> str:
        with self._lock:
            if self.lost is not None:
                return self.lost
            self.lost = verdict
        self._on_loss()
        return verdict
