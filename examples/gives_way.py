"""Pictures and clips on one replica: a clip gives way to a picture at its next step, simulated and for real.

python examples/gives_way.py [FOLDER]   # where profiles, pictures and logs go; by default they do not stay
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import tilecast as tc
from backend.profiling import measure_profile
from tilecast.recorded import parity_of

CLIP = ("tiny-video", 64, 9, 60, 60.0)  # model, side, frames, steps, seconds until it is late
PICTURE = ("tiny-image", 64, 1, 4, 20.0)
ASKED = [(0.0, CLIP), (0.3, PICTURE), (1.2, PICTURE)]


def measure(folder: Path) -> dict[str, str]:
    """Profiles of both models on this machine, just enough for these requests."""
    files = {}
    for model, side, frames, _, _ in (CLIP, PICTURE):
        files[model] = f"{model}.parquet"
        measure_profile(model, sizes=[(side, side, frames)], max_batch=1, repeats=2).save(folder / files[model])
    return files


def steps_before_pictures(run: tc.Result) -> list[int]:
    """How many steps of the clip were done when each picture began."""
    denoised = run.steps[run.steps["planned_steps"] > 1]  # all others are encode and decode
    of_clip = denoised["composition"].str.endswith(f"x{CLIP[2]}")
    return denoised["steps"].where(of_clip, 0).cumsum()[~of_clip].tolist()


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    prompt = "a red circle on a white background"
    asked = [
        tc.Request(f"r{at}", at_s, side, side, steps, frames=frames, model=model, prompt=prompt, slo_s=late_s)
        for at, (at_s, (model, side, frames, steps, late_s)) in enumerate(ASKED)
    ]
    scenario = tc.Scenario(
        model="tiny-image",
        trace=tc.Trace.from_requests(asked),
        pool=[{"name": "both", "models": ["tiny-image", "tiny-video"], "profile": measure(folder)}],
        predictor={"latency_model": "linear"},  # few sizes were measured
        cluster={"threads": 1},
        base=folder,
    )
    simulated = tc.simulate(scenario)
    real = tc.replay(scenario, folder / "real", save_images=True)
    for name, run in (("simulated", simulated), ("real", real)):
        first, second = steps_before_pictures(run)
        took_s = (run.requests["finish_s"] - run.requests["arrival_s"]).tolist()
        print(f"{name}: the clip had done {first} and {second} of {CLIP[3]} steps when the pictures began;", end=" ")
        print(f"they took {took_s[1]:.2f} and {took_s[2]:.2f} s, the clip {took_s[0]:.2f} s")
    parity = parity_of(folder / "real")
    if parity is not None:
        print(f"of the {parity.decisions} decisions of the real run the same policies reproduce", end=" ")
        print("all" if parity.same else f"all before {parity.difference}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with TemporaryDirectory() as temporary:
            main(Path(temporary))
