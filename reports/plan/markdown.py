"""A plan as Markdown, for a pull request or a lab book."""

from __future__ import annotations

from reports.document import KeyFigure
from reports.markdown import line, text, told
from reports.plan import tables
from reports.plan.answer import headline, key_figures, notes, promise
from reports.plan.engines import as_engines_decide
from reports.plan.formatting import TRUST, subject, trust
from reports.plan.result import Plan
from reports.table import Table


def markdown(plan: Plan) -> str:
    """What must be known first, the answer, its figures, every table, remarks, and how to run it again."""
    first, last = told(notes(plan))
    lead, rest = headline(plan)
    parts = ["\n".join(first).strip(), f"# {text(lead)}", text(rest), text(promise(plan))]
    parts.append("\n".join(map(_key, key_figures(plan))))
    best = subject(plan)
    if best is not None:
        parts.append(f"Trust: {text(trust(plan, [best]))}")
    parts.append("\n".join(last).strip())
    shown = (
        tables.speeds(plan),
        tables.load_curve(plan),
        tables.what_if(plan),
        tables.considered(plan),
        tables.reasons(plan),
        tables.memory(plan),
        tables.refused(plan),
        tables.policies(plan),
        tables.growth(plan),
        tables.by_size(plan),
        tables.by_degree(plan),
        tables.engines(plan),
    )
    parts += [f"## {text(table.title)}\n\n{_table(table)}" for table in shown if table.rows]
    parts.append(text(as_engines_decide(plan)))
    parts.append("## Labels of trust\n\n" + "\n".join(f"- **{label}**: {meaning}" for label, meaning in TRUST.items()))
    if plan.command or plan.scenario:
        parts.append(f"## To run it again\n\n{_code(plan.command)}\n\n{_code(plan.scenario)}")
    return "\n\n".join(part for part in parts if part) + "\n"


def _key(figure: KeyFigure) -> str:
    hint = f" ({text(figure.hint)})" if figure.hint else ""
    return f"- {text(figure.label)}: **{text(figure.value)}**{hint}"


def _table(table: Table) -> str:
    rule = "|" + "".join("--:|" if kind == "number" else ":--|" for kind in table.kinds)
    rows = [
        "| " + " | ".join(f"**{text(cell)}**" if at in table.chosen and cell else text(cell) for cell in row) + " |"
        for at, row in enumerate(table.rows)
    ]
    return "\n".join([line(list(table.heads)), rule, *rows])


def _code(code: str) -> str:
    """An indented block, which no text can break out of."""
    return "\n".join(f"    {each}" for each in code.splitlines())
