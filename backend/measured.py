"""The measurements of a profile that is not finished, kept as they are taken: a kill loses none of them."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from traces.errors import BadInput
from traces.lines import append_line, whole_lines
from traces.marks import OutputKind
from traces.output import check_file

MEASUREMENTS = OutputKind("measurements")


class Measured:
    """What was measured so far; this one keeps nothing.

    Attributes:
        elapsed_s: seconds that it took.
    """

    elapsed_s = 0.0

    def once(self, key: str, elapsed_s: float, measure: Callable[[], Any]) -> Any:
        """What ``measure`` answers, or answered before under this key.

        Args:
            key: key of what is measured.
            elapsed_s: seconds since measuring began.
            measure: its answer must be fit for JSON.
        """
        return measure()


class KeptMeasurements(Measured):
    """Measurements in a file of JSON lines beside the profile that they are for, ``PROFILE.rows.jsonl``.

    A context manager: while the block lasts the file is nobody else's. It goes when the profile is written (`done`), or
    when nothing was measured.

    Args:
        profile: where the profile will be.
        facts: what decides what is measured, fit for JSON: measurements of other facts are not gone on with.

    Raises:
        BadInput: on entering: another process has the file, it is not Tilecast's, or it is of other facts: says which.
    """

    def __init__(self, profile: Path, facts: dict[str, Any]) -> None:
        self.path = profile.with_name(f"{profile.name}.rows.jsonl")
        self._facts = json.loads(json.dumps(facts))
        self._found: dict[str, Any] = {}
        self._file: IO[bytes] | None = None
        self._done = False

    def __len__(self) -> int:
        return len(self._found)

    def __enter__(self) -> KeptMeasurements:
        if os.path.lexists(self.path):
            self._open()
        return self

    def _open(self) -> IO[bytes]:
        path = check_file(self.path, replace(MEASUREMENTS, files={self.path.name: MEASUREMENTS.name}))
        file: IO[bytes] | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+b", buffering=0)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read(file)
        except BaseException as error:
            if file is not None:
                file.close()
            if isinstance(error, BlockingIOError):
                message = f"{path} is in use by another process; wait for it, or choose another -o"
                raise BadInput(message) from error
            if isinstance(error, OSError):
                raise BadInput(f"cannot write {path}: {error.strerror}") from error
            raise
        self._file = file
        return file

    def _read(self, file: IO[bytes]) -> None:
        lines = whole_lines(file)
        if not lines:
            append_line(file, json.dumps({"generator": MEASUREMENTS.generator, "facts": self._facts}))
            return
        try:
            facts, *entries = [json.loads(line) for line in lines]
            before = facts["facts"]
            for entry in entries:
                self._found[entry["key"]] = entry["measured"]
                self.elapsed_s = entry["elapsed_s"]
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{self.path} holds no measurements; remove it, or choose another -o") from error
        for name in dict.fromkeys([*before, *self._facts]):
            if before.get(name) != self._facts.get(name):
                raise BadInput(
                    f"{self.path} holds measurements with {name} {before.get(name)}, not {self._facts.get(name)}; "
                    "remove it to start over, or choose another -o"
                )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            if self._done or not self._found:
                self.path.unlink(missing_ok=True)
            self._file.close()

    def done(self) -> None:
        """The profile is written; the measurements go."""
        self._done = True

    def once(self, key: str, elapsed_s: float, measure: Callable[[], Any]) -> Any:
        """See `Measured`; what is measured is in the file when this returns."""
        if key not in self._found:
            measured = measure()
            file = self._file or self._open()
            line = json.dumps({"key": key, "elapsed_s": elapsed_s, "measured": measured})
            append_line(file, line)
            self._found[key] = json.loads(line)["measured"]
        return self._found[key]
