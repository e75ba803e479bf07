"""What an output may replace: the one place that decides it, and the one way to write.

An output goes to a new path, or takes the place of what Tilecast wrote as the same kind of thing (see `traces.marks`).
Everything else stays as it is and is an error: a file of a person or of another kind, a FIFO, a device, a folder where
a file is wanted, a folder that another process writes to, and every file that the same command reads. In a folder only
Tilecast's own files of its kind are replaced or removed; what else lies there stays. A link stands for what it leads
to.

A command asks before it works (`check_file`, or `claim_folder` around all of its work) and is asked again when it
writes::

    check_file(output, TRACE)                       # at the beginning: refuses, changes nothing
    with whole_file(output, TRACE) as temporary:    # at the end: there whole or not at all
        ...write to temporary...

    with claim_folder(output, REPLAY) as folder:    # checked, made, and nobody else's until the block ends
        with folder.renewed() as new:               # either: a hidden folder, whose files take their places at the end
            ...write to new...
        folder.clear()                              # or in place: away with what the run before left...
        folder.path                                 # ...then write here as the run goes: folder.append("events.jsonl"),
        with folder.file("run.json") as temporary:  # or a file of it, whole or not at all
            ...

The lock of a folder is one of the kernel on the folder itself: a process that is killed leaves none behind. What is not
yet whole stands in hidden files and folders ``.NAME.tilecast-PID-...``, locked as well; when their process was killed,
the next one that writes beside them takes them away.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import IO

from traces.errors import BadInput
from traces.marks import OutputKind, mark_of
from traces.paths import user_path

COPIES = "copies"
"""Key of a folder's ``run.json``: the names under which files of the user were copied into the folder."""

_HIDDEN = re.compile(r"\..*\.tilecast-\d+-[0-9a-f]{8}(\.\w{1,10})?", re.DOTALL)
_LONGEST = 80

_inputs: ContextVar[dict[tuple[int, int], Path] | None] = ContextVar("inputs", default=None)


@contextmanager
def reading(paths: Iterable[Path]) -> Iterator[None]:
    """While the block lasts, no output replaces one of these files, under whatever name; see also `reads`."""
    token = _inputs.set({})
    try:
        reads(paths)
        yield
    finally:
        _inputs.reset(token)


def reads(paths: Iterable[Path]) -> None:
    """Add to the files that the command of this `reading` block reads; those that do not exist are none."""
    known = _inputs.get()
    if known is not None:
        for path in paths:
            with suppress(OSError, ValueError):
                status = path.stat()
                if stat.S_ISREG(status.st_mode):
                    known[status.st_dev, status.st_ino] = path


def check_file(path: Path, kind: OutputKind) -> Path:
    """Where an output to ``path`` goes: the path itself, or what it leads to as a link. Changes nothing.

    Raises:
        BadInput: it must not be written, see the module, or its folder cannot be written to.
    """
    path = user_path(path)
    status = _status(path)
    target = _resolved(path)
    if status is None:
        _check_parent(path, target.parent)
        return target
    _check_regular(path, status)
    _check_no_input(path, status)
    if not kind.wrote(target):
        found = mark_of(target)
        what = f"a {found} of Tilecast" if found else "not Tilecast's"
        raise BadInput(f"{path} exists and is {what}, so no {kind.name} replaces it; choose another -o, or remove it")
    _check_parent(path, target.parent)
    return target


def check_folder(path: Path, kind: OutputKind, goes_on: bool = False) -> Path:
    """Like `check_file`, for a folder: new, empty, or of this kind.

    Args:
        path: path of the folder.
        kind: what kind of output it is.
        goes_on: whether the command goes on with what is there, so that it may read what it does not replace.
    """
    path = user_path(path)
    status = _status(path)
    target = _resolved(path)
    if status is None:
        _check_parent(path, target.parent)
        return target
    if not stat.S_ISDIR(status.st_mode):
        raise BadInput(f"{path} is {_called(status)}, expected a folder to write")
    _check_parent(path, target)
    try:
        names = [path.name for path in target.iterdir() if not _HIDDEN.fullmatch(path.name)]
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    ours = False
    for name in [name for name in kind.files if name in names]:
        ours |= _check_own(path / name, target / name, kind, goes_on)
    for name in [name for name in kind.folders if name in names]:
        _check_own_folder(path / name, target / name, kind)
    if names and not ours:
        found = next((mark for mark in _marks(target, names) if mark != kind.name), None)
        what = f"is a {found} of Tilecast" if found else f"is no {kind.name} but holds other things"
        raise BadInput(f"{path} {what}, so no {kind.name} is written there; choose another -o, or remove it")
    return target


def _check_own(path: Path, target: Path, kind: OutputKind, goes_on: bool) -> bool:
    """Refuse what is in the way of a folder's own file; True where it is of the folder's kind for certain."""
    status = target.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise BadInput(f"{path} is {_called(status)}, expected a file of Tilecast; choose another -o, or remove it")
    if not goes_on:
        _check_no_input(path, status)
    expected = kind.files[target.name]
    if not expected:
        return False
    if not replace(kind, name=expected).wrote(target):
        found = mark_of(target)
        what = f"of a {found}" if found else "not Tilecast's"
        raise BadInput(f"{path} is {what}, so no {kind.name} replaces it; choose another -o, or remove it")
    return expected == kind.name


