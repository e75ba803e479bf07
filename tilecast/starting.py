"""A first scenario: a file that runs as it stands, and says of every key what else it could be."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

from tilecast.keys import Key, as_toml, scenario_keys, section_in
from tilecast.scenario import Scenario
from tilecast.served import served_models
from traces.errors import BadInput
from traces.files import write_document
from traces.marks import OutputKind
from traces.output import check_file
from traces.streams import stream
from traces.trace import TRACE, Trace
from traces.workload import Workload

SCENARIO = OutputKind("scenario")
MODEL, HARDWARE = "sdxl", "h100-sxm"
LOAD = 0.7
"""Share of its time that a replica is asked for, one request at a time."""
REQUESTS = 200
_WIDTH = 110


def write_scenario(
    path: Path | str,
    model: str = MODEL,
    *,
    profile: str | None = None,
    hardware: str | None = None,
    replicas: int = 1,
    rate_rps: float | None = None,
    seed: int = 0,
) -> list[Path]:
    """Write a commented scenario and a trace beside it, with which it runs as it stands; what was written.

    Args:
        path: the file, which must not be there; the trace has its name and ``.trace.csv``.
        model: a known model.
        profile: measurements: a file, or what ships under that name.
        hardware: a kind of ``tilecast hardware list``, estimated without a profile; by default ``h100-sxm``, unless
            there is a profile.
        replicas: how many serve.
        rate_rps: requests a second, in the mean; by default as many as keep the replicas busy for 70 % of their time,
            one at a time.
        seed: of the requests.

    Raises:
        BadInput: the file is there, or cannot be written; or nothing of this name is known.
    """
    path = Path(path)
    beside = path.with_name(f"{path.stem}.trace.csv")
    for each, kind in ((path, SCENARIO), (beside, TRACE)):
        if each.exists():
            raise BadInput(f"{each} is there already; give another name, or remove it")
        check_file(each, kind)
    if profile is None and hardware is None:
        hardware = HARDWARE
    workload = Workload.asking(model, 1.0)
    set_keys: dict[str, object] = {
        "model": workload.model,
        "seed": seed,
        "trace.path": beside.name,
        "cluster.replicas": replicas,
        **({} if profile is None else {"predictor.profile": profile}),
        **({} if hardware is None else {"predictor.hardware": hardware}),
        "policies.scheduling": "lookahead",
        "slo.scale": 5.0,
        "plan.attainment": 0.95,
    }
    scenario = Scenario(workload.model, profile=profile, hardware=hardware, base=path.parent)
    [member] = served_models(scenario)
    if rate_rps is None:
        some = workload.generate(float(REQUESTS), rng=stream(seed, "workload")).requests()
        alone_s = sum([member.table.standalone_s(request) for request in some]) / len(some)
        rate_rps = LOAD * replicas / alone_s
    trace: Trace = workload.generate(REQUESTS / rate_rps, rate_rps, stream(seed, "workload"))
    if not len(trace):
        raise BadInput(f"no request arrives at {rate_rps:g} a second; expected a higher rate")
    on = f"{replicas} replica{'s' * (replicas > 1)}"
    head = f"{workload.model}: {len(trace)} requests, {rate_rps:.3g} a second, on {on}."
    text = "\n".join([f"# {head}", *_lines(path.name, set_keys)]) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    trace.save(beside)
    write_document(SCENARIO.comment(text, ".toml"), path, SCENARIO)
    return [path, beside]


def _lines(name: str, set_keys: dict[str, object]) -> Iterator[str]:
    sections: dict[str, list[Key]] = {}
    for key in scenario_keys():
        sections.setdefault(key.name.partition(".")[0] if "." in key.name else "", []).append(key)
    yield f"#   tilecast scenario check {name}"
    yield f"#   tilecast simulate {name} -o run"
    yield f"#   tilecast plan {name} -o plan"
    yield "# Lines like '# KEY = VALUE' are keys with their defaults: take the # away to set one."
    yield "# Paths are relative to this file."
    for section, keys in sections.items():
        used = [key for key in keys if key.name in set_keys]
        if section and not used:
            continue
        yield ""
        if section:
            yield f"[{section}]"
        for key in keys:
            yield from _key_lines(key, section, set_keys)
    others = [name for name in sections if name and not any(key.name in set_keys for key in sections[name])]
    yield ""
    yield "# Other sections, each with keys of its own ('tilecast scenario keys SECTION'):"
    for name in others:
        annotation = Scenario.model_fields[name.removesuffix("[]")].annotation
        inner = section_in(annotation)
        assert inner is not None
        told = (inner.__doc__ or "").strip().splitlines()[0]
        yield f"#   {f'[[{name[:-2]}]]' if name.endswith('[]') else f'[{name}]':<12} {told}"


def _key_lines(key: Key, section: str, set_keys: dict[str, object]) -> Iterator[str]:
    """One key: set, or as a comment; its meaning above it."""
    inner = key.name.removeprefix(f"{section}.") if section else key.name
    if "[]" in inner or "." in inner:
        return  # of a table or a list of tables inside the section
    limits = f" ({key.limits})" if key.limits else ""
    meaning = textwrap.wrap(f"{key.meaning}{limits}", _WIDTH)
    yield from [f"# {line}" for line in meaning]
    if key.name in set_keys:
        yield f"{inner} = {as_toml(set_keys[key.name])}"
    elif key.default:
        yield f"# {inner} = {key.default}"
    else:
        yield f"# {inner}: {key.takes}; not set"
