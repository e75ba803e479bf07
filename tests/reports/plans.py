"""Plans as a planner makes them, and the odd ones: for tests of how they are shown."""

from __future__ import annotations

import math
from dataclasses import replace

from predictors.basis import CALIBRATED, ESTIMATED, MEASURED
from reports.output_analysis import Interval
from reports.plan.joint import JointEvaluation, JointPlan
from reports.plan.result import (
    NEAR_KNEE,
    STABLE,
    UNSTABLE,
    Candidate,
    Demand,
    Evaluation,
    Figures,
    Memory,
    Month,
    Plan,
    PolicyCost,
    PossibleSpeed,
    Refused,
    SizeFigures,
    WhatIf,
    Window,
)
from traces.notes import Note

RATE_RPS = 0.22
UNKNOWN = Interval(math.nan, math.nan, 0)
PRICES = {"h100-sxm": 2.99, "a100-80gb": 1.89, "l40s": 1.05, "b200": math.nan}
"""An hour of one device."""

CAPACITY_RPS = {"h100-sxm": 0.097, "a100-80gb": 0.051, "l40s": 0.028, "b200": 0.21}
"""Requests a second that one device of these examples carries."""

LABELS = {"h100-sxm": MEASURED, "a100-80gb": CALIBRATED, "l40s": ESTIMATED, "b200": ESTIMATED}


def interval(mean: float, half_width: float = 0.006, replications: int = 5) -> Interval:
    return Interval(mean, half_width, replications)


def attained(load: float) -> float:
    """A share of deadlines kept that falls off a knee near a load of 0.85."""
    return max(0.0, 0.998 / (1 + math.exp(22 * (load - 1.02))))


def figures(load: float, rate_scale: float = 1.0, half_width: float = 0.006) -> Figures:
    """Of a cluster at a load (demand over what it carries)."""
    kept = attained(load)
    slow = 1 / max(0.06, 1 - 0.9 * load)
    return Figures(
        rate_scale=rate_scale,
        rate_rps=RATE_RPS * rate_scale,
        attainment=interval(kept, half_width * (1 + 24 * kept * (1 - kept))),
        latency_p50_s=interval(7.1 + 0.6 * slow, 0.2),
        latency_p95_s=interval(14.0 + 2.2 * slow, 0.9),
        latency_p99_s=interval(19.5 + 4.4 * slow, 2.4),
        goodput_rps=interval(RATE_RPS * rate_scale * kept, 0.002),
        images_per_s=interval(RATE_RPS * rate_scale * 1.3, 0.003),
        utilisation=interval(min(1.0, 0.04 + 0.9 * load), 0.012),
        batch=interval(1 + 3 * load, 0.1),
        dropped=interval(0.5 * (1 - kept), 0.002),
        requests=3_700,
        warm_up_s=812.5,
    )


def keeps(of: Figures) -> bool | None:
    """Whether 95 % are kept, if the interval decides it."""
    kept = of.attainment
    return None if kept.low < 0.95 <= kept.high else kept.low >= 0.95


def what_if(what: str, load: float, rate_scale: float = 1.0) -> WhatIf:
    of = figures(load, rate_scale)
    return WhatIf(what, of, keeps(of))


def evaluation(hardware: str, replicas: int, devices: int = 1, scheduler: str = "lookahead") -> Evaluation:
    """Of a cluster under the demand."""
    better = {"lookahead": 1.0, "patchedserve": 0.86, "fcfs": 0.61, "nirvana": 0.5}[scheduler]
    load = RATE_RPS / (CAPACITY_RPS[hardware] * replicas * devices * better)
    state = STABLE if load < 0.85 else NEAR_KNEE if load < 1 else UNSTABLE
    price = PRICES[hardware] * replicas * devices
    return Evaluation(
        candidate=Candidate(hardware, devices, replicas, scheduler),
        label=LABELS[hardware],
        state=state,
        reason="" if state == STABLE else "compute" if hardware != "l40s" else "batch cap",
        detail=f"Devices are busy {100 * min(1, load):.0f} % of the time, {1 + 3 * load:.1f} requests a batch.",
        keeps=keeps(figures(load)),
        figures=figures(load),
        load=load,
        price_per_hour=price,
        cost_per_1000_images=price / (RATE_RPS * 1.3 * 3.6),
        extrapolated=0.034 if hardware == "h100-sxm" else 0.0,
        memory=Memory(31.2e9, 80e9, 9, ESTIMATED) if hardware != "b200" else None,
    )