def _check_own_folder(path: Path, target: Path, kind: OutputKind) -> None:
    status = target.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise BadInput(f"{path} is {_called(status)}, expected a folder; choose another -o, or remove it")
    ours = re.compile(kind.folders[target.name])
    for inner in target.iterdir():
        if ours.fullmatch(inner.name) and not (stat.S_ISREG(inner.lstat().st_mode) and kind.wrote(inner)):
            name = path / inner.name
            raise BadInput(f"{name} is not Tilecast's, so no {kind.name} replaces it; choose another -o, or remove it")


def _marks(folder: Path, names: Iterable[str]) -> Iterator[str]:
    for name in sorted(names):
        if (folder / name).is_file() and (mark := mark_of(folder / name)):
            yield mark


@contextmanager
def whole_file(path: Path, kind: OutputKind) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` when the block ends well, remove it otherwise.

    Raises:
        BadInput: it must not be written, see the module; the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    target = check_file(path, kind)
    made = _missing(target.parent)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target.parent)
        temporary, lock = _hidden_file(target)
        try:
            yield temporary
            if check_file(path, kind) != target:
                raise BadInput(f"{path} was changed meanwhile, nothing is written")
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(lock)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        _remove_empty(made)


class Folder:
    """A folder that is claimed, see `claim_folder`.

    Attributes:
        path: where it is.
        kind: what kind of output it is.
    """

    def __init__(self, path: Path, kind: OutputKind) -> None:
        self.path = path
        self.kind = kind

    def file(self, name: str) -> AbstractContextManager[Path]:
        """`whole_file` for a file of the folder, one of ``kind.files`` that bears a mark."""
        return whole_file(self.path / name, replace(self.kind, name=self.kind.files[name]))

    def append(self, name: str) -> IO[bytes]:
        """A file of the folder, one of ``kind.files``, to write to its end without a buffer.

        Raises:
            BadInput: something else is in its place, or it cannot be written.
        """
        assert name in self.kind.files
        target = self.path / name
        try:
            if os.path.lexists(target):
                _check_own(target, target, self.kind, goes_on=True)
            return os.fdopen(os.open(target, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666), "a+b", 0)
        except OSError as error:
            raise BadInput(f"cannot write {target}: {error.strerror or error}") from error

    def copy(self, source: Path) -> str:
        """Copy a file of the user into the folder; its name there, to be noted under `COPIES` in ``run.json``.

        Raises:
            BadInput: a file of the user is in its place, or it cannot be written.
        """
        target = self.path / source.name
        _check_place_of_copy(target, _copies(self.path))
        with self._writing(target):
            temporary, lock = _hidden_file(target)
            try:
                shutil.copyfile(source, temporary)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
                os.close(lock)
        return source.name

    @contextmanager
    def renewed(self) -> Iterator[Path]:
        """Yield a hidden folder; when the block ends well, its files are the folder's and those of before are gone.

        Raises:
            BadInput: something is in the way by now, or the disk is full.
        """
        with self._writing(self.path):
            new = _hidden(self.path / self.path.name)
            lock = _locked_folder(new, fcntl.LOCK_EX)
            try:
                yield new
                check_folder(self.path, self.kind)
                self._take(new)
            finally:
                shutil.rmtree(new, ignore_errors=True)
                os.close(lock)

    def _take(self, new: Path) -> None:
        """Put the files of ``new`` into their places. The last one says that the folder is whole: it goes first and
        comes last, so that a kill meanwhile leaves no mixture that looks like a run."""
        *others, last = self.kind.files
        (self.path / last).unlink(missing_ok=True)
        self._clear_folders()
        for name in others:
            if (new / name).exists():
                (new / name).replace(self.path / name)
            else:
                (self.path / name).unlink(missing_ok=True)
        (new / last).replace(self.path / last)

    def clear(self) -> None:
        """Remove Tilecast's own files of this kind; what a person put into the folder stays.

        Raises:
            BadInput: one of them is an input of this command, or cannot be removed.
        """
        check_folder(self.path, self.kind)
        copies = _copies(self.path)
        with self._writing(self.path):
            for name in [*reversed([*self.kind.files]), *copies]:
                (self.path / name).unlink(missing_ok=True)
            self._clear_folders()

    def _clear_folders(self) -> None:
        for folder in [self.path / name for name in self.kind.folders]:
            for path in folder.iterdir() if folder.is_dir() else ():
                if path.is_file() and not path.is_symlink() and self.kind.wrote(path):
                    path.unlink()
            with suppress(OSError):
                folder.rmdir()

    @contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BadInput(f"cannot write {path}: {error.strerror or error}") from error


def _copies(folder: Path) -> list[str]:
    """The names of copies that stand in a folder: plain files all of them."""
    try:
        named = json.loads((folder / "run.json").read_text(encoding="utf-8"))[COPIES]
        names = [name for name in named if name == Path(name).name]
    except (OSError, ValueError, TypeError, KeyError):
        return []
    return [name for name in names if (found := _status(folder / name, follow=False)) and stat.S_ISREG(found.st_mode)]


def _check_place_of_copy(target: Path, copies: list[str]) -> None:
    status = _status(target, follow=False)
    if status is not None:
        _check_no_input(target, status)
        if target.name not in copies:
            raise BadInput(f"{target} is not Tilecast's, and in the place of a copy; choose another -o, or remove it")


@contextmanager
def claim_folder(path: Path, kind: OutputKind, goes_on: bool = False) -> Iterator[Folder]:
    """Check a folder, make it, and keep it from all other processes until the block ends.

    A folder that is made here and still empty at the end is removed.

    Args:
        path: path of the folder.
        kind: what kind of output it is.
        goes_on: see `check_folder`.

    Raises:
        BadInput: it must not be written, see the module; another process has it, or it cannot be made.
    """
    path = Path(path)
    target = check_folder(path, kind, goes_on)
    made = _missing(target)
    lock = None
    try:
        try:
            lock = _locked_folder(target)
            _remove_leftovers(target.parent)
            _remove_leftovers(target)
        except BlockingIOError as error:
            raise BadInput(f"{path} is in use by another process; wait for it, or choose another -o") from error
        except OSError as error:
            raise BadInput(f"cannot write {path}: {error.strerror or error}") from error
        check_folder(target, kind, goes_on)  # as it is now that nobody else writes to it
        yield Folder(target, kind)
    finally:
        _remove_empty(made)
        if lock is not None:
            os.close(lock)


def _locked_folder(path: Path, how: int = fcntl.LOCK_EX | fcntl.LOCK_NB) -> int:
    """Make the folder, and lock it."""
    while True:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _flock(lock, how)
        except BaseException:
            os.close(lock)
            raise
        if _is_at(lock, path):
            return lock
        os.close(lock)  # another process removed it, empty as it was


def _flock(file: int, how: int) -> None:
    """Lock a file, where its file system can."""
    try:
        fcntl.flock(file, how)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EBADF, errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise


def _is_at(file: int, path: Path) -> bool:
    status = _status(path, follow=False)
    return status is not None and os.path.samestat(os.fstat(file), status)


def _hidden(target: Path) -> Path:
    name = os.fsencode(target.stem)[:_LONGEST].decode(errors="ignore")
    suffix = target.suffix if re.fullmatch(r"\.\w{1,10}", target.suffix, re.ASCII) else ""
    return target.with_name(f".{name}.tilecast-{os.getpid()}-{secrets.token_hex(4)}{suffix}")


def _hidden_file(target: Path) -> tuple[Path, int]:
    """A new hidden file beside ``target``, and its lock."""
    while True:
        path = _hidden(target)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        _flock(lock, fcntl.LOCK_EX)
        if _is_at(lock, path):
            return path, lock
        os.close(lock)  # it was taken for a leftover before it was locked


def _remove_leftovers(folder: Path) -> None:
    """Remove the hidden files and folders of processes that are gone."""
    for path in [path for path in folder.iterdir() if _HIDDEN.fullmatch(path.name)]:
        with suppress(OSError):
            if stat.S_IFMT(path.lstat().st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
                continue
            lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not _is_at(lock, path):
                    continue
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.is_file():
                    path.unlink()
            finally:
                os.close(lock)


def _missing(path: Path) -> list[Path]:
    """The folders that are to be made for ``path`` to be one, the innermost first."""
    missing = []
    while not os.path.lexists(path):
        missing.append(path)
        path = path.parent
    return missing


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return


def _status(path: Path, follow: bool = True) -> os.stat_result | None:
    try:
        return path.stat(follow_symlinks=follow)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or error}") from error


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:
        raise BadInput(f"cannot write {path}: it leads to itself") from error


def _check_parent(path: Path, parent: Path) -> None:
    """Refuse what cannot be written to, before there is anything to write."""
    while not os.path.lexists(parent):
        parent = parent.parent
    if not parent.is_dir():
        raise BadInput(f"cannot write {path}: {parent} is not a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise BadInput(f"cannot write {path}: {parent} cannot be written to")


def _check_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise BadInput(f"{path} is {_called(status)}, expected a regular file or a new name")


def _check_no_input(path: Path, status: os.stat_result) -> None:
    known = (_inputs.get() or {}).get((status.st_dev, status.st_ino))
    if known is not None:
        same = "" if known == path else f" ({known})"
        raise BadInput(f"{path} is an input of this command{same}; choose another -o")


def _called(status: os.stat_result) -> str:
    mode = status.st_mode
    kinds = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISREG, "a file"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISLNK, "a link"),
        (stat.S_ISSOCK, "a socket"),
    )
    return next((name for test, name in kinds if test(mode)), "a device")
