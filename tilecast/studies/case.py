"""From a scenario with a ``[plan]`` section to what a planner needs: options, a demand, what experiments are."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from policies.guard import read
from predictors.estimate import RooflineCost
from predictors.paying import MOST_IMAGES, batches_up_to, paying
from reports.formatting import format_rate, percent
from reports.plan.result import Candidate, DegreeFigures, Demand
from tilecast.degrees import degree_log_sd
from tilecast.memory import memory_of
from tilecast.scenario import Scenario
from tilecast.sections import FaultsSection, HardwareSection, PolicySection
from tilecast.studies.assess import Effort, SloTarget, key
from tilecast.studies.capacity import capacity_rps
from tilecast.studies.experiment import Experiment
from tilecast.studies.experiment_run import ExperimentRun, demand_of, shared
from tilecast.studies.search import Option
from tilecast.studies.speeds import log_sd_alone
from traces.bootstrap import DAY_S
from traces.composition import composition_of
from traces.errors import BadInput
from traces.notes import Note
from traces.sizes import format_size

_MEASUREMENTS = 10
_IMAGES = (1, 2, 4, 8, 3, 5, 6, 7, 9, 10)  # of batches that would be measured
_EVEN = 1e-9  # rounding of rates
_SIZES = 4  # of which it is said when parallelism pays
_LEAST_DAYS = 3  # of a replication, where the demand has a course of the day


@dataclass(frozen=True)
class Case:
    """A scenario, and what is planned for it.

    Attributes:
        scenario: what is known of the demand and of the replicas.
        hardware: the only kind to consider; None: all.
    """

    scenario: Scenario
    hardware: str | None = None

    @cached_property
    def kinds(self) -> tuple[HardwareSection, ...]:
        """What may be bought; by default the scenario's own hardware.

        Raises:
            BadInput: there is no such hardware.
        """
        scenario = self.scenario
        kinds = scenario.plan.hardware
        if not kinds:
            own = scenario.cluster
            name, price = shared(scenario).table.hardware, own.price_per_hour
            kinds = (HardwareSection(name=name, devices=(own.devices,), price_per_hour=price),)
        chosen = tuple([kind for kind in kinds if self.hardware in (None, kind.name)])
        if not chosen:
            raise BadInput(
                f"no hardware {self.hardware!r}; there is: {', '.join([kind.name for kind in kinds])}; to consider "
                "another, set predictor.hardware, or name several in plan.hardware, as examples/plan_sdxl.toml does"
            )
        return chosen

    @cached_property
    def policies(self) -> tuple[str, ...]:
        """The schedulers of which the best is the answer."""
        return tuple(dict.fromkeys(self.scenario.plan.policies)) or (self.scenario.policies.scheduling.name,)

    @cached_property
    def reference(self) -> Scenario:
        """Whose latency alone the deadlines of all kinds are multiples of: the scenario's own hardware, or else the
        first kind's."""
        predictor = self.scenario.predictor
        if predictor.profile is not None or predictor.hardware is not None or not self.scenario.plan.hardware:
            return self.scenario
        return self.on(self.scenario.plan.hardware[0])

    def at(self, rate_rps: float) -> Case:
        """The same for a demand of so many requests a second, in the mean of all that it is drawn from."""
        scale = rate_rps / demand_of(self.reference).rate_rps
        return replace(self, scenario=self.scenario.replaced({"trace.rate_scale": scale}))

    def on(self, kind: HardwareSection, **more: Any) -> Scenario:
        """The scenario on a kind of hardware, with some keys (dots spelled ``__``) otherwise."""
        given: dict[str, Any] = {}
        if kind.profile is not None or kind.hardware is not None:
            given |= {"predictor.profile": kind.profile, "predictor.hardware": kind.hardware}
        return self.scenario.replaced({**given, **{name.replace("__", "."): value for name, value in more.items()}})

    def scheduling(self, scheduler: str) -> PolicySection:
        """The section of a scheduler; only the scenario's own has the parameters that the scenario gives."""
        own = self.scenario.policies.scheduling
        return own if scheduler == own.name else PolicySection(name=scheduler)

    def clusters(self, replicas: int, devices: int | None) -> tuple[Candidate, ...]:
        """The one cluster of so many replicas, with each of the policies.

        Raises:
            BadInput: there are several, or none.
        """
        many = [(kind.name, each) for kind in self.kinds for each in kind.devices if devices in (None, each)]
        if len(many) != 1:
            known = ", ".join([f"{name} with {each} devices a replica" for name, each in many]) or "none of them"
            raise BadInput(
                f"--replicas asks for one cluster: expected one hardware and number of devices, not {known}; choose "
                "with --hardware and --devices"
            )
        [(name, each)] = many
        return tuple([Candidate(name, each, replicas, policy) for policy in self.policies])

    @cached_property
    def options(self) -> dict[tuple[str, int, str], Option]:
        """Everything that may be bought.

        Raises:
            BadInput: a kind whose scenario is wrong.
        """
        found = {}
        for kind in self.kinds:
            for devices in kind.devices:
                for scheduler in self.policies:
                    option = self._option(kind, devices, scheduler)
                    found[key(option)] = option
        return found

    def check_possible(self) -> None:
        """Refuse a promise that no number of replicas keeps.

        Raises:
            BadInput: on all that may be bought too many requests take longer than their deadline although nothing
                else runs.
        """
        best = min(self.options.values(), key=lambda option: option.late_alone)
        if best.late_alone <= 1 - self.scenario.plan.attainment + _EVEN:
            return
        kind = next(kind for kind in self.kinds if kind.name == best.hardware)
        longer = [alone_s / given_s for alone_s, given_s in self._alone(self.on(kind))]
        late = sorted([times for times in longer if times > 1])
        raise BadInput(
            f"no number of replicas keeps {percent(self.scenario.plan.attainment)} of deadlines: alone on an idle "
            f"{best.hardware} {len(late):,} of {len(longer):,} requests already take longer than theirs, "
            f"{late[len(late) // 2]:.3g} times as long in the middle; expected later deadlines (slo), or other hardware"
        )

    def _alone(self, scenario: Scenario) -> list[tuple[float, float]]:
        """Seconds that each request takes on an idle device, and that its deadline gives it; nothing of replicas whose
        steps may take less: on several devices, by a cache, or tiles."""
        prepared, slowdown = shared(scenario), self.scenario.world.slowdown
        if scenario.cluster.devices > 1 or prepared.cache is not None or prepared.tiling is not None:
            return []
        found = []
        for request in shared(self.reference).requests:
            given_s = math.inf if request.slo_s is None else request.slo_s
            if request.deadline_s is not None:
                given_s = request.deadline_s - request.arrival_s
            found.append((slowdown * prepared.table.standalone_s(request), given_s))
        return found

    def _option(self, kind: HardwareSection, devices: int, scheduler: str) -> Option:
        scenario = self.on(kind, cluster__devices=devices)
        policy = self.scheduling(scheduler).policy("scheduling", scenario.base)
        memory = memory_of(scenario, kind.hardware or kind.name, shared(self.reference).requests)
        given = read(policy, "max_batch")
        max_batch = given if type(given) is int else None
        if memory is not None and max_batch is not None:
            max_batch = max(1, min(max_batch, memory.max_batch))
        alone = self._alone(scenario)
        price = math.nan if kind.price_per_hour is None else devices * kind.price_per_hour
        return Option(
            hardware=kind.name,
            devices=devices,
            scheduler=scheduler,
            price_per_hour=price,
            max_replicas=kind.max_replicas,
            label=shared(scenario).table.basis,
            capacity_rps=self._capacity_rps(scenario),
            max_batch=max_batch,
            memory=memory,
            log_sd=self._log_sd(scenario),
            measured_error_ratio=self._measured_error_ratio(scenario),
            late_alone=sum([alone_s > given_s for alone_s, given_s in alone]) / max(1, len(alone)),
        )

    def _log_sd(self, scenario: Scenario) -> float:
        """How uncertain the seconds of the demand's requests are, alone (see `predictors.latency_model.StageCost`) and,
        where steps are divided, on several devices."""
        prepared, requests = shared(scenario), shared(self.reference).requests
        table, divided = prepared.table, degree_log_sd(prepared.costs) if prepared.tiling is None else 0.0
        return math.hypot(log_sd_alone(table, requests), divided)

    def _measured_error_ratio(self, scenario: Scenario) -> float:
        """What ten measurements of a denoising step would leave of the error: of the demand's sizes, in batches of one
        image and more."""
        cost = shared(scenario).table.costs.get("denoise")
        if not isinstance(cost, RooflineCost):
            return 1.0
        sizes = list(dict.fromkeys([request.shape for request in shared(self.reference).requests]))
        batches = [composition_of([(size, images)]) for images in _IMAGES for size in sizes]
        return min(1.0, cost.log_sd_if_measured(batches[:_MEASUREMENTS]) / cost.log_sd)

    def _capacity_rps(self, scenario: Scenario) -> float:
        prepared = shared(scenario)
        if prepared.cache is not None or prepared.tiling is not None:
            return math.inf  # what they spare is known only step by step
        requests = shared(self.reference).requests
        carried = capacity_rps(prepared.world_table(), requests) / scenario.world.slowdown
        return scenario.cluster.devices * carried  # at most: a step on several devices has at least its part on each

    def by_degree(self, cluster: Candidate) -> tuple[DegreeFigures, ...]:
        """When parallelism and batching pay on a replica of a cluster, for the sizes that are most asked for; nothing
        of replicas of one device, or of tiles."""
        kind = next(kind for kind in self.kinds if kind.name == cluster.hardware)
        scenario = self.on(kind, cluster__devices=cluster.devices)
        prepared, requests = shared(scenario), shared(self.reference).requests
        if cluster.devices == 1 or prepared.tiling is not None:
            return ()
        memory = memory_of(scenario, kind.hardware or kind.name, requests)
        batches = batches_up_to(MOST_IMAGES if memory is None else memory.max_batch)
        degrees = prepared.costs.degrees(scenario.model_name)
        asked = Counter([request.shape for request in requests])
        figures = []
        for size, _ in asked.most_common(_SIZES):
            one = replace(next(request for request in requests if request.shape == size), images=1)
            figures += [
                DegreeFigures(
                    size=format_size(size),
                    devices=row.devices,
                    parallel=row.parallel,
                    images=row.images,
                    step_s=row.step_s,
                    whole_s=row.latency_s,
                    images_per_s_device=row.images_per_s,
                    images_per_s_replica=cluster.devices * row.images_per_s,
                    best_for=row.best_for,
                )
                for row in paying(prepared.costs, one, degrees, batches)
            ]
        return tuple(figures)

    def demand(self) -> Demand:
        """What is asked, in figures."""
        reference = self.reference
        drawn_from = demand_of(reference)
        summary = shared(reference).trace.summary()
        return Demand(
            source=Path(reference.trace.path or "").name,
            model=reference.model_name,
            rate_rps=drawn_from.rate_rps * reference.trace.rate_scale,
            images_per_request=summary.images / summary.requests,
            sizes=tuple([(format_size(size), count / summary.requests) for size, count in summary.sizes.items()]),
            how=drawn_from.how,
            guided=2 * sum([request.guided for request in shared(reference).requests]) > summary.requests,
            tiled=reference.tiling is not None,
        )

    def slo(self) -> str:
        """The deadlines in words.

        Raises:
            BadInput: no request has one.
        """
        section, frame = self.scenario.slo, shared(self.reference).trace.frame
        own = frame["deadline_s"].notna() | frame["slo_s"].notna()
        if not own.any():
            raise BadInput(
                "no request has a deadline, so any cluster keeps the promise; set slo.scale (times the latency alone) "
                "or slo.absolute_s (seconds)"
            )
        if section.scale is not None:
            return f"{section.scale:g} times the latency alone on {shared(self.reference).table.hardware}"
        return f"{section.absolute_s:g} s" if section.absolute_s is not None else "the deadlines of the trace"

    def notes(self) -> list[Note]:
        """What preparing the kinds noted."""
        noted: dict[Note, list[str]] = {}
        for kind in self.kinds:
            for note in shared(self.on(kind)).notes:
                noted.setdefault(note, []).append(kind.name)
        everywhere = len(self.kinds)
        return [
            Note(
                f"{str(note)[0].upper()}{str(note)[1:]}."
                if len(names) == everywhere
                else f"{', '.join(names)}: {note}.",
                note.severity,
            )
            for note, names in noted.items()
        ]

    def noted(self) -> tuple[str, ...]:
        """The kinds whose profile carries a note of its own."""
        profiles = {kind.name: shared(self.on(kind)).profile for kind in self.kinds}
        return tuple([name for name, profile in profiles.items() if profile and profile.notes])

    def slo_target(self) -> SloTarget:
        """What must hold.

        Raises:
            BadInput: more is promised than is asked for.
        """
        plan, rate_rps, promised_rps = self.scenario.plan, self.demand().rate_rps, self.scenario.plan.throughput or 0.0
        if promised_rps > rate_rps * (1 + _EVEN):
            raise BadInput(
                f"plan.throughput is {format_rate(promised_rps)}, but {format_rate(rate_rps)} are asked for; expected "
                "at most that, or a larger demand (--rate)"
            )
        return SloTarget(plan.attainment, plan.confidence, rate_rps, promised_rps, plan.headroom)

    def effort(self) -> Effort:
        """How much is simulated; where demand has a course of the day, three days at least."""
        plan, drawn_from = self.scenario.plan, demand_of(self.reference)
        least = math.ceil(_LEAST_DAYS * DAY_S * drawn_from.rate_rps) if drawn_from.daily else 0
        requests = max(plan.requests, least)
        return Effort(plan.seeds, max(plan.seeds, plan.max_seeds), requests, max(requests, plan.max_requests))

    def run_of(self, experiment: Experiment) -> ExperimentRun:
        """The simulation that answers an experiment."""
        kind = next(kind for kind in self.kinds if kind.name == experiment.candidate.hardware)
        candidate, change, scenario = experiment.candidate, experiment.change, self.scenario
        scheduling, max_batch = self.scheduling(candidate.scheduler), self.options[key(candidate)].max_batch
        if max_batch is not None:
            scheduling = scheduling.with_parameters(max_batch=change.max_batch or max_batch)
        runs = self.on(
            kind,
            seed=1000 * scenario.seed + experiment.seed,
            cluster__replicas=candidate.replicas,
            cluster__devices=candidate.devices,
            policies__scheduling=scheduling,
            trace__rate_scale=scenario.trace.rate_scale * change.rate_scale,
            world__slowdown=scenario.world.slowdown * change.slowdown,
            predictor__error=change.error or scenario.predictor.error,
        )
        what = f"{candidate.replicas} x {candidate.hardware} with {candidate.scheduler}"
        if experiment.saturate:
            runs = runs.model_copy(update={"faults": _by_chance(runs.faults)})
            what += ", saturated"
        elif change.rate_scale != 1:
            what += f", {change.rate_scale:g} x load"
        if change.slowdown != 1:
            what += f", steps {change.slowdown:g} x as long"
        if change.error:
            what += f", predictions off by {change.error:g}"
        return ExperimentRun(what, self.reference, runs, experiment.seed, experiment.requests, experiment.saturate)


def _by_chance(faults: FaultsSection | None) -> FaultsSection | None:
    """What goes wrong with any replica at any time: not on a date, and not because clients wait."""
    gone = {"outages": (), "slow": (), "starts_cold": False, "patience_s": None}
    return None if faults is None else faults.model_copy(update=gone)
