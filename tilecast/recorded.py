"""A replay's folder: what it was given lies beside its log, so that it can be checked, repeated and gone on with."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from policies.events import Event, Ledger, Parity, check_parity, read_events
from policies.job import Job
from policies.livelog import EVENTS, INITIAL, LOADED, still_open
from policies.runlog import UNFINISHED, read_run
from predictors.profile import Profile
from tilecast.caching import read_shares
from tilecast.scenario import Scenario
from tilecast.setup import Prepared, prepare
from traces.errors import BadInput
from traces.output import COPIES, Folder
from traces.request import Request
from traces.trace import Trace

_PROFILE = "profile.parquet"
_PROFILES = "profiles"
"""What ``run.json`` calls the files of the profiles of pools: (pool, model, file) of each."""


def keep_inputs(prepared: Prepared, folder: Folder) -> dict[str, Any]:
    """Put what a replay was given beside its log, so that it can be checked and repeated anywhere.

    Returns:
        what ``run.json`` must say of it: the names of the files that are copies of the user's own.
    """
    prepared.trace.save(folder.path / "trace.parquet")
    kept = _kept_profiles(prepared)
    for name, profile in dict(kept.values()).items():
        profile.save(folder.path / name)
    own = [(pool, model, name) for (pool, model), (name, _) in kept.items()] if prepared.scenario.pool else []
    copies = {COPIES: [folder.copy(source) for source in _sources(prepared.scenario)]}
    return copies if not own else {**copies, _PROFILES: own}


def _kept_profiles(prepared: Prepared) -> dict[tuple[str, str], tuple[str, Profile]]:
    """The profile of each pool and model that has one, and the file where a replay's folder has it: each once."""
    found: dict[tuple[str, str], tuple[str, Profile]] = {}
    names: dict[str, str] = {}
    for member in prepared.members:
        if (profile := member.profile) is not None:
            first = f"profile-{len(names) + 1}.parquet" if names else _PROFILE
            found[member.pool.name, member.scenario.model] = names.setdefault(profile.content_hash, first), profile
    return found


def _sources(scenario: Scenario) -> list[Path]:
    """The files of a scenario that are kept beside the log of a replay as they are."""
    policies = scenario.policies
    kinds = [scenario.predictor.hardware, *[pool.hardware for pool in scenario.pool]]
    named = [_file_of(kind) for kind in kinds if kind is not None and ".toml" in kind]
    for section in (policies.scheduling, policies.routing, policies.scaling, policies.weights):
        if section is not None and ".py:" in section.name:
            named.append(section.name.rpartition(":")[0])
    return [scenario.base / each for each in dict.fromkeys(named)]


def what_differs(prepared: Prepared, folder: Path) -> str | None:
    """In what a scenario is not the one that a replay's folder is of, in words; None: it is that one.

    Raises:
        BadInput: the folder lacks what that replay was given.
    """
    mine = _keys(prepared.scenario.model_dump(mode="json"))
    theirs = _keys(read_run(folder).info["scenario"])
    for key in dict.fromkeys([*theirs, *mine]):
        if mine.get(key) != theirs.get(key) and not _is_a_path(key):
            return f"{key} is {mine.get(key)}, in the log it is {theirs.get(key)}"
    before = Trace.load(folder / "trace.parquet").requests()
    if len(before) != len(prepared.requests):
        return f"the trace has {len(prepared.requests)} requests, in the log it has {len(before)}"
    for ours, kept in zip(prepared.requests, before, strict=True):
        if ours != kept:
            return f"request {ours.request_id!r} of the trace is not the one of the log"
    for (pool, model), (name, profile) in _kept_profiles(prepared).items():
        if not (folder / name).is_file() or profile.content_hash != Profile.load(folder / name).content_hash:
            of = f" of {model} on pool {pool}" if prepared.scenario.pool else ""
            return f"the profile{of} holds other measurements than that of the log"
    for source in _sources(prepared.scenario):
        if not (folder / source.name).is_file() or source.read_bytes() != (folder / source.name).read_bytes():
            return f"{source.name} is not as it was when the log was begun"
    return None


def _is_a_path(key: str) -> bool:
    """Whether a dotted key says where something lies that is compared by what is in it."""
    return key in ("trace.path", "predictor.profile") or re.match(r"pool\..*\.profile(\.|$)", key) is not None


def _keys(facts: Any, name: str = "") -> dict[str, Any]:
    """Nested tables by dotted key, as --set names them."""
    if name == "pool":
        facts = {pool["name"]: pool for pool in facts}
    if not isinstance(facts, dict):
        return {name: facts}
    found: dict[str, Any] = {}
    for key, value in facts.items():
        found |= _keys(value, f"{name}.{key}" if name else str(key))
    return found


def parity_of(folder: Path) -> Parity | None:
    """Feed the recorded events of a replay to the same policy again; None for a run without events.

    Raises:
        BadInput: the folder does not hold what the check needs.
    """
    folder = Path(folder)
    events = folder / "events.jsonl"
    if not events.is_file() or not (folder / "trace.parquet").is_file():
        return None
    prepared = _prepared_again(folder)
    return check_parity(read_events(events), prepared.requests, prepared.controller)


