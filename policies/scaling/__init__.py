"""Scaling policies, by the names the command line knows."""

from policies.scaling.contract import PoolView, ScalingPolicy
from policies.scaling.day_schedule import DaySchedule
from policies.scaling.fixed import Fixed
from policies.scaling.queue_length import QueueLength
from policies.scaling.slo import Slo
from policies.scaling.steady import Steady
from policies.scaling.utilisation import Utilisation

SCALINGS = {"fixed": Fixed, "schedule": DaySchedule, "utilisation": Utilisation, "queue": QueueLength, "slo": Slo}

__all__ = [
    "SCALINGS",
    "DaySchedule",
    "Fixed",
    "PoolView",
    "QueueLength",
    "ScalingPolicy",
    "Slo",
    "Steady",
    "Utilisation",
]
