"""Scheduling policies, by the names the command line knows."""

from policies.scheduling.fcfs import FCFS
from policies.scheduling.same_size import SameSizeContinuous, SameSizeDynamic
from policies.scheduling.urgency import EDF, SRPT, LeastSlack, UrgencyPolicy

SCHEDULERS = {
    "fcfs": FCFS,
    "same-size-dynamic": SameSizeDynamic,
    "same-size-continuous": SameSizeContinuous,
    "edf": EDF,
    "srpt": SRPT,
    "least-slack": LeastSlack,
}

__all__ = [
    "EDF",
    "FCFS",
    "SCHEDULERS",
    "SRPT",
    "LeastSlack",
    "SameSizeContinuous",
    "SameSizeDynamic",
    "UrgencyPolicy",
]
