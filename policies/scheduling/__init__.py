"""Scheduling policies, by the names the command line knows."""

from policies.scheduling.fcfs import FCFS
from policies.scheduling.mixed_fcfs import MixedFCFS
from policies.scheduling.nirvana import Nirvana
from policies.scheduling.patchedserve import PatchedServe, PatchedServeJoins
from policies.scheduling.same_size import SameSizeContinuous, SameSizeDynamic
from policies.scheduling.urgency import EDF, SRPT, LeastSlack, UrgencyPolicy

SCHEDULERS = {
    "fcfs": FCFS,
    "same-size-dynamic": SameSizeDynamic,
    "same-size-continuous": SameSizeContinuous,
    "edf": EDF,
    "srpt": SRPT,
    "least-slack": LeastSlack,
    "mixed-fcfs": MixedFCFS,
    "nirvana": Nirvana,
    "patchedserve": PatchedServe,
    "patchedserve-joins": PatchedServeJoins,
}

__all__ = [
    "EDF",
    "FCFS",
    "SCHEDULERS",
    "SRPT",
    "LeastSlack",
    "MixedFCFS",
    "Nirvana",
    "PatchedServe",
    "PatchedServeJoins",
    "SameSizeContinuous",
    "SameSizeDynamic",
    "UrgencyPolicy",
]
