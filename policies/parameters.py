"""Parameters of policies, checked by their annotated types where a scenario gives them.

A policy says in its constructor what it takes: ``max_batch: Width = 8``, or ``window_s: Annotated[float, SPAN] = 1.0``.
What a scenario gives has to be just that: no text where a number is meant, no truth value or fraction where a count is.
Where nothing is annotated, nothing is checked.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from policies.guard import Guard, guarded, one_line
from traces.errors import BadInput, nearest
from traces.limits import SPAN, STEPS, Range

Width = Annotated[int, Range(1, 10_000, whole=True)]
"""How many go into a batch, or how many are looked at."""
Spare = Annotated[int, Range(0, 10_000, whole=True)]
"""How many are there that nothing needs yet."""
StepCount = Annotated[int, STEPS]
"""Denoising steps."""
Weight = Annotated[float, Range(0, 1e6)]
"""What something counts, or is multiplied by; or a threshold of it."""
Wait = Annotated[float, SPAN]
"""Seconds."""
Part = Annotated[float, Range(0, 1)]
"""A share."""


class Signature(NamedTuple):
    """What the constructor of a class takes.

    Attributes:
        needed: of its parameters by name, whether they have no default; None: nothing is known of them.
        open_to_any: whether it takes parameters of any other name.
        types: the annotated ones.
    """

    needed: Mapping[str, bool] | None
    open_to_any: bool = False
    types: Mapping[str, Any] = {}

    @staticmethod
    @guarded
    def of(cls: type) -> Signature:
        """That of a class, which may be a user's: reading it may raise anything."""
        try:
            takes = list(inspect.signature(cls).parameters.values())
        except (TypeError, ValueError):
            return Signature(None)
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        needed = {str(p.name): p.default is p.empty for p in takes if p.kind in named}
        return Signature(needed, any(p.kind is p.VAR_KEYWORD for p in takes), _types(cls))


def checked_parameters(takes: Signature, given: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Parameters for the constructor of a class, of the types that it names.

    Args:
        takes: what it takes.
        given: by name.
        what: whose parameters they are, for messages.

    Raises:
        BadInput: one that it does not take, that is missing, or of another type.
        PolicyError: a type of the user's own raised while it was checked.
    """
    if takes.needed is None:
        return dict(given)
    known = ", ".join(takes.needed) or "none"
    for name in given:
        if not takes.open_to_any and name not in takes.needed:
            meant = nearest(name, takes.needed)
            hint = "" if meant is None else f"did you mean {meant!r}? "
            raise BadInput(f"{what} has no parameter {name!r}; {hint}it takes: {known}")
    missing = [name for name, needed in takes.needed.items() if needed and name not in given]
    if missing:
        raise BadInput(f"{what} needs the parameter {missing[0]!r}; it takes: {known}")
    checked = {}
    for name, value in given.items():
        if name in takes.types:
            with Guard(f"{what}: checking {name}"):
                value, wrong = _checked(value, takes.types[name])
            if wrong:
                raise BadInput(f"{what}: {name}{wrong}")
        checked[name] = value
    return checked


def _types(cls: type) -> dict[str, Any]:
    """The annotated types of its parameters; none where they cannot be read."""
    try:
        return typing.get_type_hints(inspect.getattr_static(cls, "__init__"), include_extras=True)
    except Exception:  # of a name that does not exist, or of anything else that a user may write there
        return {}


@guarded
def _checked(value: Any, wanted: Any) -> tuple[Any, str]:
    """A value as of the type that is wanted, and what is wrong with it ("": nothing)."""
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
    from pydantic_core import to_json

    strict = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
    try:
        try:
            adapter = TypeAdapter(wanted, config=strict)
        except PydanticUserError:  # a class with a configuration of its own
            adapter = TypeAdapter(wanted)
        if isinstance(value, list | tuple | dict):  # as written in a scenario: a list is what a tuple is
            return adapter.validate_json(to_json(value)), ""
        return adapter.validate_python(value), ""
    except ValidationError as error:
        wrong = error.errors()[0]
        at = "".join(f"[{part!r}]" for part in wrong["loc"] if isinstance(part, int | str))
        message = wrong["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        message = message if message.startswith("expected ") else f"expected {message}"
        return value, f"{at} is {_spell(wrong['input'])}, {one_line(message)}"
    except Exception:  # a type that pydantic knows nothing of
        return value, ""


def _spell(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
