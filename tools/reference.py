"""Writes the pages of ``docs/reference/`` that are made of the code: what stands on its fields, columns and options.

    python -m tools.reference

A test holds the committed pages to what this makes.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tilecast
from policies.load import BASES, KINDS
from policies.runlog import LAUNCHES, REQUESTS
from predictors.profile import DEFAULTS as PROFILE_DEFAULTS
from predictors.profile import MEASUREMENTS
from reports.figures import FIGURES, READING
from tilecast.keys import Key, as_toml, limits_in, scenario_keys, section_in, spelled, takes
from tilecast.scenario import Scenario
from traces.columns import DEFAULTS, FIELDS, REQUIRED
from traces.request import LIMITS
from traces.table_columns import TableColumn

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
MADE = "<!-- Made by `python -m tools.reference`: not to be written by hand. -->\n\n"
KIND_WORDS = {"float64": "number", "int32": "whole number", "int64": "whole number", "bool": "true or false"}
KEYS_OF_KINDS = {
    "scheduling": "policies.scheduling",
    "routing": "policies.routing",
    "caching": "policies.caching` and `policies.tile_caching",
    "placement": "policies.placement",
    "weights": "policies.weights",
    "scaling": "policies.scaling",
}


EXIT_CODES = (
    ("0", "Done."),
    ("2", "The input, the policy or the machine will not do; one line says what, where, and what would be right."),
    (
        "3",
        "Done, and the answer is no, or not known: nothing finished, a simulation is not faithful or too short to "
        "tell, no cluster keeps the promise, points of a sweep failed.",
    ),
    ("70", "A mistake of Tilecast's own; its traceback is in the file that the line names."),
    ("128 + n", "Ended by signal n."),
)


class Parameter(NamedTuple):
    """A parameter of a policy, as its class declares and describes it."""

    name: str
    takes: str
    default: str
    limits: str
    meaning: str


def scenario_page() -> str:
    """Every key of a scenario, by section."""
    by_section: dict[str, list[Key]] = {}
    for key in scenario_keys():
        by_section.setdefault(key.name.rpartition(".")[0], []).append(key)
    lines = [
        "# Scenario keys",
        "",
        "A scenario is one TOML file (or `tc.Scenario` in Python) that every verb takes. The command line sets any key "
        "of it: `--set cluster.replicas=4`; of a list of tables the one with a name: `--set pool.clips.replicas=4`. "
        "Paths are relative to the file. `tilecast scenario keys SECTION` prints these tables.",
        "",
        f"{sum(map(len, by_section.values()))} keys. Policies have parameters of their own: [policies](policies.md).",
    ]
    for section, keys in by_section.items():
        lines += ["", f"## {_section_heading(section)}", ""]
        if said := _section_words(section):
            lines += [said, ""]
        heads = ("key", "takes", "default", "limits", "meaning")
        rows = [(_code(k.name), k.takes, _code(k.default), k.limits, k.meaning) for k in keys]
        lines += _table(heads, rows)
    return "\n".join(lines)


def policies_page() -> str:
    """Every policy that ships, by kind, with its parameters."""
    lines = [
        "# Policies",
        "",
        "A scenario names one policy of each kind: a name, a table with its parameters, or a class of your own.",
        "",
        "```toml",
        "[policies]",
        'routing = "least-work"                       # a name',
        'scheduling = { name = "lookahead", max_batch = 8 }',
        'caching = "my_policy.py:MyCache"             # a class in a file beside the scenario',
        "```",
        "",
        "On the command line: `--set policies.scheduling.max_batch=8`. What each kind is asked and may answer says "
        "`policies/<kind>/contract.py` (of scheduling `policies/contract.py`); "
        "[how to write one](../guides/write-a-scheduler.md).",
    ]
    for kind, known in KINDS.items():
        words = _plain(inspect.getdoc(BASES[kind]) or "").split("\n\n")[0]
        lines += ["", f"## {kind.capitalize()}", "", f"Key: `{KEYS_OF_KINDS[kind]}`. {words}"]
        for name, cls in known.items():
            said, found = described(cls)
            lines += ["", f"### {name}", "", said]
            if found:
                rows = [(_code(p.name), p.takes, _code(p.default), p.limits, p.meaning) for p in found]
                lines += ["", *_table(("parameter", "takes", "default", "limits", "meaning"), rows)]
    return "\n".join(lines)


def trace_page() -> str:
    """The columns of a trace."""
    rows = []
    for name, column in FIELDS.items():
        default = "required" if name in REQUIRED else _code(as_toml(DEFAULTS[name])) if name in DEFAULTS else ""
        limit = LIMITS.get(name)
        limits = "" if limit is None else str(limit).removeprefix("a whole number ").removeprefix("a number ")
        rows.append((_code(name), _kind(column), default, limits.removeprefix("of "), column.meaning))
    return "\n".join(
        [
            "# Trace columns",
            "",
            "A trace is a table with a row for each request: CSV or JSON lines (packed or not), or Parquet. Four "
            "columns are required. Columns of other names stay as they are and have no effect; a run names those that "
            "look as if they should. `tilecast trace import table` takes tables with other names; what requests say to "
            "a pipeline, and what that costs: [requests](../guides/requests.md).",
            "",
            *_table(("column", "takes", "default", "limits", "meaning"), rows),
        ]
    )


def run_log_page() -> str:
    """The files of a run and their columns."""
    heads = ("column", "holds", "meaning")
    return "\n".join(
        [
            "# Run log",
            "",
            "What `simulate` and `replay` leave behind is a folder of the same files, and reports read nothing else:",
            "",
            "- `requests.parquet`: a row for each request of the trace, in its order;",
            "- `steps.parquet`: a row for each launch and each stage that it went through;",
            "- `run.json`: scenario, seed, versions, hardware, notes; where replicas come and go, their lifetimes;",
            "- of a replay also `events.jsonl`, what the controller was told and answered, and what it was given, "
            "`trace.parquet` and `profile.parquet`; with `--save-images` the folder `images`.",
            "",
            "Times are seconds on the trace's clock. The same seed gives a simulation's log to the byte.",
            "",
            "## requests.parquet",
            "",
            *_table(heads, [(_code(name), _kind(column), column.meaning) for name, column in REQUESTS.items()]),
            "",
            "## steps.parquet",
            "",
            *_table(heads, [(_code(name), _kind(column), column.meaning) for name, column in LAUNCHES.items()]),
        ]
    )


def profile_page() -> str:
    """The columns of a profile."""
    rows = []
    for name, column in MEASUREMENTS.items():
        default = _code(as_toml(PROFILE_DEFAULTS[name])) if name in PROFILE_DEFAULTS else "required"
        rows.append((_code(name), _kind(column), default, column.meaning))
    return "\n".join(
        [
            "# Profile schema",
            "",
            "A profile is one Parquet file: what was measured on one kind of hardware, a row for each measurement of "
            "one batch. `tilecast profile` measures one, `tilecast profile import` makes one of what others measured, "
            "`tilecast profile describe` says what one holds and how well latency models predict it. Nothing in it is "
            "ever unpickled. Columns of a later version are left out, and named.",
            "",
            *_table(("column", "holds", "default", "meaning"), rows),
        ]
    )


def figures_page() -> str:
    """The figures of a run."""
    units = {"": "count", "x": "ratio", "%": "share"}
    rows = [(_code(name), each.label, units.get(each.unit, each.unit)) for name, each in FIGURES.items()]
    return "\n".join(
        [
            "# Figures",
            "",
            "`run.summary()`, `report`, `sweep`, `plan` and `validate` ask for the same figures, each of which is "
            "defined once, in `reports/figures.py`. Shares are fractions of 1 in files.",
            "",
            READING,
            "",
            *_table(("name in files", "in reports", "unit"), rows),
        ]
    )


def verbs_page() -> str:
    """Every command with its arguments and options."""
    import typer.main

    from cli.app import app

    lines = [
        "# Verbs",
        "",
        "`tilecast VERB --help` prints these. Exit codes of all:",
        "",
        *_table(("exit code", "means"), EXIT_CODES),
    ]
    for name, command in _commands(typer.main.get_command(app), "tilecast"):
        lines += ["", f"## {name}", "", _plain(inspect.cleandoc(command.help or ""))]
        limits = _limits_of(command)
        rows = []
        for parameter in command.params:
            if parameter.name == "help" or getattr(parameter, "hidden", False):
                continue
            rows.append(
                (
                    _spelling(parameter),
                    "required" if parameter.required else _code(_default(parameter)),
                    limits.get(parameter.name or "", ""),
                    _plain(parameter.help or ""),
                )
            )
        if rows:
            lines += ["", *_table(("option", "default", "limits", "meaning"), rows)]
    return "\n".join(lines)


def python_page() -> str:
    """What a user's code imports."""
    lines = [
        "# In Python",
        "",
        "`import tilecast as tc` is the only name that code needs. Errors of the input are `tc.BadInput`, of a policy "
        "`tc.PolicyError`. The whole contract of a class stands in its docstring: `help(tc.Scenario)`.",
        "",
    ]
    rows = []
    for name in tilecast.__all__:
        found = getattr(tilecast, name)
        first = _plain(inspect.getdoc(found) or "").split("\n\n")[0]
        call = f"tc.{name}{_arguments(found)}" if inspect.isfunction(found) else f"tc.{name}"
        rows.append((_code(call), first))
    return "\n".join([*lines, *_table(("name", "what it is"), rows)])


