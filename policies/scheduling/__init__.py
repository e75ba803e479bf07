"""Scheduling policies, by the names the command line knows."""

from policies.scheduling.best_fit import BestFit, LoadAdaptive
from policies.scheduling.clockwork import Clockwork
from policies.scheduling.fcfs import FCFS
from policies.scheduling.lookahead import Lookahead
from policies.scheduling.mixed_fcfs import MixedFCFS
from policies.scheduling.nirvana import Nirvana
from policies.scheduling.patchedserve import PatchedServe, PatchedServeJoins
from policies.scheduling.rounds import Rounds
from policies.scheduling.same_size import SameSizeContinuous, SameSizeDynamic
from policies.scheduling.tetriserve import TetriServe
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
    "clockwork": Clockwork,
    "rounds": Rounds,
    "best-fit": BestFit,
    "load-adaptive": LoadAdaptive,
    "tetriserve": TetriServe,
    "lookahead": Lookahead,
}

__all__ = [
    "EDF",
    "FCFS",
    "SCHEDULERS",
    "SRPT",
    "BestFit",
    "Clockwork",
    "LeastSlack",
    "LoadAdaptive",
    "Lookahead",
    "MixedFCFS",
    "Nirvana",
    "PatchedServe",
    "PatchedServeJoins",
    "Rounds",
    "SameSizeContinuous",
    "SameSizeDynamic",
    "TetriServe",
    "UrgencyPolicy",
]
