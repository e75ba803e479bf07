"""The boundary to policies: whatever goes wrong behind it becomes one line, a `PolicyError`.

A policy is a user's code. It may raise anything, `SystemExit` too, answer anything, or never answer. The line names the
policy, the hook, and where in its file it happened. Ctrl-C goes through untouched.

Hooks are called by `ask`. The controller, which calls them a hundred thousand times a second, has a ``try`` of its own
around each and calls `fail`.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Collection, Iterator
from dis import opmap
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any, NoReturn, TypeVar

from policies.contract import Policy, PolicyError
from traces.errors import BadInput

_ROOT = Path(__file__).parents[1]
_OURS = tuple([f"{_ROOT / name}/" for name in ("traces", "predictors", "policies", "sim", "backend", "reports", "cli")])
_LONGEST = 300
_NOT_PLAIN = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)

P = TypeVar("P", bound=Policy)


class _Told(PolicyError):  # noqa: N818
    """One that was made here, and says everything."""


class TooLong(BaseException):
    """A policy does not answer, see `policies.watchdog`; nothing that its ``except Exception`` takes for its own."""

    def __init__(self, message: str = "does not answer") -> None:
        super().__init__(message)


def ask(policy: Policy, hook: str, *arguments: Any) -> Any:
    """What a hook of a policy answers.

    Raises:
        PolicyError: it raised.
    """
    try:
        return getattr(policy, hook)(*arguments)
    except BaseException as error:
        fail(policy, hook, error)


def fail(policy: Policy, hook: str, error: BaseException) -> NoReturn:
    """To be called where a hook has raised: raise what that means, a `PolicyError` of one line.

    Ctrl-C, and what else comes from outside the policy, is raised again.
    """
    if isinstance(error, PolicyError | BadInput) and _is_shipped(policy) and _is_ours(_last(error)):
        raise error
    raise went_wrong(error, f"policy {name_of(policy)}: {hook}", *_files(policy, hook)) from error


def went_wrong(error: BaseException, what: str, *files: str) -> BaseException:
    """What to raise where a user's code has raised: a `PolicyError` of one line, or what is none of its doing as it is.

    Args:
        error: what it raised.
        what: what it is, as the beginning of a sentence.
        files: its own, of which the innermost line is named; where none had its turn, the first is.
    """
    last = _last(error)
    from_outside = _is_ours(last) and not isinstance(error, Exception | TooLong)  # as by a signal's handler
    if isinstance(error, _Told) or from_outside or (isinstance(error, KeyboardInterrupt) and not _says_raise(last)):
        return error
    at = _at(error, files)
    if isinstance(error, TooLong):
        return _Told(f"{what} {one_line(error)}{at}")
    text = one_line(error)
    return _Told(f"{what} raised {class_name(error)}{at}{': ' if text else ''}{text}")


def broken(policy: Policy, what: str) -> PolicyError:
    """A policy has broken a rule of the contract."""
    return _Told(f"policy {name_of(policy)} {what}")


def begun(policy: P, *arguments: Any) -> P:
    """A copy of a policy, checked for its form and reset with these arguments.

    Raises:
        PolicyError: it cannot be copied, `check_form` finds something, or ``reset`` raised.
    """
    copied = copied_for_run(policy)
    ask(copied, "reset", *arguments)
    return copied


def copied_for_run(policy: P) -> P:
    """A copy of a policy that is checked for its form.

    Raises:
        PolicyError: it cannot be copied, or `check_form` finds something.
    """
    check_form(policy)
    try:
        copied = copy.deepcopy(policy)
    except BaseException as error:
        fail(policy, "copying it for a run", error)
    if type(copied) is not type(policy):
        raise broken(policy, f"is copied into {short(copied)}, no policy of its class")
    return copied


def check_form(policy: Policy) -> None:
    """Whether every hook of a policy is a plain function that takes what it will be given.

    Raises:
        PolicyError: one is not, or a hook that every policy of its kind needs is missing.
    """
    base: type[Policy] | None = next((base for base in type(policy).__mro__ if Policy in base.__bases__), None)
    if base is None:
        raise broken(policy, "is no policy: it is derived from none of their bases")
    for hook, model in vars(base).items():
        if hook.startswith("_") or not inspect.isfunction(model):
            continue
        try:
            function = getattr(policy, hook)
        except BaseException as error:
            fail(policy, hook, error)
        if getattr(function, "__func__", None) is model:
            if hook in base.required:
                raise broken(policy, f"has no {hook}, which every {base.__name__} needs")
            continue
        at = f" ({defined})" if (defined := _defined(function)) else ""
        if not callable(function):
            raise broken(policy, f"has {short(function)} in the place of its {hook}")
        if any(is_(function) for is_ in _NOT_PLAIN):
            raise broken(policy, f"has an async or generator {hook}, expected a plain function{at}")
        arguments = list(inspect.signature(model).parameters)[1:]
        try:
            inspect.signature(function).bind(*arguments)
        except TypeError:
            raise broken(policy, f"has a {hook} that is not called as {hook}({', '.join(arguments)}){at}") from None
        except ValueError:
            continue  # no signature to be had


def name_of(policy: Policy) -> str:
    """The name of a policy's class; of one that only passes on what another decides, the other's."""
    return one_line(class_name(policy.blamed if isinstance(policy, Policy) else policy), 80)


def class_name(value: object) -> str:
    """The name of a value's class, whatever its metaclass makes of ``__name__``."""
    return str(type.__dict__["__name__"].__get__(type(value)))


