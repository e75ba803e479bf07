"""From a name on the command line to a policy object.

A name is one of ours in kebab-case (``least-slack``) or a user's class as ``file.py:Class``.
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policies.caching import CACHES, CachingPolicy
from policies.contract import Policy, PolicyError, SchedulingPolicy
from policies.guard import check_form, one_line, went_wrong
from policies.parameters import checked_parameters
from policies.placement import PLACEMENTS, PlacementPolicy
from policies.residency import DISPATCHES, KEEPS, DispatchPolicy, KeepPolicy
from policies.scheduling import SCHEDULERS
from policies.watchdog import watched
from traces.errors import BadInput

BASES: dict[str, type[Policy]] = {
    "scheduling": SchedulingPolicy,
    "caching": CachingPolicy,
    "placement": PlacementPolicy,
    "dispatch": DispatchPolicy,
    "keep": KeepPolicy,
}
"""What a policy of each kind is derived from."""

KINDS: dict[str, Mapping[str, type]] = {
    "scheduling": SCHEDULERS,
    "caching": CACHES,
    "placement": PLACEMENTS,
    "dispatch": DISPATCHES,
    "keep": KEEPS,
}


def load_policy(kind: str, name: str, parameters: Mapping[str, Any] | None = None, base: Path = Path()) -> Any:
    """The policy of one kind called ``name``, built with ``parameters``.

    ``base`` is the folder that relative files are looked up in.

    Raises:
        BadInput: unknown name, no such file or class, a parameter the policy does not take, or one of a wrong type.
        PolicyError: the user's file or constructor raised, or does not end, or the class is no policy of this kind.
    """
    what = f"{kind} policy {name!r}"
    with watched():
        cls = _user_class(kind, name, base) if ".py:" in name else _shipped_class(kind, name)
        given = checked_parameters(cls, parameters or {}, what)
        if inspect.isabstract(cls):
            missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
            raise PolicyError(f"policy {one_line(cls.__name__, 80)} is abstract: it has no {missing}")
        try:
            policy = cls(**given)
        except BadInput as error:
            raise BadInput(f"{what}: {error}") from error
        except BaseException as error:
            if ".py:" not in name and isinstance(error, TypeError | ValueError):
                raise BadInput(f"{what}: {error}") from error
            raise went_wrong(error, f"policy {one_line(cls.__name__, 80)}: its constructor", _file_of(cls)) from error
    if not isinstance(policy, BASES[kind]):
        made = type(policy).__name__
        raise PolicyError(f"policy {one_line(cls.__name__, 80)} gives an object of class {made} when it is made")
    check_form(policy)
    return policy


def _file_of(cls: type) -> str:
    return str(getattr(sys.modules.get(cls.__module__), "__file__", ""))


def _shipped_class(kind: str, name: str) -> type:
    known = KINDS[kind]
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise BadInput(f"unknown {kind} policy {name!r}; {hint}known: {', '.join(known)}, or file.py:Class")


def _user_class(kind: str, name: str, base: Path) -> type:
    file, _, class_name = name.rpartition(":")
    path = (base / file).resolve()
    if not path.is_file():
        raise BadInput(f"{kind} policy {name!r}: there is no file {base / file}")
    spec = importlib.util.spec_from_file_location(f"user_policy_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where dataclasses look for it
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        raise went_wrong(error, f"{kind} policy {name!r}: the file", str(path)) from error
    cls = getattr(module, class_name, None)
    if not isinstance(cls, type):
        raise BadInput(f"{kind} policy {name!r}: {file} has no class {class_name!r}")
    wanted = BASES[kind]
    if not issubclass(cls, wanted):
        raise PolicyError(f"policy {class_name} of {path} is no {kind} policy; derive it from {wanted.__name__}")
    return cls
