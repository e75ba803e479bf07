"""The house holds: imports point down, the command is a face, torch stays below, a name means one thing."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from traces.stages import STAGES

ROOT = Path(__file__).parents[1]
FLOORS = (
    ("traces", "profiles"),
    ("predictors",),
    ("policies",),
    ("sim", "backend"),
    ("reports",),
    ("tilecast",),
    ("cli",),
)
"""Packages from the ground up; those of one floor do not import each other."""
FLOOR = {package: at for at, packages in enumerate(FLOORS) for package in packages}
HEAVY = ("torch", "diffusers", "transformers", "triton")


@cache
def trees() -> dict[Path, ast.Module]:
    """Every file of the packages, parsed."""
    return {path: ast.parse(path.read_text()) for package in FLOOR for path in sorted((ROOT / package).rglob("*.py"))}


def imported(path: Path) -> Iterator[str]:
    """Every module that a file names in an import, wherever it stands."""
    for node in ast.walk(trees()[path]):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from [alias.name for alias in node.names]


def package_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


@pytest.mark.parametrize("package", FLOOR)
def test_imports_point_down(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in trees()
        if package_of(path) == package and path.relative_to(ROOT) != Path("tilecast/__main__.py")
        for name in imported(path)
        if (other := name.partition(".")[0]) in FLOOR and other != package and FLOOR[other] >= FLOOR[package]
    ]
    assert not wrong


def test_nothing_but_the_command_imports_the_command() -> None:
    for folder in ("benchmarks", "examples", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(path.read_text())
            names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
            names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
            assert not [name for name in names if name.partition(".")[0] == "cli"], path


def test_only_the_backend_imports_torch() -> None:
    typed = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in trees()
        if package_of(path) != "backend"
        for name in imported(path)
        if name.partition(".")[0] in HEAVY
    ]
    assert typed == ["tilecast/studies/calibration.py imports torch"]  # for a type alone


def test_nothing_but_the_table_compares_names_of_stages() -> None:
    compared = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare | ast.MatchValue)
        and any(isinstance(each, ast.Constant) and each.value in STAGES for each in ast.walk(node))
    ]
    others = [said for said in compared if not (".canvas " in said or "self.image == 'refine'" in said)]
    assert others == []


def test_calls_of_many_arguments_name_them() -> None:
    """Of our own functions: torch's and kernels' are called as they are."""
    ours = {
        node.name
        for tree in trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }
    unnamed = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node.func)}"
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and "kernels" not in path.parts
        and len(node.args) >= 7
        and not any(isinstance(each, ast.Starred) for each in node.args)
        and not ast.unparse(node.func).endswith(".reshape")
        and ast.unparse(node.func).rpartition(".")[2] in ours | {"cls"}
    ]
    assert unnamed == []


def test_a_public_class_has_its_name_to_itself() -> None:
    homes: dict[str, set[str]] = defaultdict(set)
    for path, tree in trees().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].add(str(path.relative_to(ROOT)))
    assert {name: sorted(places) for name, places in homes.items() if len(places) > 1} == {}