def short(value: object) -> str:
    """A value, for a message."""
    try:
        return one_line(repr(value), 80)
    except Exception:
        return f"a {class_name(value)}"


def one_line(text: object, longest: int = _LONGEST) -> str:
    """Anything as one line of printable text."""
    try:
        line = " ".join(str(text).split())
    except BaseException:
        return "(its message cannot be read)"
    line = "".join([c if c.isprintable() else repr(c)[1:-1] for c in line])
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def _files(policy: Policy, hook: str) -> tuple[str, ...]:
    """Where the functions of a policy's class and of its bases are written: the user's files first, then ours."""
    functions = [value for base in type(policy).__mro__ for value in vars(base).values()]
    codes = [getattr(getattr(value, "__func__", value), "__code__", None) for value in functions]
    files = dict.fromkeys([code.co_filename for code in codes if isinstance(code, CodeType)])
    theirs = tuple([file for file in files if not file.startswith(_OURS)])
    return theirs or tuple(files)


def _at(error: BaseException, files: Collection[str]) -> str:
    """Where it happened: the innermost line in these files."""
    found = ""
    traceback = error.__traceback__
    while traceback is not None:
        if (file := traceback.tb_frame.f_code.co_filename) in files:
            found = f" at {file}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    if not found and isinstance(error, SyntaxError) and error.lineno is not None:
        found = f" at {error.filename}:{error.lineno}"
    return found or "".join([f" ({file})" for file in list(files)[:1]])


def _defined(function: object) -> str:
    code = getattr(inspect.unwrap(function) if callable(function) else function, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if isinstance(code, CodeType) else ""


def _last(error: BaseException) -> TracebackType | None:
    """Where it was raised."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback


def _is_ours(where: TracebackType | None) -> bool:
    return where is not None and where.tb_frame.f_code.co_filename.startswith(_OURS)


def _is_shipped(policy: Policy) -> bool:
    return type(policy).__module__.partition(".")[0] == "policies"


def _says_raise(last: TracebackType | None) -> bool:
    """Whether the code itself says ``raise`` there, as where a signal comes it does not."""
    return last is not None and last.tb_frame.f_code.co_code[last.tb_lasti] == opmap["RAISE_VARARGS"]


def frames_of(frame: FrameType | None) -> Iterator[FrameType]:
    """A frame and those that called it, the innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back
