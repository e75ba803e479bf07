"""The boundary to policies: whatever goes wrong behind it becomes one line, a `PolicyError`.

A policy is a user's code. It may raise anything, `SystemExit` too, answer anything, or never answer. The line names the
policy, the hook, and where in its file it happened. Ctrl-C goes through untouched.

Hooks are called by `ask`. The controller and its router, which call them a hundred thousand times a second, have a
``try`` of their own around each and call `fail`. What a policy answers is made plain by `policies.answers` before
anything else sees it.

The trap: to look at a user's object is to call the user's code. ``isinstance`` reads ``__class__``, ``==`` calls
``__eq__``, and the attribute of a class is its metaclass's to give. So what the boundary itself has to know of a policy
and of an exception it reads by the descriptors of ``type``, ``BaseException`` and the like, which no class can replace;
whatever else is looked at, is within a `Guard`.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Collection, Iterator
from dis import opmap
from functools import cached_property, partial
from pathlib import Path
from types import CodeType, FrameType, FunctionType, MethodType, TracebackType
from typing import Any, NoReturn, TypeGuard, TypeVar

from policies.contract import Policy, PolicyError
from traces.errors import BadInput

_ROOT = Path(__file__).parents[1]
_PACKAGES = ("traces", "predictors", "policies", "sim", "backend", "reports", "tilecast", "cli")
_OURS = tuple([f"{_ROOT / name}/" for name in _PACKAGES])
_LONGEST = 300
_WRAPPED = 20  # decorators, one around the other
_NOT_PLAIN = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)

P = TypeVar("P", bound=Policy)
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

GUARDED: set[CodeType] = set()
"""Code of ours in which a user's code has its turn, though no hook of a policy may be among the callers; see
`policies.watchdog`."""


def guarded(function: F) -> F:
    """A function in which a user's code has its turn."""
    GUARDED.add(function.__code__)
    return function


class _Told(PolicyError):  # noqa: N818
    """One that was made here, and says everything."""


class TooLong(BaseException):
    """A policy does not answer, see `policies.watchdog`; nothing that its ``except Exception`` takes for its own."""

    def __init__(self, message: str = "does not answer") -> None:
        super().__init__(message)


