"""One cluster under one demand: as many replications, and as long ones, as a verdict takes.

Runs are doubled in length until they have shown whether the cluster is steady: a queue that grows slowly looks well in
a short run. Then replications are added until the promise is decided. What fails in a short run is not run longer:
starting empty only flatters a cluster. What a few replications show to fail clearly is not run more often;
what hardware of another speed would do, which is a guess itself, is decided by fewer at most.

Looking again after more replications makes luck likelier to decide: of clusters exactly at the promise some 6 % are
called good with intervals of 95 %, not 2.5 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reports.output_analysis import Interval, interval
from reports.plan.formatting import rejection
from reports.plan.result import UNSTABLE, Candidate, Evaluation
from tilecast.studies.bottleneck import BATCH_CAP, MEMORY
from tilecast.studies.experiment import AS_PLANNED, Change, Evaluate, Experiment
from tilecast.studies.replication import Replication
from tilecast.studies.search import Option
from tilecast.studies.verdict import Throughput, Verdict, figures, judge, lucky, need_longer

FIRST_SEEDS = 3
"""Replications that may be enough to turn a candidate down, never to take it."""

SATURATING_REQUESTS = 500
SATURATING_SEEDS = 3


@dataclass(frozen=True)
class SloTarget:
    """What must hold, and how sure one wants to be.

    Attributes:
        attainment: the share of requests that must finish in time.
        confidence: confidence level of the intervals, 0 to 1.
        rate_rps: requests a second planned for.
        throughput_rps: requests a second of them that must be completed; 0: no such promise.
        headroom: the promises must be kept at so much more than the demand, as a share of it.
    """

    attainment: float
    confidence: float
    rate_rps: float
    throughput_rps: float = 0.0
    headroom: float = 0.0


@dataclass(frozen=True)
class Effort:
    """How much is simulated for one verdict: at first and at most.

    Attributes:
        seeds, max_seeds: replications.
        requests, max_requests: of one.
    """

    seeds: int = 5
    max_seeds: int = 20
    requests: int = 2_000
    max_requests: int = 16_000


class Assessor:
    """Assesses candidates; remembers what it said.

    Args:
        evaluate: the simulator.
        options: what may be bought, by `key`.
        target: what must hold.
        effort: how much is simulated.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        options: Mapping[tuple[str, int, str], Option],
        target: SloTarget,
        effort: Effort,
    ) -> None:
        self.target = target
        self.options = options
        self._evaluate = evaluate
        self._effort = effort
        self._said: dict[tuple[Candidate, Change], Evaluation] = {}
        self._seen: dict[tuple[Candidate, Change], list[Replication]] = {}
        self._carried: dict[tuple[str, int, str, int | None], list[float]] = {}

    @property
    def as_planned(self) -> list[Evaluation]:
        """All that was said of candidates under the demand planned for, the best buy first."""
        said = [evaluation for (_, change), evaluation in self._said.items() if change == AS_PLANNED]
        return sorted(said, key=lambda said: self.option(said.candidate).rank(said.candidate.replicas))

    def option(self, candidate: Candidate) -> Option:
        """What the candidate is made of."""
        return self.options[key(candidate)]

    def replications(self, candidate: Candidate) -> list[Replication]:
        """What the verdict under the demand planned for rests on."""
        self(candidate)
        return self._seen[candidate, AS_PLANNED]

    def load(self, candidate: Candidate, change: Change = AS_PLANNED) -> Interval:
        """The demand over what the cluster carries when it never runs out of work.

        Where all steps take longer alike it carries as much less, but for a few batches that are formed otherwise; that
        takes no simulation of its own.
        """
        known = (*key(candidate), change.max_batch)
        if known not in self._carried:
            busy = Change(max_batch=change.max_batch)
            one = replace(candidate, replicas=1)
            experiments = [
                Experiment(one, seed, SATURATING_REQUESTS, busy, saturate=True) for seed in range(SATURATING_SEEDS)
            ]
            self._carried[known] = [run.drain_s / run.submitted for run in self._evaluate(experiments)]
        rate_rps = self.target.rate_rps * change.rate_scale * change.slowdown / candidate.replicas
        return interval([rate_rps * seconds for seconds in self._carried[known]], self.target.confidence)

    def __call__(self, candidate: Candidate, change: Change = AS_PLANNED) -> Evaluation:
        """Whether the cluster keeps the promise when this is otherwise, with the headroom that is promised, too."""
        if (candidate, change) not in self._said:
            self._said[candidate, change] = self._with_headroom(self._alone(candidate, change), change)
        return self._said[candidate, change]

    def hardest(self, change: Change = AS_PLANNED) -> Change:
        """The demand at which the promise must still be kept."""
        return replace(change, rate_scale=round(change.rate_scale * (1 + self.target.headroom), 9))

    def failing(self, candidate: Candidate) -> Evaluation | None:
        """What is known of the smallest cluster that does not keep the promise as planned although it has as many
        replicas, or more; None: nothing."""
        known = [said for said in self.as_planned if key(said.candidate) == key(candidate) and not said.keeps]
        large = [said for said in known if said.candidate.replicas >= candidate.replicas]
        return min(large, key=lambda said: said.candidate.replicas, default=None)

    def like(self, model: Candidate, candidate: Candidate, change: Change = AS_PLANNED) -> Evaluation:
        """A candidate by the replications of ``model`` under the demand planned for: as long, seed by seed, and as many
        up to those of a verdict at first; of ``model`` itself what was said."""
        if (candidate, change) == (model, AS_PLANNED):
            return self(model)
        return self._evaluation(candidate, change, self.runs_like(model, candidate, change))

    def runs_like(self, model: Candidate, candidate: Candidate, change: Change, times: int = 1) -> list[Replication]:
        """What `like` rests on, in the order of seeds, or so many times as much; no more of them than ``model`` has."""
        runs = self.replications(model)
        seeds = range(min(len(runs), times * self._effort.seeds))
        return self._evaluate([Experiment(candidate, seed, runs[0].submitted, change) for seed in seeds])

    def near(self, candidate: Candidate, harder: float) -> Evaluation:
        """What was said under the demand planned for, near its knee if ``harder`` times the demand breaks it."""
        worse = self.runs_like(candidate, candidate, Change(rate_scale=harder), times=2)
        evaluation = self._evaluation(candidate, AS_PLANNED, self.replications(candidate), worse)
        evaluation = self._with_headroom(evaluation, AS_PLANNED)
        self._said[candidate, AS_PLANNED] = evaluation
        return evaluation

    def _alone(self, candidate: Candidate, change: Change) -> Evaluation:
        """Whether it keeps the promise at this load, whatever at more."""
        if (candidate, change) not in self._seen:
            self._seen[candidate, change] = self._decided(candidate, change)
        return self._evaluation(candidate, change, self._seen[candidate, change])

    def _with_headroom(self, evaluation: Evaluation, change: Change) -> Evaluation:
        """What was said without regard to the headroom that is promised, with it."""
        hardest = self.hardest(change)
        if not evaluation.keeps or hardest == change:
            return evaluation
        harder = self._alone(evaluation.candidate, hardest)
        if harder.keeps:
            return evaluation
        why = f"{rejection(harder, self.target.attainment)} at {1 + self.target.headroom:g} times the load"
        return replace(evaluation, keeps=harder.keeps, broken_by=why, reason=harder.reason, detail=harder.detail)

    def _decided(self, candidate: Candidate, change: Change) -> list[Replication]:
        effort, target = self._effort, self.target
        seeds, requests = min(FIRST_SEEDS, effort.seeds), effort.requests
        most = effort.max_seeds if change.slowdown == 1 else min(2 * effort.seeds, effort.max_seeds)
        while True:
            runs = self._evaluate([Experiment(candidate, seed, requests, change) for seed in range(seeds)])
            kept = self._judge(candidate, change, runs).keeps
            if kept is False:
                return runs
            if seeds < effort.seeds:
                seeds = effort.seeds
                continue
            longer = need_longer(runs, target.confidence)
            if longer and requests < effort.max_requests:
                requests = min(2 * requests, effort.max_requests)
            elif kept is None and seeds < most and not lucky(runs, target.attainment, target.confidence):
                seeds = min(2 * seeds, most)
            else:
                return runs

    def _judge(
        self, candidate: Candidate, change: Change, runs: list[Replication], harder: Sequence[Replication] = ()
    ) -> Verdict:
        target = self.target
        throughput = None
        if target.throughput_rps:
            rates = (change.rate_scale * rate_rps for rate_rps in (target.rate_rps, target.throughput_rps))
            throughput = Throughput(*rates)
        load = self.load(candidate, change)
        return judge(runs, load, target.attainment, target.confidence, harder, throughput)

    def _evaluation(
        self, candidate: Candidate, change: Change, runs: list[Replication], harder: Sequence[Replication] = ()
    ) -> Evaluation:
        target, option = self.target, self.option(candidate)
        verdict = self._judge(candidate, change, runs, harder)
        if verdict.reason == BATCH_CAP and option.memory is not None and option.max_batch == option.memory.max_batch:
            detail = f"{verdict.detail.rstrip('.')}; a device's memory has no room for larger ones."
            verdict = replace(verdict, reason=MEMORY, detail=detail)
        unstable, rate_rps = verdict.state == UNSTABLE, target.rate_rps * change.rate_scale
        seen = figures(runs, change.rate_scale, rate_rps, target.confidence, unstable)
        price = option.price_per_hour * candidate.replicas
        images_per_hour = 3600 * seen.images_per_s.mean
        return Evaluation(
            candidate=candidate,
            label=option.label,
            state=verdict.state,
            reason=verdict.reason,
            detail=verdict.detail,
            keeps=verdict.keeps,
            figures=seen,
            load=self.load(candidate, change).mean,
            price_per_hour=price,
            cost_per_1000_images=1000 * price / images_per_hour if images_per_hour > 0 else math.nan,
            extrapolated=_mean_of_known([run.extrapolated for run in runs]),
            memory=option.memory,
            broken_by=verdict.broken_by,
        )


def _mean_of_known(shares: Sequence[float]) -> float:
    """The mean of what is defined; 0.0 of nothing."""
    known = [share for share in shares if not math.isnan(share)]
    return sum(known) / len(known) if known else 0.0


def key(of: Candidate | Option) -> tuple[str, int, str]:
    """What tells options apart."""
    return of.hardware, of.devices, of.scheduler
