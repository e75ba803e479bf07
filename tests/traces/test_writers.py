"""Nothing is written past `traces.output`: whoever opens a file to write is given its path by it, or is named here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "traces",
    "predictors",
    "policies",
    "sim",
    "backend",
    "reports",
    "tilecast",
    "cli",
    "benchmarks",
    "examples",
    "tools",
)

GIVEN_BY = {"whole_file", "renewed", "append", "file"}
"""What gives a path or a file to write to."""

WRITES = {"write_text", "write_bytes", "to_parquet", "write_html", "write_image", "write_table", "save_file", "mkstemp"}
WRITES |= {"save_pretrained", "copyfile", "copy2", "copytree", "move", "touch", "symlink_to", "hardlink_to", "savez"}

NAMED = {
    "traces/text.py": "the bytes of text, into what the caller was given",
    "policies/livelog.py": "`policies.runlog.write_table`, which is given a claimed folder",
    "policies/runlog.py": "into the folder that the caller claimed",
    "cli/failures.py": "a report of a mistake of ours, under a new name",
    "backend/measured.py": "a line more of what was measured, in a file that it locks and knows by its mark",
    "tools/picture.py": "the picture of the README, which has its place",
    "tools/families.py": "a model that is saved to be loaded again, into a temporary folder",
    "tools/tiny_models/tiny_image.py": "a model that was trained, into a new folder",
    "tools/tiny_models/tiny_video.py": "a model that was trained, into a new folder",
    "tools/tiny_models/training.py": "a checkpoint of a training",
    "benchmarks/fidelity/study.py": "a part of a study, in its own folder",
    "examples/checkpoints.py": "models that are saved to be loaded again, into a new folder",
    "benchmarks/golden.py": "a trace in its own folder, which is new",
    "benchmarks/gpu_suite/store.py": "a line more of what failed, in its own folder",
    "benchmarks/serving/journal.py": "a line more of what was measured, in its own folder",
}


def writes(call: ast.Call) -> bool:
    """Whether a call writes a file, as far as its name says."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name == "open":
        texts = [
            node.value for node in ast.walk(call) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        return any(text and set(text) <= set("rwaxbt+") and set(text) & set("wax+") for text in texts)
    of_torch = isinstance(call.func, ast.Attribute) and getattr(call.func.value, "id", "") == "torch"
    return name in WRITES or (name == "save" and of_torch)


def names(tree: ast.AST) -> set[str]:
    """What is called in a function."""
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {getattr(call, "attr", getattr(call, "id", "")) for call in calls}


def unguarded(tree: ast.AST) -> Iterator[int]:
    """Lines of calls that write, of functions that nobody gave a path to."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    guarded = {id(node) for function in functions if names(function) & GIVEN_BY for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and writes(node) and id(node) not in guarded:
            yield node.lineno


def test_no_module_writes_files_by_itself() -> None:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            lines = list(unguarded(ast.parse(path.read_text(encoding="utf-8"))))
            if lines and name != "traces/output.py":
                found[name] = lines
    assert {name: lines for name, lines in found.items() if name not in NAMED} == {}
    assert sorted(NAMED) == sorted(found)  # none is named in vain


def test_a_writer_is_seen() -> None:
    def seen(text: str) -> bool:
        return bool(list(unguarded(ast.parse(text))))

    assert seen("def f(p):\n    p.write_text('')")
    assert seen("def f(p):\n    with open(p, 'ab') as file: pass")
    assert seen("def f(p):\n    with p.open('x', encoding='utf-8') as file: pass")
    assert not seen("def f(p):\n    with p.open('rb') as file: pass")
    assert not seen("def f(p):\n    with whole_file(p, K) as t:\n        t.write_text('')")