class Guard:
    """A block in which a user's code has its turn, or an object of a user's is looked at; see `went_wrong`.

    Raises:
        PolicyError: on leaving, whatever was raised in the block, `PolicyError` and `BadInput` too.
    """

    def __init__(self, what: str, *files: str) -> None:
        self._what = what
        self._files = files

    def __enter__(self) -> None:
        """Nothing is done: the block begins."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            _raise(went_wrong(error, self._what, *self._files), error)


@guarded
def ask(policy: Policy, hook: str, *arguments: Any) -> Any:
    """What a hook of a policy answers.

    Raises:
        PolicyError: it raised.
    """
    try:
        return getattr(policy, hook)(*arguments)
    except BaseException as error:
        fail(policy, hook, error)


@guarded
def read(policy: Policy, name: str, otherwise: Any = None) -> Any:
    """An attribute of a policy.

    Raises:
        PolicyError: reading it raised.
    """
    try:
        return getattr(policy, name, otherwise)
    except BaseException as error:
        fail(policy, name, error)


@guarded
def fail(policy: Policy, hook: str, error: BaseException) -> NoReturn:
    """To be called where a hook has raised: raise what that means, a `PolicyError` of one line.

    Ctrl-C, and what else comes from outside the policy, is raised again.
    """
    if is_of(error, PolicyError, BadInput) and _is_shipped(policy) and _is_ours(_last(error)):
        raise error
    _raise(went_wrong(error, f"policy {name_of(policy)}: {hook}", *files_of(policy)), error)


def _raise(told: BaseException, error: BaseException) -> NoReturn:
    if told is error:
        raise error
    raise told from error


def went_wrong(error: BaseException, what: str, *files: str) -> BaseException:
    """What to raise where a user's code has raised: a `PolicyError` of one line, or what is none of its doing as it is.

    Args:
        error: what it raised.
        what: what it is, as the beginning of a sentence.
        files: its own, of which the innermost line is named; where none had its turn, the first is.
    """
    last = _last(error)
    says_raise = _says_raise(last)
    by_handler = _is_ours(last) and says_raise and not is_of(error, Exception, TooLong)  # ours, of a signal
    if type(error) is _Told or by_handler or (is_of(error, KeyboardInterrupt) and not says_raise):
        return error
    at = _at(error, files)
    if is_of(error, TooLong):
        return _Told(f"{what} {one_line(error)}{at}")
    text = one_line(error)
    return _Told(f"{what} raised {class_name(error)}{at}{': ' if text else ''}{text}")


def broken(policy: Policy, what: str, *others: Policy) -> PolicyError:
    """A policy has broken a rule of the contract, or one of ``others`` has."""
    return _Told(f"policy {' or '.join([name_of(each) for each in (policy, *others)])} {what}")


def begun(policy: P, *arguments: Any) -> P:
    """A copy of a policy, checked for its form and reset with these arguments.

    Raises:
        PolicyError: it cannot be copied, `check_form` finds something, or ``reset`` raised.
    """
    copied = copied_for_run(policy)
    ask(copied, "reset", *arguments)
    return copied


@guarded
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


@guarded
def check_form(policy: Policy) -> None:
    """Whether every hook of a policy is a plain function that takes what it will be given.

    Raises:
        PolicyError: one is not, or a hook that every policy of its kind needs is missing.
    """
    base = next(_kinds(policy), None)
    if base is None:
        raise broken(policy, "is no policy: it is derived from none of their bases")
    plain = _is_shipped(policy) and vars(base).keys().isdisjoint(_read(Policy, "__dict__", policy))
    if plain and type(policy) in _FORMED:  # a run has one for each of its models or checkpoints
        return
    for hook, model in vars(base).items():
        if hook.startswith("_") or not inspect.isfunction(model):
            continue
        with Guard(f"policy {name_of(policy)}: {hook}", *files_of(policy)):
            _check_hook(policy, base, hook, model)
    if plain:
        _FORMED.add(type(policy))


_FORMED: set[type] = set()
"""Classes of our own that were found to be as they should."""


def _check_hook(policy: Policy, base: type[Policy], hook: str, model: FunctionType) -> None:
    """Of one hook, what `check_form` says; ``model`` is what the base has there."""
    function = getattr(policy, hook)
    if type(function) is MethodType and function.__func__ is model:
        if hook in base.required:
            raise broken(policy, f"has no {hook}, which every {base.__name__} needs")
        return
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
        return  # no signature to be had


def has_own(policy: Policy, hook: str) -> bool:
    """Whether a policy has a hook that is another than that of the base of its kind."""
    if hook in _read(Policy, "__dict__", policy):
        return True
    found = next(namespace[hook] for base in _bases(policy) if hook in (namespace := _namespace(base)))
    return all(found is not _namespace(kind).get(hook) for kind in _kinds(policy))


def name_of(policy: Policy) -> str:
    """The name of a policy's class; of one that only passes on what another decides, the other's."""
    return one_line(class_name(policy.blamed if _is_shipped(policy) else policy), 80)


def is_users(policy: Policy) -> bool:
    """Whether a policy, or the one that it passes on what it decides, is a user's."""
    blamed = policy.blamed if _is_shipped(policy) else policy
    return not _is_shipped(blamed) or any(not code.co_filename.startswith(_OURS) for code in codes_of(blamed))


def is_of(value: object, *classes: type[T]) -> TypeGuard[T]:
    """Whether a value is of one of these classes, whatever it says of itself."""
    return issubclass(type(value), classes)


def class_name(value: object) -> str:
    """The name of a value's class, whatever its metaclass makes of ``__name__``."""
    return name_of_class(type(value))


def name_of_class(cls: type) -> str:
    """The name of a class, whatever its metaclass makes of ``__name__``."""
    return str.__str__(_read(type, "__name__", cls))


@guarded
def short(value: object) -> str:
    """A value, for a message."""
    try:
        return one_line(repr(value), 80)
    except BaseException:
        return f"a {class_name(value)}"


@guarded
def one_line(text: object, longest: int = _LONGEST) -> str:
    """Anything as one line of printable text."""
    try:
        line = " ".join(str(text).split())
    except BaseException:
        return "(its message cannot be read)"
    line = "".join([c if c.isprintable() else repr(c)[1:-1] for c in line])
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


@guarded
def parameters_of(policy: Policy) -> str:
    """What a policy has stored, spelled out.

    Raises:
        PolicyError: spelling it raised.
    """
    with Guard(f"policy {name_of(policy)}: spelling what it stores", *files_of(policy)):
        return repr(sorted(_read(Policy, "__dict__", policy).items()))


