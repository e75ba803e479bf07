"""Points of a study that are kept as they finish, so that a study that was killed goes on where it stopped.

A point is known by what decides its result: the key is a hash of the whole scenario, of the bytes of the files that it
names, and of what is asked of it. Two spellings of one point are therefore one point, and a changed trace is another.
Only the process that collects the results writes them, into a table of SQLite: a point is committed, and on the disk,
before the next is, so a kill at any moment loses none that was kept. While they are written the file's newest part
stands in ``points.sqlite-wal`` beside it; after a kill it stays there until the file is opened next.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

from policies.contract import PolicyError
from predictors.shipped import find
from tilecast.file_memo import memoised_by_file
from tilecast.scenario import Scenario
from tilecast.signals import Interrupted
from tilecast.studies.workers import results
from traces.errors import BadInput
from traces.marks import OutputKind
from traces.output import Folder, claim_folder
from traces.paths import user_path

FILE = "points.sqlite"
STUDY = OutputKind("study", files={FILE: "study"})
FAILED = "error"
"""The one entry of the result of a point that could not be run: why, in one line."""

_OLD_FILE = "points.jsonl"
_BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite calls files beside its own."""
_KEEP = """
    INSERT INTO points (key, point, result) VALUES (?, ?, ?)
    ON CONFLICT (key) DO UPDATE SET point = excluded.point, result = excluded.result
"""

Result = dict[str, Any]


class ResultStore:
    """The finished points of a folder of some kind, while the ``with`` block lasts nobody else's.

    The table ``points`` of ``folder/points.sqlite`` has a row a point: ``key``, ``point`` (what it was, for people),
    ``result`` (JSON) and ``generator`` (the kind's mark).

    Raises:
        BadInput: on entering: another process has the folder, it holds other things, or the table is damaged.
        Interrupted: on leaving by Ctrl-C.
    """

    def __init__(self, folder: Path, kind: OutputKind = STUDY) -> None:
        self.folder = Path(folder)
        self.kind = kind
        self.path = self.folder / FILE
        self._results: dict[str, Result] = {}

    def __enter__(self) -> ResultStore:
        old = user_path(self.folder) / _OLD_FILE
        if old.is_file() and self.kind.wrote(old):
            raise BadInput(f"{old} holds points of an older Tilecast, which this one cannot read; choose another -o")
        with ExitStack() as held:
            claimed = held.enter_context(claim_folder(self.folder, self.kind, goes_on=True))
            path = claimed.path / FILE
            with _told("write", self.path):
                if not path.exists():
                    _create(claimed)
                self._file = held.enter_context(closing(_opened(path)))
                self._file.execute("PRAGMA journal_mode = WAL")
                self._file.execute("PRAGMA synchronous = FULL")
            self._results = _results_in(self._file, self.path)
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
        """Keep a finished point for good, in the place of a former one: when this returns, it is on the disk.

        Raises:
            BadInput: it cannot be written.
        """
        text = json.dumps(result)
        with _told("write", self.path):
            self._file.execute(_KEEP, (key, point.encode("utf-8", "replace").decode(), text))
        self._results[key] = json.loads(text)  # as it will be read back: the same whether it was kept or run


@contextmanager
def kept_in(output: Path | str | None, kind: OutputKind) -> Iterator[ResultStore]:
    """The store of a folder; None: of a folder that is gone when the ``with`` block ends.

    Raises:
        BadInput: see `ResultStore`.
    """
    if output is not None:
        with ResultStore(Path(output), kind) as store:
            yield store
        return
    with tempfile.TemporaryDirectory(prefix="tilecast-") as folder, ResultStore(Path(folder) / "study", kind) as store:
        yield store


def read_points(folder: Path) -> dict[str, Result]:
    """The results in a folder by their points' keys, in the order in which these were first kept; also while a store
    adds to them.

    Raises:
        BadInput: there is no such file, or it is damaged.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise BadInput(f"cannot read {path}: there is no such file")
    with _told("read", path), closing(_opened(path)) as file:
        return _results_in(file, path)


def _create(folder: Folder) -> None:
    for name in [f"{FILE}{end}" for end in _BESIDE]:
        if os.path.lexists(folder.path / name):
            raise BadInput(f"{folder.path / name} is in the way of {FILE}; choose another -o, or remove it")
    with folder.file(FILE) as temporary, closing(sqlite3.connect(temporary)) as file:
        file.execute("PRAGMA journal_mode = MEMORY")  # whoever is killed here leaves a hidden file and nothing else
        columns = ("key TEXT PRIMARY KEY", "point TEXT NOT NULL", "result TEXT NOT NULL", folder.kind.column)
        file.execute(f"CREATE TABLE points ({', '.join(columns)})")


def _opened(path: Path) -> sqlite3.Connection:
    """A file that exists, of which each statement is a transaction."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)


def _results_in(file: sqlite3.Connection, path: Path) -> dict[str, Result]:
    try:
        rows = file.execute("SELECT key, result FROM points ORDER BY rowid").fetchall()
        return {key: dict(json.loads(result)) for key, result in rows}
    except (sqlite3.DatabaseError, ValueError, TypeError) as error:
        raise BadInput(f"{path} is damaged: {error}; remove it, and its points run again") from error


@contextmanager
def _told(what: str, path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise BadInput(f"cannot {what} {path}: {error}") from error


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
            f"interrupted: {len(kept)} points are kept in {kept.folder}; the same command goes on from there"
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
    whole = [_version(), scenario.model_name, _with_contents(facts, scenario.base), asked]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


@cache
def _version() -> str:
    return version("tilecast")


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
