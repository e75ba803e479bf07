"""Tilecast's packages under their own names, whatever else lies where Python looks first.

They have common names (``policies``, ``backend``), and a working folder comes before everything that is installed. So
importing `tilecast` puts a finder first that knows where they lie: beside this package. A package of the same name
elsewhere is not lost: what ours does not have, ``policies.mine`` say, is still found in it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

PACKAGES = ("backend", "cli", "policies", "predictors", "profiles", "reports", "sim", "traces")
_HOME = Path(__file__).resolve().parents[1]


class _Ours(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in PACKAGES:
            return None
        spec = PathFinder.find_spec(name, [str(_HOME)])
        if spec is not None and spec.submodule_search_locations is not None:
            places = [Path(entry or ".").resolve() / name for entry in sys.path]
            spec.submodule_search_locations += [str(each) for each in places if each.parent != _HOME and each.is_dir()]
        return spec


def found_first() -> None:
    """Have our packages found before others of their names.

    Raises:
        ImportError: another of these names has been imported already.
    """
    for name in PACKAGES:
        module = sys.modules.get(name)
        file = None if module is None else getattr(module, "__file__", None)
        if module is not None and (file is None or not Path(file).resolve().is_relative_to(_HOME)):
            raise ImportError(
                f"{name!r} of {file or list(getattr(module, '__path__', ()))} was imported before tilecast, which has "
                "a package of that name: import tilecast first"
            )
    if not any(isinstance(finder, _Ours) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Ours())