def files_of(policy: Policy | type) -> tuple[str, ...]:
    """Where the functions of a policy's class and of its bases are written: the user's files first, then ours."""
    functions = [value for base in _bases(policy) for value in _namespace(base).values()]
    files = dict.fromkeys([code.co_filename for value in functions if (code := _code(value)) is not None])
    theirs = tuple([file for file in files if not file.startswith(_OURS)])
    return theirs or tuple(files)


def codes_of(policy: Policy) -> Iterator[CodeType]:
    """The code of every function that lies in a policy or its class, decorated or not."""
    for namespace in (_read(Policy, "__dict__", policy), *map(_namespace, _bases(policy))):
        for value in list(namespace.values()):
            for _ in range(_WRAPPED):
                if (code := _code(value)) is None:
                    break
                yield code
                named = _read(FunctionType, "__dict__", value) if type(value) is FunctionType else {}
                value = named.get("__wrapped__")


def traceback_of(error: BaseException) -> TracebackType | None:
    """Where an exception came through, whatever its class makes of ``__traceback__``."""
    found: TracebackType | None = _read(BaseException, "__traceback__", error)
    return found


def text_of(error: BaseException) -> str:
    """What an exception says, also where its class does not let that be read."""
    try:
        return "".join([str(error)])
    except BaseException:
        return "(its message cannot be read)"


def of_system(error: OSError) -> tuple[str, str] | None:
    """What the system said, and of which file ("": none); None: it is not the system's."""
    said, file = _read(OSError, "strerror", error), _read(OSError, "filename", error)
    return None if said is None else (one_line(said), "" if file is None else one_line(file, 4096))


def _read(cls: type, name: str, value: object) -> Any:
    """What a class of the language itself knows of a value."""
    return cls.__dict__[name].__get__(value)


def _bases(policy: object) -> tuple[type, ...]:
    """The class of a policy, or the class that it is, and all that is derived from, in the order of looking up."""
    found: tuple[type, ...] = _read(type, "__mro__", policy if is_of(policy, type) else type(policy))
    return found


def _kinds(policy: Policy) -> Iterator[type[Policy]]:
    """Of what a policy is derived from, the bases of kinds of policies."""
    return (base for base in _bases(policy) if any(each is Policy for each in _read(type, "__bases__", base)))


def _namespace(cls: type) -> Any:
    return _read(type, "__dict__", cls)


def _code(value: object) -> CodeType | None:
    """The code of what is a function, as it lies in a class."""
    if type(value) is property:
        value = value.fget
    elif type(value) is cached_property or type(value) is partial:
        value = value.func
    while type(value) is staticmethod or type(value) is classmethod or type(value) is MethodType:
        value = value.__func__
    return value.__code__ if type(value) is FunctionType else None


def _at(error: BaseException, files: Collection[str]) -> str:
    """Where it happened: the innermost line in these files."""
    found = ""
    traceback = traceback_of(error)
    while traceback is not None:
        if (file := traceback.tb_frame.f_code.co_filename) in files:
            found = f" at {file}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    if not found and is_of(error, SyntaxError) and (line := _read(SyntaxError, "lineno", error)) is not None:
        found = f" at {one_line(_read(SyntaxError, 'filename', error))}:{one_line(line)}"
    return found or "".join([f" ({file})" for file in list(files)[:1]])


def _defined(function: object) -> str:
    code = _code(inspect.unwrap(function)) if callable(function) else None
    return "" if code is None else f"{code.co_filename}:{code.co_firstlineno}"


def _last(error: BaseException) -> TracebackType | None:
    """Where it was raised."""
    traceback = traceback_of(error)
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback


def _is_ours(where: TracebackType | None) -> bool:
    return where is not None and where.tb_frame.f_code.co_filename.startswith(_OURS)


def _is_shipped(policy: Policy) -> bool:
    module = _namespace(type(policy)).get("__module__")
    return type(module) is str and module.partition(".")[0] == "policies"


def _says_raise(last: TracebackType | None) -> bool:
    """Whether the code itself says ``raise`` there, as where a signal comes it does not."""
    return last is not None and last.tb_frame.f_code.co_code[last.tb_lasti] == opmap["RAISE_VARARGS"]


def frames_of(frame: FrameType | None) -> Iterator[FrameType]:
    """A frame and those that called it, the innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back