PAGES: dict[str, Callable[[], str]] = {
    "scenario.md": scenario_page,
    "policies.md": policies_page,
    "trace.md": trace_page,
    "run-log.md": run_log_page,
    "profile.md": profile_page,
    "figures.md": figures_page,
    "verbs.md": verbs_page,
    "python.md": python_page,
}


def made(name: str) -> str:
    """The text of a page."""
    return MADE + PAGES[name]().rstrip() + "\n"


def described(cls: type) -> tuple[str, list[Parameter]]:
    """What the docstring of a policy says of it, and its parameters with what it or a base says of each."""
    said, meanings = _docstring(cls)
    own = [p for p in inspect.signature(cls).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    types = typing.get_type_hints(cls.__init__, include_extras=True) if own else {}  # type: ignore[misc]
    found = []
    for each in own:
        wanted = types.get(each.name, str)
        default = "required" if each.default is each.empty else as_toml(each.default)
        meaning = meanings.get(each.name, "")
        found.append(Parameter(each.name, takes(wanted), default, spelled(limits_in(wanted)), meaning))
    return said, found


def _docstring(cls: type) -> tuple[str, dict[str, str]]:
    """What a class says of itself, and of each parameter; of those it only refers to, what its bases say."""
    said = ""
    meanings: dict[str, str] = {}
    for base in cls.__mro__:
        if not (own := base.__dict__.get("__doc__")) or base is object:
            continue
        text = inspect.cleandoc(own)
        head, *rest = re.split(r"\n(?=(?:Args|Attributes|Raises|Returns):\n)", "\n" + text)
        said = said or _plain(head.strip())
        for part in rest:
            if part.startswith("Args:\n"):
                for names, meaning in _entries(part.partition("\n")[2]):
                    for name in names:
                        if not meaning.startswith("see `"):
                            meanings.setdefault(name, meaning[:1].upper() + _plain(meaning)[1:])
    return said, meanings


def _entries(text: str) -> Iterator[tuple[list[str], str]]:
    """(names, description) of each entry of a docstring's section."""
    for entry in re.split(r"\n(?=\S)", textwrap.dedent(text).strip()):
        names, _, meaning = entry.partition(":")
        yield [name.strip() for name in names.split(",")], " ".join(meaning.split())


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """All commands, groups that do something without a verb among them."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    if getattr(command, "invoke_without_command", False) and len(command.params) > 1:
        yield name, command
    for verb, each in command.commands.items():
        if not each.hidden:
            yield from _commands(each, f"{name} {verb}")


def _limits_of(command: Any) -> dict[str, str]:
    """The limits of a command's numbers, by parameter."""
    hints = typing.get_type_hints(inspect.unwrap(command.callback), include_extras=True) if command.callback else {}
    return {name: spelled(limits_in(hint)) for name, hint in hints.items()}


def _spelling(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return _code(parameter.metavar or (parameter.name or "").upper())
    names = sorted([*parameter.opts, *parameter.secondary_opts], key=lambda name: (not name.startswith("--"), name))
    return ", ".join(map(_code, names))


def _default(parameter: Any) -> str:
    value = parameter.default
    if value is None or callable(value) or value == () or repr(value) == "Sentinel.UNSET":
        return ""
    return as_toml(value) if isinstance(value, bool | int | float) else str(value)


def _arguments(function: Callable[..., Any]) -> str:
    names = []
    for each in inspect.signature(function).parameters.values():
        names.append(each.name if each.default is each.empty else f"{each.name}=...")
    return f"({', '.join(names)})"


def _section_heading(section: str) -> str:
    if not section:
        return "Top of the file"
    return f"[[{section.removesuffix('[]')}]]" if section.endswith("[]") else f"[{section}]"


def _section_words(section: str) -> str:
    """What the class of a section says of itself."""
    found: Any = Scenario
    for name in section.replace("[]", "").split("."):
        if name:
            found = section_in(found.model_fields[name].annotation)
    said = _plain(inspect.getdoc(found) or "")
    return "" if found is Scenario else said


def _kind(column: TableColumn) -> str:
    return KIND_WORDS.get(column.dtype, "list of text" if column.dtype == "object" else "text")


def _plain(text: str) -> str:
    """A docstring as Markdown."""
    return re.sub(r"(?<=\S)[ \t]*\n(?!\n)[ \t]*(?=\S)", " ", text.replace("``", "`").replace("\b", "")).strip()


def _code(text: str) -> str:
    return f"`{text}`" if text and text != "required" else text


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table; columns that say nothing are left out."""
    filled = list(rows)
    kept = [at for at in range(len(heads)) if any(row[at] for row in filled)]
    cells = [[heads[at] for at in kept], ["---"] * len(kept)]
    cells += [[row[at].replace("|", "\\|").replace("\n", " ") for at in kept] for row in filled]
    return ["| " + " | ".join(row) + " |" for row in cells]


def write(folder: Path, pages: Mapping[str, Callable[[], str]] = PAGES) -> list[Path]:
    """Write all pages that differ from what stands there; where they lie."""
    written = []
    folder.mkdir(parents=True, exist_ok=True)
    for name in pages:
        path, text = folder / name, made(name)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            written.append(path)
    return written


if __name__ == "__main__":
    for path in write(FOLDER):
        print(f"wrote {path}", file=sys.stderr)
