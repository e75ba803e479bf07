"""A plan in a terminal."""

from __future__ import annotations

from rich.box import SIMPLE
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from reports.console import new_console
from reports.plan import tables
from reports.plan.answer import headline, notes, promise
from reports.plan.engines import as_engines_decide
from reports.plan.joint import JointPlan
from reports.plan.result import Plan
from reports.table import Table
from reports.terminal import headed, told


def show_plan(plan: Plan, console: Console | None = None) -> None:
    """Print what must be known first, the answer, the clusters that were considered, what if, and remarks."""
    asked = (tables.speeds, tables.considered, tables.what_if, tables.policies, tables.growth)
    shown = [of(plan) for of in (*asked, tables.by_degree_alone, tables.engines)]
    first, last = told(notes(plan))
    lead, rest = headline(plan)
    parts: list[RenderableType] = [*first, Text(lead, style="bold"), Text(f"{rest} {promise(plan)}".strip())]
    parts += [_table(table.narrow()) for table in shown if table.rows]
    parts += [Text(sentence) for sentence in [as_engines_decide(plan)] if sentence]
    parts += last
    (console or new_console()).print(Group(*parts))


def show_joint_plan(plan: JointPlan, console: Console | None = None) -> None:
    """Print the answer, the clusters about it, and what was not simulated."""
    width, rows = plan.narrow, plan.rows()
    shown = headed(f"Clusters about it, {plan.order}", plan.heads[:width], [True] * width)
    shown.box, shown.padding, shown.show_edge = SIMPLE, (0, 1, 0, 0), False
    for at in plan.nearest():
        shown.add_row(*map(Text, rows[at][:width]), style="bold" if plan.considered[at] == plan.answer else "")
    trust = Text(f"Trust: {plan.trust}. {plan.caution}".strip())
    parts: list[RenderableType] = [Text(plan.sentence, style="bold"), trust, shown]
    (console or new_console()).print(Group(*parts, *map(Text, plan.refused)))


def _table(table: Table) -> RenderableType:
    right = [kind == "number" for kind in table.kinds]
    drawn = headed(table.title, list(table.heads), right)
    drawn.box, drawn.padding, drawn.show_edge = SIMPLE, (0, 1, 0, 0), False  # all columns within 80 characters
    for column, number in zip(drawn.columns, right, strict=True):
        column.no_wrap = number
    for at, row in enumerate(table.rows):
        drawn.add_row(*map(Text, row), style="bold" if at in table.chosen else "")
    return Padding(drawn, (1, 0))
