"""A plan shown: in the terminal, as a page, as Markdown and as Parquet."""

from reports.plan.terminal import show_plan
from reports.plan.write import write_joint_plan, write_plan

__all__ = ["show_plan", "write_joint_plan", "write_plan"]
