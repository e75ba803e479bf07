"""The whole of Tilecast once, on this machine: measure, simulate, replay for real, compare, report.

Runs the same `tilecast` commands a user would, and prints each before it runs. `make demo` calls it.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

from backend.pictures import picture_grid, write_picture
from policies.runlog import read_run
from predictors.latency_model import LatencyModel
from predictors.profile import Profile
from reports.checks import checked
from reports.figures import summary
from traces.marks import OutputKind
from traces.request import Request
from traces.sizes import format_size, parse_sizes
from traces.trace import Trace

HERE = Path(__file__).parent
SCHEDULERS = ("fcfs", "same-size-continuous", "lookahead")
SIZES = "96x96:2,128x128:3,128x192:2,192x192:1"
STEPS = 20
GUIDANCE_SCALE = 3.0  # what tiny-image follows its prompt best with
LOAD = 0.7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/demo"))
    parser.add_argument("--seconds", type=float, default=75.0, help="length of the trace")
    arguments = parser.parse_args()
    out: Path = arguments.output
    started = time.perf_counter()

    profile, trace, scenario = out / "profile.parquet", out / "trace.parquet", HERE / "tiny_image.toml"
    measure(profile)
    generate(profile, trace, LOAD, arguments.seconds, "gamma:1.5")
    given = ("--trace", trace, "--profile", profile)
    simulated = {name: out / f"sim-{name}" for name in SCHEDULERS}
    for name, run in simulated.items():
        tilecast("simulate", scenario, *given, "--scheduler", name, "-o", run)
    best = max(SCHEDULERS, key=lambda name: merit(simulated[name]))
    real = out / f"real-{best}"
    tilecast("replay", scenario, *given, "--scheduler", best, "--save-images", "-o", real)
    tilecast("validate", simulated[best], real, "-o", out / "validation.json", may_end_with=(3,))  # 3: or not told
    tilecast("report", *simulated.values(), real, "-o", out / "report.html", "--timelines")
    grid = draw_grid(real, out / "pictures.png")

    print(f"\nThe best of the three schedulers in simulation is {best}; it ran for real.")
    print(f"  report    {out / 'report.html'}")
    print(f"  pictures  {grid}")
    print(f"  timeline  {out / f'report.{real.name}.perfetto.json'} (opens in ui.perfetto.dev)")
    print(f"  figures   {out / 'validation.json'}")
    print(f"in {time.perf_counter() - started:.0f} s")


def tilecast(*arguments: object, may_end_with: tuple[int, ...] = ()) -> None:
    """Run one command, shown first; it has to end with 0 or one of the exit codes named."""
    words = [str(argument) for argument in arguments]
    print("\n$ tilecast " + shlex.join(words), flush=True)
    done = subprocess.run([str(Path(sys.executable).with_name("tilecast")), *words], check=False)
    if done.returncode not in may_end_with:
        done.check_returncode()


def measure(profile: Path, *options: object, minutes: float = 1) -> None:
    """Measure tiny-image on one core of this machine, at the sizes of the demo."""
    sizes = ",".join(format_size(size) for size in parse_sizes(SIZES).values)
    tilecast(
        "profile", "--model", "tiny-image", "--device", "cpu", "--threads", 1, "--sizes", sizes,
        "--max-batch", 4, "--repeats", 8, "--minutes", minutes, *options, "-o", profile,
    )  # fmt: skip


def generate(profile: Path, trace: Path, load: float, duration_s: float, arrivals: str, seed: int = 0) -> None:
    """A trace that keeps one replica busy for the share ``load`` of its time, one request at a time."""
    tilecast(
        "trace", "generate", "--rate", f"{load / mean_service_s(profile):.4f}", "--duration", f"{duration_s:.0f}",
        "--arrivals", arrivals, "--sizes", SIZES, "--steps", STEPS, "--guidance-scale", GUIDANCE_SCALE,
        "--model", "tiny-image", "--prompts", HERE / "prompts.txt", "--seed", seed, "-o", trace,
    )  # fmt: skip


def mean_service_s(profile: Path) -> float:
    """Mean seconds of a request of the demo's mix, alone on an idle replica."""
    measured = Profile.load(profile)
    table = LatencyModel.fit(measured, "tiny-image", measured.executors("tiny-image")[0])
    mix = parse_sizes(SIZES)
    seconds = [table.standalone_s(Request("one", 0.0, h, w, STEPS)) for h, w, _ in mix.values]
    return sum(s * p for s, p in zip(seconds, mix.weights, strict=True)) / sum(mix.weights)


def merit(run: Path) -> tuple[float, float]:
    """More deadlines met is better; then a lower P95."""
    figures = summary(checked(read_run(run)))
    return figures["slo_attainment"], -figures["latency_p95_s"]


def draw_grid(run: Path, path: Path) -> Path:
    """The first pictures of a run, with their prompts."""
    requests = read_run(run).requests
    prompts = Trace.load(run / "trace.parquet").frame["prompt"]
    square = requests.index[(requests["status"] == "finished") & (requests["height"] == 128)][:20]
    pictures = [Image.open(run / "images" / f"{number:06d}.png") for number in square]
    write_picture(picture_grid(pictures, [prompts[number] for number in square]), path, OutputKind("demo"))
    return path


if __name__ == "__main__":
    main()
