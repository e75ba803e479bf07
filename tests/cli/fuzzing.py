"""Hostile values for every scenario key, field of a request and option, and what must hold whatever they are.

``python -m tests.cli.fuzzing 10000`` tries that many; a second number is the seed.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import typer.main

from cli.app import app
from cli.main import main
from tests.cli.run_command import own_signals
from tilecast.keys import fields_of, limits_of, scenario_keys
from tilecast.scenario import Scenario
from traces.limits import Range
from traces.request import LIMITS

SCENARIO = """model = "tiny-image"
[trace]
path = "trace.csv"
[predictor]
profile = "cpu-1core"
[slo]
scale = 5.0
"""
WEIGHTS = ("weights.memory_gb=10", "weights.weights_gb=4")
TRACE = "request_id,arrival_s,height,width,steps,prompt\n" + "".join(
    [f"r{n},{n / 4},{96 if n % 2 else 128},96,{2 + n % 3},a cat\n" for n in range(8)]
)
LIMIT_S = 20
CODES = (0, 2, 3)

NUMBERS = ("nan", "inf", "-inf", "-1", "0", "1", "2", "1.5", "1e300", "-1e300", "1e-300", "5e-324", "2147483647",
           "9223372036854775808", "18446744073709551616", "9" * 400, "1e400", "1_0", "0x10", "1e3")  # fmt: skip
TEXTS = ("", " ", "x", "-", "\0", "a\0b", "\x1b[2J\x1b]0;hi\x07", "a\nb", "\r", "é 日本 😀", "\ud800", "\u202eabc",
         "[bold]x[/nope]", "y" * 301, "y" * 5000, "..", "none", "1:2:3", "0:1e300:2", "0:20:1e7", "nan:0:1",
         "0:0:1:nan", "1@1x1", "1x1", "99999999999x2", "a.py:B", "missing.toml", "trace.csv", "cpu-1core", "native",
         "a=b", "a,b", "edf", "fcfs", "M0001:nan", "M1:1e400",
         "=", ":", "%s{0}", "true", "1", "-1", "512x512:1e999")  # fmt: skip
OTHERS = ("true", "[]", "[1]", "{}", "{a = 1}", "1979-05-27", '[["x"]]', "[nan]")


@dataclass(frozen=True)
class Case:
    """A command, and the files that it is given beside the usual ones."""

    arguments: list[str]
    files: dict[str, bytes]

    def __str__(self) -> str:
        return f"tilecast {' '.join([repr(word) for word in self.arguments])}  with {list(self.files)}"


def cases(count: int, seed: str) -> Iterator[Case]:
    """``count`` of them, the same for the same seed. A round of them, `ROUND`, tries every target once, in any order.

    A target is a key of the scenario, set or in a file; a field of a request in a format; an option of a command.
    """
    rng = random.Random(seed)
    order: list[tuple[Kind, Any]] = []
    for _ in range(count):
        order = order or rng.sample(TARGETS, ROUND)
        kind, target = order.pop()
        yield kind(rng, target)


def check(case: Case, folder: Path) -> str | None:
    """Run a case in a folder; what is wrong with how it ended, None: nothing."""
    for name in ("scenario.toml", "trace.csv"):
        shutil.copyfile(folder.parent / name, folder / name)
    for name, data in case.files.items():
        (folder / name).write_bytes(data)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, printed = run(case.arguments, folder)
    found = _wrong(code, printed, folder, before)
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return found and f"{case}\n{found}\n{printed[-1500:]}"


def run(arguments: list[str], folder: Path) -> tuple[object, str]:
    """``tilecast ARGUMENTS`` in this process and a folder: its exit code and what it printed."""
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict", write_through=True)
    here = Path.cwd()
    os.chdir(folder)
    signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    code: object = "no exit code"
    try:
        with (
            mock.patch.object(sys, "argv", ["tilecast", *arguments]),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
            own_signals(),
        ):
            main()
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException as error:
        code = f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.chdir(here)
    return code, printed.buffer.getvalue().decode("utf-8", "replace")  # type: ignore[attr-defined]


def _too_long(*_: object) -> None:
    raise RuntimeError(f"the case takes more than {LIMIT_S} s of the processor")


def _wrong(code: object, printed: str, folder: Path, before: dict[str, bytes]) -> str | None:
    if code not in CODES:
        return f"exit code {code}"
    if "Traceback (most recent call last)" in printed:
        return "a traceback"
    if any(ord(c) < 32 and c not in "\n\t" for c in printed):
        return f"control characters reach the terminal: {printed!r}"
    usage = "Usage:" in printed
    errors = [line for line in printed.splitlines() if line]
    if code == 2 and not usage and not (len(errors) == 1 and errors[0].startswith("error: ")):
        return "not one line"
    after = {path.name for path in folder.iterdir()}
    if hidden := [name for name in after - set(before) if name.startswith(".")]:
        return f"left behind: {hidden}"
    if code == 2 and after - set(before):
        return f"half-written: {after - set(before)}"
    for name, data in before.items():
        if not (folder / name).is_file() or (folder / name).read_bytes() != data:
            return f"{name} was changed"
    return None


def _keys(rng: random.Random, name: str) -> Case:
    """A key of the scenario, and often one or two others, set on the command line."""
    chosen = [name, *rng.sample(list(KEYS), rng.choice((0, 0, 1, 2)))]
    settings = [f"{name}={_toml_value(rng, name)}" for name in chosen if "[]" not in name]
    if any(name.startswith("weights.") for name in chosen):
        settings = [*WEIGHTS, *settings]
    words = ["simulate", "scenario.toml", "-o", "out"]
    for setting in settings:
        words += ["--set", setting]
    return Case(words, {})


def _key(rng: random.Random, name: str) -> Case:
    """A key of the scenario in one of the two ways."""
    return rng.choice((_keys, _scenario_text))(rng, name)


def _scenario_text(rng: random.Random, name: str) -> Case:
    """A key in a file of some encoding, in a policy's or a hardware kind's table, or a torn file."""
    section, _, key = name.replace("[]", "").rpartition(".")
    inner = f"[[{section}]]" if "[]" in name else f"[{section}]"
    value = _toml_value(rng, name)
    head = 'model = "tiny-image"\n' if section else ""
    more = f"\n{inner}\n{'name = 1' if rng.random() < 0.1 else ''}\n" if section else ""
    text = f"{head}{more}{key} = {value}\n"
    if section not in ("trace", "predictor"):
        text += '\n[trace]\npath = "trace.csv"\n[predictor]\nprofile = "cpu-1core"\n'
    data = text.encode(rng.choice(("utf-8", "utf-8-sig", "utf-16", "latin-1")), "replace")
    if rng.random() < 0.1:
        data = data[: rng.randrange(len(data))] + bytes(rng.randrange(256) for _ in range(3))
    given = ("--trace", "trace.csv", "--profile", "cpu-1core")
    verb = rng.choice((["simulate", "mine.toml", "-o", "out"], ["simulate", "mine.toml", "-o", "out", *given]))
    return Case(verb, {"mine.toml": data})


def _fields(rng: random.Random, target: tuple[str, str]) -> Case:
    """A cell of a trace in a format, taken by some command."""
    name, kind = target
    frame = pd.read_csv(io.StringIO(TRACE)).astype(object)
    limit = LIMITS.get(name)
    value: Any = rng.choice([*NUMBERS, *TEXTS])
    if isinstance(limit, Range) and rng.random() < 0.5:
        value = rng.choice((limit.least, limit.most, limit.most * 2, limit.least - 1))
    frame[name] = frame.get(name)
    frame.loc[rng.randrange(len(frame)), name] = value
    data = _table(frame, kind)
    if data is None:
        kind, data = "csv", _table(frame, "csv")
    assert data is not None
    if rng.random() < 0.05:
        data = data[: rng.randrange(len(data))]
    file = f"mine.{kind}"
    commands = (
        ["trace", "describe", file],
        ["trace", "transform", file, "-o", f"out.{rng.choice(('csv', 'jsonl', 'parquet'))}"],
        ["trace", "import", "table", file, "-o", "out.csv"],
        ["trace", "fit", file, "-o", "out.toml"],
        ["simulate", "scenario.toml", "--trace", file, "-o", "out"],
    )
    return Case(rng.choice(commands), {file: data})


def _options(rng: random.Random, target: tuple[str, Any]) -> Case:
    """An option or argument of a command; the others are right, but for models that are not there."""
    verb, parameter = target
    base = list(BASES.get(verb, ()))
    value = rng.choice((*NUMBERS, *TEXTS))
    if parameter.param_type_name == "argument":
        at = next((at for at, word in enumerate(base) if not word.startswith("-")), len(base))
        base[at : at + 1] = [value]
    elif parameter.is_flag:
        base.append(parameter.opts[0])
    elif "--output" in parameter.opts and value.strip(". ") == "":
        base += [parameter.opts[0], "out"]  # the folder itself, or one above it
    else:
        base += [parameter.opts[0], value]
    return Case([*verb.split(), *base], {})


def _toml_value(rng: random.Random, name: str) -> str:
    limits = [limit for limit in limits_of(KEYS[name]) if isinstance(limit, Range)]
    takes = TAKES[name]
    drawn = rng.random()
    if limits and drawn < 0.4:
        limit = rng.choice(limits)
        if limit.most > 5000 and limit.whole:
            return repr(rng.choice((limit.least, limit.most + 1, limit.least - 1)))
        return repr(rng.choice((limit.least, limit.most, limit.most * 2 + 1, limit.least - 1)))
    if drawn < 0.6:
        return rng.choice(NUMBERS)
    if drawn < 0.7:
        return rng.choice(OTHERS)
    choices = [*TEXTS, *(takes.split(", ") if "," in takes else [])]
    text = json.dumps(rng.choice(choices), ensure_ascii=rng.random() < 0.5)
    return f"[{text}]" if takes.startswith("list") and rng.random() < 0.7 else text


def _table(frame: pd.DataFrame, kind: str) -> bytes | None:
    if kind == "parquet":
        buffer = io.BytesIO()
        try:
            frame.convert_dtypes().to_parquet(buffer, index=False)
        except Exception:
            return None
        return buffer.getvalue()
    records = frame.astype(object).where(frame.notna(), None).to_dict(orient="records")
    if kind == "jsonl":
        return "".join([json.dumps(record) + "\n" for record in records]).encode()
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(frame.columns)
    writer.writerows([["" if value is None else value for value in record.values()] for record in records])
    return text.getvalue().encode("utf-8", "surrogatepass")


def _walk(command: Any, path: str = "") -> Iterator[tuple[str, list[Any]]]:
    inner = getattr(command, "commands", {})
    if path and (not inner or path == "profile"):
        yield path, [parameter for parameter in command.params if "--help" not in parameter.opts]
    for name, each in inner.items():
        yield from _walk(each, f"{path} {name}".strip())


COMMANDS = {verb: parameters for verb, parameters in _walk(typer.main.get_command(app)) if parameters}
KEYS = dict(fields_of(Scenario))
TAKES = {key.name: key.takes for key in scenario_keys()}
_MISSING = ("--model", "no-such-model")
BASES: dict[str, tuple[str, ...]] = {
    "simulate": ("scenario.toml", "-o", "out"),
    "plan": ("scenario.toml", "--trace", "none.csv", "-o", "out"),
    "sweep": ("scenario.toml", "--grid", "none.toml", "-o", "out"),
    "replay": ("scenario.toml", "--set", "model='no-such-model'", "-o", "out"),
    "validate": ("trace.csv", "none"),
    "report": ("none",),
    "compare": ("none", "none"),
    "examples": ("-o", "out"),
    "quality": ("none",),
    "trace generate": ("--rate", "1", "--duration", "9", "--sizes", "96x96", "-o", "out.csv"),
    "trace describe": ("trace.csv",),
    "trace fit": ("trace.csv", "-o", "out.toml"),
    "trace transform": ("trace.csv", "-o", "out.csv"),
    "trace import gentd26": ("trace.csv", "-o", "out.csv", "--sizes", "96x96"),
    "trace import mixfusion": ("trace.csv", "-o", "out.csv"),
    "trace import dit": ("trace.csv", "-o", "out.csv"),
    "trace import table": ("trace.csv", "-o", "out.csv"),
    "profile": (*_MISSING, "-o", "out.parquet"),
    "profile describe": ("none.parquet",),
    "profile import": ("none.csv", "-o", "out.parquet"),
    "hardware show": ("h100-sxm",),
    "hardware check": ("--published", "none.csv"),
    "hardware estimate": ("--model", "sdxl", "--hardware", "h100-sxm", "--sizes", "512x512"),
    "cache record": (*_MISSING, "--sizes", "96x96", "-o", "out.parquet"),
    "cache fit": ("none.parquet", "-o", "out.parquet"),
    "cache describe": ("none.parquet",),
    "cache record-tiles": (*_MISSING, "--sizes", "96x96", "-o", "out.parquet"),
    "cache calibrate": (*_MISSING, "--size", "96x96"),
    "scenario keys": (),
    "scenario init": ("out.toml", "--model", "tiny-image"),
    "scenario check": ("scenario.toml",),
    "check": ("fcfs",),
    "why": ("none",),
    "ask": ("--users", "2", *_MISSING),
}
Kind = Callable[[random.Random, Any], Case]
TARGETS: list[tuple[Kind, Any]] = [
    *[(_key, name) for name in KEYS],
    *[(_fields, (name, kind)) for name in (*LIMITS, "seed") for kind in ("csv", "jsonl", "parquet")],
    *[(_options, (verb, parameter)) for verb, parameters in COMMANDS.items() for parameter in parameters],
]
ROUND = len(TARGETS)


def prepared(folder: Path) -> Path:
    """A folder for `check`, with what it copies beside it."""
    (folder / "scenario.toml").write_text(SCENARIO, encoding="utf-8")
    (folder / "trace.csv").write_text(TRACE, encoding="utf-8")
    (folder / "case").mkdir()
    with contextlib.suppress(ImportError):  # which takes long, and cannot be interrupted in the middle
        importlib.import_module("backend.profiling")
        importlib.import_module("backend.loading")
    return folder / "case"


def tried(given: Iterable[Case], folder: Path) -> Iterator[str]:
    """What is wrong with these cases."""
    inside = prepared(folder)
    for case in given:
        found = check(case, inside)
        if found is not None:
            yield found


if __name__ == "__main__":
    asked, chosen = int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "0"
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        faults = 0
        for text in tried(cases(asked, chosen), Path(temporary)):
            faults += 1
            print(f"--- {text}", flush=True)
    print(f"{asked} cases, {faults} wrong, {time.perf_counter() - started:.0f} s")
    sys.exit(bool(faults))
