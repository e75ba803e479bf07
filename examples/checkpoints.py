"""Three checkpoints on one replica with room for two: what is loaded and what leaves, simulated and for real.

python examples/checkpoints.py [FOLDER]   # where checkpoints, profile and logs go; by default they do not stay
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import tilecast as tc
from backend.loading import load_pipeline
from backend.profiling import measure_profile
from tilecast.recorded import parity_of

ASKED = [(0, "day"), (0, "night"), (3, "dusk"), (3, "night"), (6, "day")]
BRIGHTNESS = {"day": 1.0, "dusk": 0.6, "night": 0.2}


def write_checkpoints(folder: Path) -> None:
    """Three sets of weights for tiny-image: each draws in a light of its own."""
    for name, brightness in BRIGHTNESS.items():
        pipeline = load_pipeline("tiny-image")
        last = pipeline.vae.decoder.conv_out
        last.weight.data *= brightness
        last.bias.data = brightness * (last.bias.data + 1) - 1  # -1 is black
        pipeline.save_pretrained(folder / name)


def loads_of(run: tc.Result) -> list[str]:
    """The checkpoints that a run loaded, with predicted and actual seconds, in order."""
    loads = run.steps[run.steps["requests"] == 0]  # no request is served meanwhile
    took_s = loads["end_s"] - loads["start_s"]
    return [
        f"{name} {predicted_s:.2f} s, took {s:.2f} s"
        for name, predicted_s, s in zip(loads["checkpoint"], loads["predicted_s"], took_s, strict=True)
    ]


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    write_checkpoints(folder / "checkpoints")
    measure_profile("tiny-image", sizes=[(64, 64, 1)], max_batch=2, repeats=2).save(folder / "profile.parquet")
    prompt = "a red circle on a white background"
    asked = [
        tc.Request(f"r{at}", at_s, 64, 64, 4, prompt=prompt, checkpoint=name) for at, (at_s, name) in enumerate(ASKED)
    ]
    scenario = tc.Scenario(
        model="tiny-image",
        trace=tc.Trace.from_requests(asked),
        predictor={"profile": str(folder / "profile.parquet"), "latency_model": "linear"},  # one size was measured
        cluster={"threads": 1},
        policies={"weights": "lru"},
        weights={
            "folder": str(folder / "checkpoints"),
            "memory_gb": 0.035,  # each takes 0.016, as its files say
            "host_gb": 0.02,
            "soft_slo_scale": 1e5,  # nothing is late, so that no decision is close
            "visit": 0.0,
        },
    )
    simulated = tc.simulate(scenario)
    real = tc.replay(scenario, folder / "real", save_images=True)
    print("simulated:", *loads_of(simulated), sep="\n  ")
    print("real:", *loads_of(real), sep="\n  ")
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