def _prepared_again(folder: Path) -> Prepared:
    """What a replay ran, from what lies beside its log: the trace as it was served, with what the policy expected."""
    scenario = _recorded_scenario(folder)
    given: dict[str, Any] = {
        "trace": {"path": Trace.load(folder / "trace.parquet")},
        "slo": {},  # deadlines are in the trace
        "policies.caching": "none",  # what they spare was expected when it ran
        "policies.tile_caching": "none",
    }
    if scenario.predictor.profile is not None:
        given["predictor.profile"] = _PROFILE
    kept = read_run(folder).info.get(_PROFILES, [])
    for pool in scenario.pool:
        own = {model: name for of, model, name in kept if of == pool.name}
        if pool.profile is not None:
            given[f"pool.{pool.name}.profile"] = own
        elif pool.hardware is None and own:
            given["predictor.profile"] = next(iter(own.values()))
    if scenario.weights is not None:
        weights = read_run(folder).info["weights"]  # the sizes as they were: the checkpoints themselves may be gone
        given |= {
            "weights.folder": None,
            "weights.weights_gb": weights["weights_gb"],
            "weights.checkpoints_gb": [f"{name}:{gb!r}" for name, gb in weights["of"].items()],
        }
    prepared = prepare(scenario.replaced(given))
    expected = read_run(folder).info["predictor"]
    tiling = prepared.tiling
    if tiling is not None:
        tiling = replace(tiling, shares=read_shares(expected.get("expected_tiles", {})))
    started = read_run(folder).info.get("start_s", {})
    elastic = {name: replace(each, start_s=started[name]) for name, each in prepared.elastic.items()}
    return replace(prepared, tiling=tiling, elastic=elastic, shares=read_shares(expected.get("expected_computed", {})))


def _recorded_scenario(folder: Path) -> Scenario:
    recorded = json.loads(json.dumps(read_run(folder).info["scenario"]))
    for kind in ("scheduling", "routing", "scaling", "weights"):
        section = recorded["policies"].get(kind)
        if section is not None and ".py:" in section["name"]:
            file, _, class_name = section["name"].rpartition(":")
            section["name"] = f"{Path(file).name}:{class_name}"
    for section in (recorded["predictor"], *recorded["pool"]):
        if hardware := section.get("hardware"):
            file = _file_of(hardware)
            section["hardware"] = hardware.replace(file, Path(file).name)
    return Scenario(**recorded, base=folder)


def _file_of(hardware: str) -> str:
    """The file that a hardware kind is of; the kind's name where it is of the shipped catalogue."""
    file, toml, _ = hardware.partition(".toml")
    return file + toml


class Begun(NamedTuple):
    """What its log says.

    Attributes:
        info: its ``run.json``.
        events: the events of its log, in order.
        left: the requests that it has not come to the end of.
        finished: the last job of each request that finished.
        now: time of its last event, seconds.
    """

    info: dict[str, Any]
    events: list[Event]
    left: list[Request]
    finished: list[Job]
    now: float

    @property
    def interrupted(self) -> bool:
        """Whether it was ended early."""
        return bool(self.info.get("interrupted"))

    @property
    def kept(self) -> dict[str, Any]:
        """What its ``run.json`` says of the files that it was given."""
        return {key: self.info[key] for key in (COPIES, _PROFILES) if key in self.info}

    @property
    def resumed(self) -> list[Any]:
        """When it was resumed before."""
        return list(self.info.get("resumed", ()))


def interrupted_replay(folder: Path, prepared: Prepared, resume: bool) -> Begun | None:
    """The replay of a folder that is to be resumed; None: this one begins.

    Raises:
        BadInput: the folder's is interrupted and not to be resumed, or is one of something else.
    """
    if not all((folder / name).is_file() for name in ("run.json", "trace.parquet", "requests.parquet", EVENTS)):
        return None  # or was killed while it began
    info = read_run(folder).info
    if not resume and not info.get("interrupted"):
        return None
    if resume and (difference := what_differs(prepared, folder)):
        raise BadInput(f"{folder} is the log of another replay: {difference}; choose another -o, or leave out --resume")
    events = read_events(folder / EVENTS)
    requests = Trace.load(folder / "trace.parquet").requests()
    ledger = Ledger(requests, info["replicas"], info.get(LOADED), info.get(INITIAL))
    for event in events:
        ledger.tell(event)
    left = still_open(ledger, requests)
    ended = len(requests) - len(left)
    if not ended:
        return None
    if not resume:
        raise BadInput(
            f"{folder} holds a replay that was interrupted when {ended} of {len(requests)} requests had ended; "
            "--resume goes on with it; to start over, remove the folder or choose another -o"
        )
    info = {key: value for key, value in info.items() if key not in ("generator", UNFINISHED)}
    last = {job.request.request_id: job for job in ledger.jobs}
    finished = [job for job in last.values() if job.state == "finished"]
    return Begun(info, events, left, finished, ledger.now)
