"""From a name on the command line to a policy object.

A name is one of ours in kebab-case (``least-slack``) or a user's class as ``file.py:Class``.
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policies.caching import CACHES
from policies.placement import PLACEMENTS
from policies.residency import DISPATCHES, KEEPS
from policies.scheduling import SCHEDULERS
from traces.errors import BadInput

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
        BadInput: unknown name, no such file or class, or a parameter the policy does not take.
    """
    cls = _user_class(kind, name, base) if ".py:" in name else _shipped_class(kind, name)
    parameters = dict(parameters or {})
    takes = [p for p in inspect.signature(cls).parameters.values() if p.kind is not p.VAR_KEYWORD]
    for given in parameters:
        if given not in {p.name for p in takes}:
            known = ", ".join(p.name for p in takes) or "none"
            raise BadInput(f"{kind} policy {name!r} has no parameter {given!r}; it takes: {known}")
    try:
        return cls(**parameters)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{kind} policy {name!r}: {error}") from error


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
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise BadInput(f"{kind} policy {name!r}: {file} does not load: {type(error).__name__}: {error}") from error
    cls = getattr(module, class_name, None)
    if not isinstance(cls, type):
        raise BadInput(f"{kind} policy {name!r}: {file} has no class {class_name!r}")
    return cls
