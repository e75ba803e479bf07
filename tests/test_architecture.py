"""The house holds: imports point down, the command is a face, torch stays below, a name means one thing."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
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
NOT_OF_STAGES = (
    ".canvas ",
    "self.image == 'refine'",
    "figures['load'] <=",
    "runs['variant'] == 'sketch'",
    "name == 'sketch'",
)
"""Comparisons with words that are names of stages too: parts of a canvas, ways of an image, a load, variants."""
OF_THE_COMMAND = "tools/reference.py"
"""Describes the command, and so has to know it."""
AROUND = ("benchmarks", "examples", "tools")
"""What goes through the library as anybody's code does, and does not ship."""


def parsed(folders: Iterable[str]) -> dict[Path, ast.Module]:
    """Every file of folders, parsed."""
    return {path: ast.parse(path.read_text()) for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))}


@cache
def trees() -> dict[Path, ast.Module]:
    """The packages."""
    return parsed(FLOOR)


@cache
def trees_around() -> dict[Path, ast.Module]:
    """What stands around them."""
    return parsed(AROUND)


def imported(tree: ast.Module) -> Iterator[str]:
    """Every module that a file names in an import, wherever it stands."""
    for node in ast.walk(tree):
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
        for path, tree in trees().items()
        if package_of(path) == package and path.relative_to(ROOT) != Path("tilecast/__main__.py")
        for name in imported(tree)
        if (other := name.partition(".")[0]) in FLOOR and other != package and FLOOR[other] >= FLOOR[package]
    ]
    assert not wrong


def test_nothing_but_the_command_imports_the_command() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, tree in trees_around().items()
        for name in imported(tree)
        if name.partition(".")[0] == "cli" and path != ROOT / OF_THE_COMMAND
    ]
    assert wrong == []


def test_only_the_backend_imports_torch() -> None:
    typed = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, tree in trees().items()
        if package_of(path) != "backend"
        for name in imported(tree)
        if name.partition(".")[0] in HEAVY
    ]
    assert typed == ["tilecast/studies/calibration.py imports torch"]  # for a type alone


def test_nothing_but_the_table_compares_names_of_stages() -> None:
    compared = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"
        for path, tree in [*trees().items(), *trees_around().items()]
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare | ast.MatchValue)
        and any(isinstance(each, ast.Constant) and each.value in STAGES for each in ast.walk(node))
    ]
    others = [said for said in compared if not any(meant in said for meant in NOT_OF_STAGES)]
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
