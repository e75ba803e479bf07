"""Points of a study that are kept as they finish, so that a study that was killed goes on where it stopped.

A point is known by what decides its result: the key is a hash of the whole scenario, of the bytes of the files that it
names, and of what is asked of it. Two spellings of one point are therefore one point, and a changed trace is another.
Only the process that collects the results writes them, a line a point and each line to the disk before the next, so a
kill at any moment leaves whole lines and at most one torn one, which is dropped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from policies.contract import PolicyError
from predictors.shipped import find
from tilecast.file_memo import memoised_by_file
from tilecast.scenario import Scenario
from tilecast.signals import Interrupted
from tilecast.studies.workers import results
from traces.errors import BadInput
from traces.marks import Kind
from traces.output import claim_folder

FILE = "points.jsonl"
STUDY = Kind("study", files={FILE: "study"})
FAILED = "error"
"""The one entry of the result of a point that could not be run: why, in one line."""

Result = dict[str, Any]


class ResultStore:
    """The finished points of a folder of some kind, while the ``with`` block lasts nobody else's.

    ``folder/points.jsonl`` holds one JSON object a line: ``generator`` (the kind's mark), ``key``, ``point`` (what it
    was, for people) and ``result``.

    Raises:
        BadInput: on entering: another process has the folder, it holds other things, or a line is damaged.
        Interrupted: on leaving by Ctrl-C.
    """

    def __init__(self, folder: Path, kind: Kind = STUDY) -> None:
        self.folder = Path(folder)
        self.kind = kind
        self.path = self.folder / FILE
        self._results: dict[str, Result] = {}
        self._file: IO[bytes] | None = None

    def __enter__(self) -> ResultStore:
        with ExitStack() as held:
            claimed = held.enter_context(claim_folder(self.folder, self.kind, goes_on=True))
            self._file = held.enter_context(claimed.append(FILE))
            self._results = self._read(self._file)
            self._held = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(
                f"interrupted: {len(self)} points are kept in {self.folder}; the same command goes on from there"
            ) from error

    def __contains__(self, key: str) -> bool:
        return key in self._results

    def __getitem__(self, key: str) -> Result:
        return self._results[key]

    def __len__(self) -> int:
        return len(self._results)

    def add(self, key: str, point: str, result: Result) -> None:
        """Keep a finished point for good: when this returns, it is on the disk.

        Raises:
            BadInput: it cannot be written.
        """
        assert self._file is not None
        line = json.dumps({"generator": self.kind.generator, "key": key, "point": point, "result": result})
        try:
            _write_all(self._file, line.encode() + b"\n")
            os.fsync(self._file)
        except OSError as error:
            raise BadInput(f"cannot write {self.path}: {error.strerror}") from error
        self._results[key] = json.loads(line)["result"]  # as it will be read back: the same whether it was kept or run

    def _read(self, file: IO[bytes]) -> dict[str, Result]:
        file.seek(0)
        *lines, torn = file.read().split(b"\n")
        if torn:
            file.truncate(file.tell() - len(torn))
        found = {}
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                found[str(entry["key"])] = dict(entry["result"])
            except (ValueError, TypeError, KeyError) as error:
                raise BadInput(
                    f"{self.path}: line {number} is no finished point; remove the line, and the point runs again"
                ) from error
        return found


def run_points(
    function: Callable[[Any], Result],
    points: Mapping[str, Any],
    kept: ResultStore,
    workers: int = 1,
    executor: str = "joblib",
    progress: Callable[[int], None] | None = None,
    ray_address: str | None = None,
) -> dict[str, Result]:
    """The result of every point: the kept one, or what ``function`` answers, kept as soon as it does.

    A failure is an answer of this call alone, and the point runs again in the next: memory, a disk, a file, the time a
    policy took and what its file imports may be otherwise then, without a word in the point's key.

    Args:
        function: of a module, so that other processes can import it; its answer must be fit for JSON.
        points: by `point_key` what ``function`` is called with. ``str`` of it says what the point is.
        progress: called with how many of ``points`` have a result.

    Returns:
        Results in the order of ``points``. One that ended with `BadInput` or `PolicyError`, or for want of memory or of
        a file, is ``{FAILED: message}``.

    Raises:
        Interrupted: Ctrl-C; what finished is kept.
        RuntimeError: ``function`` raised anything else; the message names the point.
        BadInput: see `tilecast.studies.workers.results`.
    """
    found = {key: kept[key] for key in points if key in kept}
    missing = {key: point for key, point in points.items() if key not in found}
    done = len(found)
    report = progress or (lambda _: None)
    report(done)
    ended = results(partial(_outcome, function), missing, workers, executor, ray_address)
    try:
        for key, result in ended:
            found[key] = result
            if FAILED not in result:
                kept.add(key, str(points[key]), result)
                found[key] = kept[key]
            done += 1
            report(done)
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"interrupted: {done} of {len(points)} points are kept in {kept.folder}; "
            "the same command goes on from there"
        ) from error
    finally:
        ended.close()
    return {key: found[key] for key in points}


def point_key(scenario: Scenario, asked: Any = None) -> str:
    """What a point is known by: equal for two points exactly when everything that decides their results is equal.

    That is the scenario with its defaults, the content of the files it names (not where they lie), ``asked`` (fit for
    JSON) and the version of Tilecast. A changed Tilecast of the same version is not noticed.
    """
    facts = scenario.model_dump(mode="json", exclude={"model"})
    whole = [version("tilecast"), scenario.model_name, _with_contents(facts, scenario.base), asked]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def _outcome(function: Callable[[Any], Result], key: str, point: Any) -> tuple[str, Result]:
    """The point's key and its result."""
    try:
        return key, function(point)
    except (BadInput, PolicyError) as error:
        return key, {FAILED: str(error)}
    except (MemoryError, OSError) as error:
        return key, {FAILED: f"{type(error).__name__}: {error}".rstrip(": ")}
    except Exception as error:
        raise RuntimeError(f"point {key[:12]} ({point}) failed: {type(error).__name__}: {error}") from error


def _with_contents(value: Any, base: Path) -> Any:
    """``value`` with the hash of its content in the place of every file that it names."""
    if isinstance(value, dict):
        return {key: _with_contents(inner, base) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_contents(inner, base) for inner in value]
    if not isinstance(value, str) or not value:
        return value
    name, _, class_name = value.rpartition(":") if ".py:" in value or ".toml:" in value else (value, "", "")
    path = find(name, base=base)
    try:
        return {"sha256": _content(path), "class": class_name} if path.is_file() else value
    except (OSError, ValueError):  # no name that a file can have
        return value


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_content = memoised_by_file(_sha256, files=1024)


def _write_all(file: IO[bytes], data: bytes) -> None:
    while data:  # an unbuffered file may take less than it is given
        data = data[file.write(data) :]
