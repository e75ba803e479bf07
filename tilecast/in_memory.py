"""Objects in the place of files: what a scenario of Python names by its contents, as a file is known by its bytes."""

from __future__ import annotations

from types import CodeType
from typing import Any, Generic, TypeVar

import joblib

from policies.contract import Policy
from policies.guard import broken

T = TypeVar("T")

_MARK = " in memory, "


class InMemory(Generic[T]):
    """An object that a section holds beside the name of it, which says what is in it: so all are equal here."""

    def __init__(self, value: T) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InMemory)

    def __hash__(self) -> int:
        return hash(InMemory)


def named(what: str, contents: str) -> str:
    """The name of an object: what it is, and the beginning of a hash of its contents."""
    return f"{what}{_MARK}{contents[:12]}"


def is_named(name: str) -> bool:
    """Whether a name is one of `named`, so that no file and nothing that ships has it."""
    return _MARK in name


def contents_of(policy: Policy) -> str:
    """A hash of a policy: of its attributes, and of the code of its class and of those that it derives from.

    Raises:
        PolicyError: an attribute cannot be pickled.
    """
    classes = [cls for cls in type(policy).__mro__ if cls is not object]
    members = [(cls, name, value) for cls in classes for name, value in sorted(vars(cls).items())]
    code = [(cls.__qualname__, name, _code(value)) for cls, name, value in members if not _kept(name, value)]
    try:
        return str(joblib.hash((code, vars(policy))))
    except Exception as error:
        raise broken(policy, f"has an attribute that cannot be pickled: {type(error).__name__}") from error


def _kept(name: str, value: Any) -> bool:
    """Whether the interpreter itself keeps this in a class, some of it only once an object of it was copied."""
    return name.startswith("__") and name.endswith("__") and not callable(getattr(value, "__func__", value))


def _code(value: Any) -> Any:
    """What a member of a class does, whatever file and line it stands in."""
    for inner in ("__func__", "fget", "func"):  # of a class method, a property, a cached property
        value = getattr(value, inner, value)
    code = value if isinstance(value, CodeType) else getattr(value, "__code__", None)
    if isinstance(code, CodeType):
        return code.co_code, code.co_names, [_code(each) for each in code.co_consts]
    return value if isinstance(value, bool | int | float | str) else type(value).__qualname__
