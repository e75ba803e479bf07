"""A plan for pools that share models: the cheapest replicas of all together that keep the promise for each model.

A cluster is judged model by model, as a cluster of one model is (`tilecast.studies.verdict`): enough in time to the
lower end of the interval, and no backlog of its work that grows. As the answer is the cheapest of many that were looked
at with the same draws, it may owe something to their luck; so it is simulated once more with draws that the search has
not seen, and where these speak against it the search goes on without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from importlib.metadata import version
from typing import NamedTuple

from policies.legs import Legs
from reports.formatting import format_interval, percent
from reports.output_analysis import Interval
from reports.plan.formatting import TRUST
from reports.plan.joint import JointEvaluation, JointPlan, spell
from reports.plan.result import UNSTABLE
from reports.progress import Tell
from tilecast.memory import misfits
from tilecast.scenario import Scenario
from tilecast.sections import HardwareSection
from tilecast.studies.assess import FIRST_SEEDS, Effort
from tilecast.studies.capacity import capacity_rps
from tilecast.studies.joint_run import (
    JointRun,
    Rates,
    by_model,
    daily,
    demand_of_model,
    prepared_pools,
    recorded,
    run_joint,
    shares,
)
from tilecast.studies.joint_search import Asked, Counts, JointSearch, PoolOption, price_of
from tilecast.studies.replication import Replication
from tilecast.studies.result_store import FAILED, ResultStore, point_key, run_points
from tilecast.studies.simulator import FIGURES
from tilecast.studies.speeds import log_sd_alone, slowdowns
from tilecast.studies.verdict import Throughput, figures, judge, lucky, need_longer
from traces.bootstrap import DAY_S
from traces.errors import BadInput
from traces.stages import ordinary

_UNSEEN = 1_000
"""Number of the first replication that a search does not draw."""
_LEAST_DAYS = 3

_LUCKY = 0.9
"""Of its seconds alone, what noise may make of them: so much faster a request may be in time after all."""


class _Seen(NamedTuple):
    """What replications say: of each model, and the busy share of each pool."""

    models: dict[str, list[Replication]]
    busy: dict[str, float]


@dataclass(frozen=True)
class JointCase:
    """Pools that share models, and what is planned for them.

    Attributes:
        scenario: with these pools, and the requests of their models alone.
        rates: requests a second of each model, where they are asked for one by one; empty: in the shares of the trace.
        rate_rps: of all of them; None: those of the trace.
    """

    scenario: Scenario
    rates: Rates = ()
    rate_rps: float | None = None

    @cached_property
    def rates_rps(self) -> dict[str, float]:
        """Requests a second of each model."""
        if self.rates:
            return dict(self.rates)
        total_rps = self.rate_rps or recorded(self.scenario).rate_rps * self.scenario.trace.rate_scale
        return {model: share * total_rps for model, share in shares(self.scenario).items()}

    @property
    def names(self) -> list[str]:
        """Of the pools."""
        return [pool.name for pool in self.scenario.pool]

    @cached_property
    def options(self) -> list[PoolOption]:
        """What may be bought.

        Raises:
            BadInput: no request has a deadline.
        """
        ready, found = prepared_pools(self.scenario), []
        pools, slowdown = ready.pools, self.scenario.world.slowdown
        legs = Legs(pools)
        priced = all(each.scenario.cluster.price_per_hour is not None for each in ready.members)
        most = HardwareSection(name="any").max_replicas
        for pool in self.scenario.pool:
            own = [member for member in ready.members if member.pool.name == pool.name]
            devices, price = own[0].scenario.cluster.devices, own[0].scenario.cluster.price_per_hour
            (here,) = [each for each in pools if each.name == pool.name]
            work_s, in_time = {}, {}
            for member in own:
                asked, table = [r for r in ready.requests if r.model == member.model], member.world_table()
                for number, name in enumerate(self.leg_names[member.model] if asked else ()):
                    divided = [legs.recipes(request, ordinary(request)) for request in asked]
                    if here not in legs.serving(member.model, divided[0][number]):
                        continue
                    recipe_of = {r.request_id: recipes[number] for r, recipes in zip(asked, divided, strict=True)}
                    work_s[name] = slowdown / capacity_rps(table, asked, lambda r, of=recipe_of: of[r.request_id])  # type: ignore[misc]
                    timely = []
                    for request, recipes in zip(asked, divided, strict=True):
                        here_s = legs.seconds_on(here, request, recipes[number], number > 0)
                        before_s = legs.seconds(request, recipes[:number])
                        alone_s = before_s + here_s + legs.seconds(request, recipes[number + 1 :], received=True)
                        timely.append(_LUCKY * slowdown * alone_s <= request.deadline - request.arrival_s)
                    in_time[name] = sum(timely) / len(timely)
            each = devices * price if priced and price is not None else float(devices)
            found.append(PoolOption(pool.name, each, max(most, pool.replicas), work_s, in_time))
        return found

    @cached_property
    def leg_names(self) -> dict[str, list[str]]:
        """What is asked of pools for each model, one leg after another: all of it, or where pools serve some stages
        each so many stages."""
        ready = prepared_pools(self.scenario)
        legs, names = Legs(ready.pools), {}
        for model in self.rates_rps:
            one = next(request for request in ready.requests if request.model == model)
            stages = ["+".join([stage for stage, _ in recipe]) for recipe in legs.recipes(one, ordinary(one))]
            names[model] = [f"{model} {each}" for each in stages] if len(stages) > 1 else [model]
        return names

    @property
    def priced(self) -> bool:
        """Whether prices are known."""
        return all(each.scenario.cluster.price_per_hour is not None for each in prepared_pools(self.scenario).members)

    def slo(self) -> str:
        """The deadlines in words.

        Raises:
            BadInput: no request has one.
        """
        section, frame = self.scenario.slo, prepared_pools(self.scenario).trace.frame
        if not (frame["deadline_s"].notna() | frame["slo_s"].notna()).any():
            raise BadInput(
                "no request has a deadline, so any cluster keeps the promise; set slo.scale (times the latency alone) "
                "or slo.absolute_s (seconds)"
            )
        if section.scale is not None:
            return f"{section.scale:g} times the latency alone, on the pool where that is least"
        return f"{section.absolute_s:g} s" if section.absolute_s is not None else "the deadlines of the trace"

    def how(self) -> str:
        """How the demand is drawn."""
        if not by_model(self.scenario, self.rates):
            return recorded(self.scenario).how
        return "; ".join([f"{model}: {demand_of_model(self.scenario, model).how}" for model in self.rates_rps])

    def effort(self) -> Effort:
        """How much is simulated; where demand has a course of the day, three days at least."""
        plan, total_rps = self.scenario.plan, sum(self.rates_rps.values())
        least = math.ceil(_LEAST_DAYS * DAY_S * total_rps) if daily(self.scenario, self.rates) else 0
        requests = max(plan.requests, least)
        return Effort(plan.seeds, max(plan.seeds, plan.max_seeds), requests, max(requests, plan.max_requests))

    def run_of(self, counts: Counts, replication: int, requests: int, harder: float) -> JointRun:
        """A simulation of so many replicas."""
        of = dict(zip(self.names, counts, strict=True))
        pools = [pool.model_copy(update={"replicas": of[pool.name]}) for pool in self.scenario.pool if of[pool.name]]
        scenario = self.scenario.model_copy(
            update={"pool": tuple(pools), "seed": 1000 * self.scenario.seed + replication}
        )
        total_rps = sum(self.rates_rps.values())
        return JointRun(
            what=spell(of),
            reference=self.scenario,
            scenario=scenario,
            rates=self.rates,
            rate_rps=total_rps,
            replication=replication,
            requests=requests,
            harder=harder,
        )


class _Judge:
    """Simulates clusters on several processes, and says what to think of each; every simulation is kept."""

    def __init__(self, case: JointCase, store: ResultStore, workers: int, progress: Tell) -> None:
        self._case = case
        self._store = store
        self._workers = workers
        self._progress = progress
        self._effort = case.effort()
        self._key_of = lru_cache(maxsize=8)(point_key)
        self._points: set[str] = set()
        self.said: dict[Counts, JointEvaluation] = {}

    @property
    def simulations(self) -> int:
        """How many there were."""
        return len(self._points)

    def __call__(self, counts: Counts) -> bool:
        """Whether a cluster keeps the promise, with the headroom that is promised, too."""
        evaluation, _ = self._decided(counts, 1.0)
        headroom = self._case.scenario.plan.headroom
        if evaluation.keeps and headroom:
            harder, _ = self._decided(counts, 1 + headroom)
            if not harder.keeps:
                why = f"{harder.broken_by} at {1 + headroom:g} times the load"
                evaluation = replace(evaluation, keeps=harder.keeps, broken_by=why)
        self.said[counts] = evaluation
        return evaluation.keeps is True

    def unseen(self, counts: Counts) -> JointEvaluation:
        """A cluster that keeps the promise, with as many other draws; they speak against it where so many requests of
        a model are late in the mean, or its backlog grows."""
        _, (seeds, requests) = self._decided(counts, 1.0)
        evaluation = self._evaluation(counts, self._runs(counts, range(_UNSEEN, _UNSEEN + seeds), requests, 1.0), 1.0)
        promised = self._case.scenario.plan.attainment
        enough = all(met.mean >= promised for met in evaluation.attainment.values())
        return replace(evaluation, keeps=evaluation.keeps is not False and enough)

    def _decided(self, counts: Counts, harder: float) -> tuple[JointEvaluation, tuple[int, int]]:
        """What so many replications of so many requests say, and how many they were; see `studies.assess`."""
        effort, plan = self._effort, self._case.scenario.plan
        seeds, requests = min(FIRST_SEEDS, effort.seeds), effort.requests
        while True:
            runs = self._runs(counts, range(seeds), requests, harder)
            found = self._evaluation(counts, runs, harder)
            if found.keeps is False:
                return found, (seeds, requests)
            of_models = list(runs.models.values())
            if seeds < effort.seeds:
                seeds = effort.seeds
            elif any(need_longer(each, plan.confidence) for each in of_models) and requests < effort.max_requests:
                requests = min(2 * requests, effort.max_requests)
            elif (
                found.keeps is None
                and seeds < effort.max_seeds
                and not any(lucky(each, plan.attainment, plan.confidence) for each in of_models)
            ):
                seeds = min(2 * seeds, effort.max_seeds)
            else:
                return found, (seeds, requests)

    def _runs(self, counts: Counts, replications: Sequence[int], requests: int, harder: float) -> _Seen:
        case = self._case
        runs = [case.run_of(counts, replication, requests, harder) for replication in replications]
        points = {self._key(run): run for run in runs}
        self._points.update(points)
        tell = partial(self._progress, str(runs[0]), len(points))
        results = run_points(run_joint, points, self._store, self._workers, progress=tell)
        for key, run in points.items():
            if FAILED in results[key]:
                raise BadInput(f"{run}: {results[key][FAILED]}")
        models: dict[str, list[Replication]] = {model: [] for model in case.rates_rps}
        for result in results.values():
            for model, seen in result["models"].items():
                models[model].append(Replication.from_dict(seen))
        busy = [result["busy"] for result in results.values()]
        mean = {pool: sum([each[pool] for each in busy]) / len(busy) for pool in busy[0]}
        return _Seen({model: seen for model, seen in models.items() if seen}, mean)

    def _key(self, run: JointRun) -> str:
        demand = [self._key_of(run.reference), run.reference.plan.demand, run.rates, run.rate_rps]
        return point_key(run.scenario, [demand, run.replication, run.requests, run.harder, FIGURES])

    def _evaluation(self, counts: Counts, seen: _Seen, harder: float) -> JointEvaluation:
        case, plan = self._case, self._case.scenario.plan
        rates_rps, total_rps = case.rates_rps, sum(case.rates_rps.values())
        keeps: list[bool | None] = []
        attainment: dict[str, Interval] = {}
        latency_s: dict[str, Interval] = {}
        why = []
        for model, runs in seen.models.items():
            rate_rps = harder * rates_rps[model]
            throughput = None
            if plan.throughput:
                throughput = Throughput(rate_rps, plan.throughput * rate_rps / total_rps)
            verdict = judge(runs, None, plan.attainment, plan.confidence, throughput=throughput)
            shown = figures(runs, harder, rate_rps, plan.confidence, verdict.state == UNSTABLE)
            attainment[model], latency_s[model] = shown.attainment, shown.latency_p95_s
            keeps.append(verdict.keeps)
            if not verdict.keeps:
                more = f", {verdict.broken_by}" if verdict.broken_by else ""
                met = format_interval(shown.attainment, "%")
                why.append(f"{model} {met} of {percent(plan.attainment)}{more}")
        price = price_of(case.options, counts) if case.priced else math.nan
        return JointEvaluation(
            replicas=dict(zip(case.names, counts, strict=True)),
            price_per_hour=price,
            keeps=False if False in keeps else None if None in keeps else True,
            attainment=attainment,
            latency_p95_s=latency_s,
            utilisation=seen.busy,
            broken_by="; ".join(why),
        )


def plan_joint(case: JointCase, store: ResultStore, workers: int, progress: Tell) -> JointPlan:
    """The cheapest replicas of the pools that keep the promise for every model.

    Raises:
        BadInput: whatever is wrong with the scenario, in one line.
    """
    plan, slo = case.scenario.plan, case.slo()
    look = _Judge(case, store, workers, progress)
    hardest = {
        name: (1 + plan.headroom) * rate_rps
        for model, rate_rps in case.rates_rps.items()
        for name in case.leg_names[model]
    }
    search = JointSearch(case.options, Asked(hardest, plan.attainment), look)
    checked = None
    while (best := search.cheapest()) is not None:
        checked = look.unseen(best)
        if checked.keeps:
            break
        search.reject(best)
        met = ", ".join([f"{model} {format_interval(each, '%')}" for model, each in checked.attainment.items()])
        look.said[best] = replace(look.said[best], keeps=False, broken_by=f"with draws not searched with {met}")
    least_price = search.least_price if case.priced and math.isfinite(search.least_price) else math.nan
    bases: dict[str, list[str]] = {name: [] for name in case.names}
    log_sds: dict[str, float] = {}
    ready = prepared_pools(case.scenario)
    for member in ready.members:
        bases[member.pool.name].append(member.table.basis)
        if off := log_sd_alone(member.table, [request for request in ready.requests if request.model == member.model]):
            log_sds[member.pool.name] = max(off, log_sds.get(member.pool.name, 0.0))
    return JointPlan(
        rates_rps=case.rates_rps,
        attainment=plan.attainment,
        throughput_rps=plan.throughput or 0.0,
        headroom=plan.headroom,
        slo=slo,
        confidence=plan.confidence,
        how=case.how(),
        answer=None if best is None else look.said[best],
        checked=None if best is None else checked,
        considered=tuple(
            [look.said[counts] for counts in sorted(look.said, key=lambda each: (search.price(each), each))]
        ),
        refused=tuple(search.refused),
        labels={name: max(own, key=list(TRUST).index) for name, own in bases.items()},
        error_factors={name: slowdowns(log_sd)[-1] for name, log_sd in log_sds.items()},
        unfit=tuple([note.text for note in misfits(ready.members, ready.requests)]),
        least_price=least_price,
        tilecast=version("tilecast"),
        points=look.simulations,
    )
