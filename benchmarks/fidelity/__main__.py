"""Simulation against reality, as a study that anybody can repeat: every figure beside its error and its spread.

    python -m benchmarks.fidelity -o FOLDER
    python -m benchmarks.fidelity --executor patched --patch-floor 4 --schedulers lookahead mixed-fcfs -o FOLDER
    python -m benchmarks.fidelity --executor patched --caching first-block --schedulers lookahead -o FOLDER

For each load a trace of tiny-image requests is generated, of which nothing was measured, and replayed on one core
``--repeats`` times by each scheduler. Before and after each replay one round of the profile is measured, and the
simulations of a load and scheduler draw their durations from these rounds: a machine has slow and fast spells that last
for minutes, and queueing multiplies them. Figures are means over ``--seeds`` draws of noise. A diagnostic tells the
errors of the model from those of the profile: the errors of simulations that are told the mean speed of the machine in
each real run (`world.slowdown`).

What is finished is kept in FOLDER: started again, the study goes on where it was. FOLDER then holds ``fidelity.json``
and ``fidelity.md``; ``--results`` keeps a copy of the former named by hardware, executor and date.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.fidelity.compare import Findings
from benchmarks.fidelity.study import Study
from benchmarks.fidelity.table import markdown
from benchmarks.outputs import BENCHMARK
from policies.scheduling import SCHEDULERS
from traces.errors import BadInput
from traces.files import write_document


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/fidelity"))
    parser.add_argument("--loads", type=float, nargs="+", default=[0.5, 0.7, 0.9], help="of one request at a time")
    schedulers = ["fcfs", "same-size-continuous", "least-slack", "lookahead"]
    parser.add_argument("--schedulers", nargs="+", default=schedulers, choices=SCHEDULERS, metavar="NAME")
    parser.add_argument("--executor", choices=("whole", "patched"), default="whole")
    parser.add_argument("--patch-floor", type=int, help="latent pixels; 4 mixes all these sizes in one forward")
    parser.add_argument("--caching", help="a caching policy, such as first-block")
    parser.add_argument("--requests", type=int, default=200, help="of each run")
    parser.add_argument("--repeats", type=int, default=2, help="real runs of each load and scheduler")
    parser.add_argument("--steps", type=int, default=8, help="denoising steps of a request")
    parser.add_argument("--seeds", type=int, default=20, help="simulated runs of each")
    parser.add_argument("--seed", type=int, default=1, help="of the traces")
    parser.add_argument("--results", type=Path, help="folder for a copy of the findings, named by hardware and date")
    arguments = parser.parse_args(given)
    study = Study(
        arguments.output,
        tuple(arguments.loads),
        tuple(arguments.schedulers),
        arguments.repeats,
        arguments.requests,
        arguments.steps,
        arguments.executor,
        arguments.patch_floor,
        arguments.caching,
        arguments.seed,
    )
    try:
        study.carry_out(lambda text: print(text, file=sys.stderr, flush=True))
        findings = Findings.of(study, arguments.seeds)
    except BadInput as error:
        parser.error(str(error))
    document = BENCHMARK.json(json.dumps(findings.document(), indent=1)) + "\n"
    words = BENCHMARK.comment(markdown(findings), ".md") + "\n"
    written = {study.folder / "fidelity.json": document, study.folder / "fidelity.md": words}
    if arguments.results is not None:
        hardware = re.sub(r"\W+", "-", findings.facts["hardware"].lower())
        name = f"fidelity-{hardware}-{arguments.executor}-{findings.facts['date']}.json"
        written[arguments.results / name] = document
    for path, text in written.items():
        write_document(text, path, BENCHMARK)
    print(words)
    print("wrote", ", ".join(map(str, written)))


if __name__ == "__main__":
    main()