def uncertain(replicas: tuple[int | None, ...] = (3, 4, 4, 4, 5), speeds_if_measured: int = 1) -> Plan:
    """A plan whose answer rests on a data sheet: the replicas that each of five speeds takes, the fastest first."""
    best = evaluation("a100-80gb", 4)
    speeds = [
        PossibleSpeed(quantile, slowdown, None if count is None else evaluation("a100-80gb", count))
        for quantile, slowdown, count in zip(
            (0.1, 0.3, 0.5, 0.7, 0.9), (0.72, 0.87, 1.0, 1.15, 1.39), replicas, strict=True
        )
    ]
    best = replace(best, label=ESTIMATED, keeps=True)
    made = plan()
    considered = tuple([best if row.candidate == best.candidate else row for row in made.considered])
    return replace(
        made, answer=best, considered=considered, speeds=tuple(speeds), speeds_if_measured=speeds_if_measured
    )


def plan() -> Plan:
    """A whole one: four kinds of hardware, three policies, every state, prices that are not known."""
    tried = [
        evaluation("h100-sxm", 3),
        *(evaluation("h100-sxm", replicas) for replicas in (1, 2, 4)),
        *(evaluation("h100-sxm", replicas, scheduler="fcfs") for replicas in (4, 5)),
        *(evaluation("h100-sxm", replicas, scheduler="patchedserve") for replicas in (3, 4)),
        *(evaluation("h100-sxm", replicas, devices=2) for replicas in (1, 2)),
        *(evaluation("a100-80gb", replicas) for replicas in (4, 5, 6)),
        *(evaluation("l40s", replicas) for replicas in (7, 8, 9, 11)),
        evaluation("b200", 1),
        evaluation("b200", 2),
    ]
    best = tried[0]
    load = best.load
    scales = (0.5, 0.7, 0.85, 1.0, 1.1, 1.2, 1.3, 1.5)
    names = ("512x512", "768x768", "512x768", "1024x1024", "768x1024", "1536x1536")
    return Plan(
        attainment=0.95,
        slo="5 times a request's latency alone",
        confidence=0.95,
        demand=Demand(
            source="gentd26.parquet",
            model="sdxl",
            rate_rps=RATE_RPS,
            images_per_request=1.3,
            sizes=tuple(zip(names, (0.41, 0.2, 0.16, 0.13, 0.07, 0.03), strict=True)),
            how="Each replication draws whole days of the trace, with replacement; the rate is scaled by 20.",
        ),
        answer=best,
        considered=tuple(sorted(tried, key=lambda row: (math.isnan(row.price_per_hour), row.price_per_hour))),
        refused=(
            Refused("l40s", 2, "lookahead", "Cannot be cheaper than 3 × h100-sxm: at best 10.50 an hour."),
            Refused("rtx-4090", 1, "lookahead", "The model does not fit: 31.2 of 24 GB at a batch of one."),
        ),
        load_curve=tuple(what_if(f"{scale:g} times the load", load * scale, scale) for scale in scales),
        headroom=interval(1.18, 0.02),
        lost_replica=what_if("one replica less", load * 1.5),
        sensitivity=(
            what_if("20 % more load", load * 1.2, 1.2),
            what_if("20 % less load", load * 0.8, 0.8),
            what_if("steps take 10 % longer", load * 1.1),
            what_if("steps take 10 % less", load * 0.9),
            what_if("predictions 20 % too high", load * 1.01),
            what_if("predictions 20 % too low", load * 1.02),
        ),
        growth=tuple(
            Month(month, 1.1**month, None if month > 10 else evaluation("h100-sxm", math.ceil(2.6 * 1.1**month)))
            for month in range(13)
        ),
        policies=(
            PolicyCost("lookahead", best),
            PolicyCost("patchedserve", evaluation("h100-sxm", 4, scheduler="patchedserve")),
            PolicyCost("fcfs", evaluation("h100-sxm", 5, scheduler="fcfs")),
            PolicyCost("nirvana", evaluation("h100-sxm", 2, scheduler="nirvana")),
        ),
        by_size=tuple(
            SizeFigures(name, 9_000 // (at + 1), 0.99 - 0.01 * at, tuple((2 + 3 * at) * q for q in _SPREAD))
            for at, name in enumerate(names)
        ),
        over_time=tuple(_window(at) for at in range(72)),
        notes=(Note("Prices are examples from the catalogue; give your own with [plan] hardware."),),
        scenario='model = "sdxl"\n\n[trace]\npath = "gentd26.parquet"\nrate_scale = 20\n',
        command="tilecast plan plan_sdxl.toml --attainment 0.95 -o plans/sdxl",
        tilecast="0.1.0",
        seconds=184.0,
        points=212,
    )


def no_answer() -> Plan:
    """Nothing of what was considered keeps the promise."""
    tried = (evaluation("l40s", 7), evaluation("l40s", 6), evaluation("a100-80gb", 3))
    return replace(
        plan(), answer=None, considered=tried, load_curve=(), headroom=UNKNOWN, lost_replica=None, sensitivity=(),
        by_size=(), over_time=(), growth=(Month(0, 1.0, None),), policies=(PolicyCost("fcfs", None),),
    )  # fmt: skip


def asked_about() -> Plan:
    """One cluster was given, and does not keep the promise."""
    given, less = evaluation("l40s", 8), evaluation("l40s", 7)
    return replace(
        plan(), answer=None, considered=(less, given), refused=(), headroom=interval(0.84, 0.01), growth=(),
        policies=(), lost_replica=WhatIf("one replica less", less.figures, less.keeps), asked_about=given.candidate,
    )  # fmt: skip


def one_replication() -> Plan:
    """No interval is known, no price, nothing else was asked; the one cluster has one device."""
    best = evaluation("b200", 1)
    best = replace(best, keeps=True, state=NEAR_KNEE, reason="compute", figures=figures(0.9, half_width=math.inf))
    curve = (WhatIf("1 times the load", best.figures, None),)
    return replace(
        plan(), answer=best, considered=(best,), refused=(), load_curve=curve, lost_replica=None, sensitivity=(),
        growth=(), policies=(), notes=(), headroom=UNKNOWN, by_size=(), over_time=(),
    )  # fmt: skip


def nothing_simulated() -> Plan:
    """Everything was refused."""
    return replace(no_answer(), considered=(), growth=(), policies=())


_SPREAD = (0.8, 1.1, 1.6, 2.4, 4.1, 6.3)


def _window(at: int) -> Window:
    """Ten minutes of a day with a busy afternoon."""
    day = 0.5 - 0.5 * math.cos(2 * math.pi * at / 72)
    busy = 0.3 + 0.65 * day
    return Window(at * 600.0, (at + 1) * 600.0, round(60 + 140 * day), 9 * day**4, 2 + 7 * busy, busy)


def joint_plan() -> JointPlan:
    """Two pools and two models: what is cheaper keeps no promise, or not for both."""

    def tried(large: int, small: int) -> JointEvaluation:
        pictures, clips = 0.36 * large + 0.06 * small, 0.02 * small
        met = {"flux": attained(0.9 / max(pictures, 0.1)), "wan-1.3b": attained(0.1 / max(clips, 0.01))}
        keeps = min(met.values()) >= 0.95
        return JointEvaluation(
            replicas={"large": large, "small": small},
            price_per_hour=2.5 * large + 1.0 * small,
            keeps=None if 0.94 < min(met.values()) < 0.96 else keeps,
            attainment={model: interval(share, 0.01) for model, share in met.items()},
            latency_p95_s={model: interval(9 / max(0.1, share), 0.4) for model, share in met.items()},
            utilisation={"large": 0.8, "small": 0.7},
            broken_by="" if keeps else f"{min(met, key=lambda model: met[model])} too late",
        )

    considered = sorted(
        [tried(large, small) for large in range(4) for small in range(3, 12, 2)], key=lambda each: each.price_per_hour
    )
    best = next(each for each in considered if each.keeps)
    return JointPlan(
        rates_rps={"flux": 0.9, "wan-1.3b": 0.1},
        attainment=0.95,
        throughput_rps=0.0,
        headroom=0.0,
        slo="6 times a request's latency alone",
        confidence=0.95,
        how="whole days of the trace, drawn with replacement",
        answer=best,
        checked=best,
        considered=tuple(considered),
        refused=("small: even alone only 0 % of flux would be in time",),
        labels={"large": ESTIMATED, "small": MEASURED},
        least_price=8.5,
        scenario='model = "flux"\n',
        command="tilecast plan pools.toml -o PLAN",
        tilecast="0.1.0",
        points=len(considered),
    )
