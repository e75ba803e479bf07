"""Draws ``docs/images/schedulers.svg``, the picture of the README: who is served in time at which load.

    python -m tools.picture

Simulates ``examples/tiny_image.toml`` under four schedulers at seven loads: half a minute on one core.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import escape

import tilecast as tc

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "schedulers.svg"
SCENARIO = ROOT / "examples" / "tiny_image.toml"
SCHEDULERS = ("lookahead", "least-slack", "same-size-continuous", "fcfs")
LOADS = (0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6)
"""Times the trace's own rate."""
STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.ground { fill: #ffffff } .faint { fill: #59636e }
.rule { stroke: #d1d9e0 } .title { font-weight: 600; font-size: 15px }
polyline { fill: none; stroke-width: 2.5 }
.s0 { stroke: #0b7285; fill: #0b7285 } .s1 { stroke: #7048e8; fill: #7048e8; stroke-dasharray: 9 3 }
.s2 { stroke: #b35900; fill: #b35900; stroke-dasharray: 4 3 }
.s3 { stroke: #59636e; fill: #59636e; stroke-dasharray: 1 3 }
text.s0, text.s1, text.s2, text.s3 { stroke: none }
@media (prefers-color-scheme: dark) {
  .ground { fill: #0d1117 } text { fill: #e6edf3 } .faint { fill: #9198a1 } .rule { stroke: #3d444d }
  .s0 { stroke: #3bc9db; fill: #3bc9db } .s1 { stroke: #b197fc; fill: #b197fc }
  .s2 { stroke: #ffa94d; fill: #ffa94d } .s3 { stroke: #9198a1; fill: #9198a1 }
}"""
LEFT, TOP, WIDTH, HEIGHT, RIGHT = 58, 62, 440, 210, 190


def attainments(
    loads: Sequence[float] = LOADS, schedulers: Sequence[str] = SCHEDULERS
) -> tuple[list[float], dict[str, list[float]]]:
    """Requests a second at each load, and the share in time of each scheduler at each."""
    scenario = tc.Scenario(
        model="tiny-image",
        trace=SCENARIO.parent / "traces" / "tiny_image.csv",
        profile="cpu-1core",
        slo={"scale": 5.0},
        policies={"scheduling": {"name": "lookahead", "max_batch": 4}},
    )
    arrivals_s = tc.Trace.load(SCENARIO.parent / "traces" / "tiny_image.csv").frame["arrival_s"].to_numpy(float)
    own_rps = float((len(arrivals_s) - 1) / (arrivals_s[-1] - arrivals_s[0]))
    shares = {}
    for name in schedulers:
        policy = {"name": name} if name == "fcfs" else {"name": name, "max_batch": 4}
        runs = [
            tc.simulate(scenario.replaced({"policies.scheduling": policy, "trace.rate_scale": load})) for load in loads
        ]
        shares[name] = [float(run.summary()["slo_attainment"]) for run in runs]
    return [own_rps * load for load in loads], shares


def drawn(rates: Sequence[float], shares: Mapping[str, Sequence[float]]) -> str:
    """The picture as SVG."""
    low, high = rates[0], rates[-1]

    def x(rate: float) -> float:
        return LEFT + WIDTH * (rate - low) / (high - low)

    def y(share: float) -> float:
        return TOP + HEIGHT * (1 - share)

    total_width, total_height = LEFT + WIDTH + RIGHT, TOP + HEIGHT + 52
    said = "; ".join([f"{name} {100 * share[-1]:.0f} %" for name, share in shares.items()])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total_width} {total_height}" role="img">',
        f"<title>Requests in time at {high:.2f} a second: {escape(said)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="ground" width="{total_width}" height="{total_height}"/>',
        f'<text x="{LEFT - 40}" y="24" class="title">Requests in time, by load and scheduler</text>',
        f'<text x="{LEFT - 40}" y="43" class="faint">tiny-image on one CPU core, due within 5 times what it takes '
        "alone; simulated</text>",
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        at = y(share)
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="faint" x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    for rate in rates:
        parts.append(
            f'<text class="faint" x="{x(rate):.1f}" y="{TOP + HEIGHT + 20}" text-anchor="middle">{rate:.2f}</text>'
        )
    middle = f'x="{LEFT + WIDTH / 2}" y="{TOP + HEIGHT + 42}" text-anchor="middle"'
    parts.append(f'<text class="faint" {middle}>requests a second</text>')
    labels = _apart([y(values[-1]) + 4 for values in shares.values()], 18)
    for at, (name, values) in enumerate(shares.items()):
        line = " ".join([f"{x(rate):.1f},{y(value):.1f}" for rate, value in zip(rates, values, strict=True)])
        parts.append(f'<polyline class="s{at}" style="fill: none" points="{line}"/>')
        parts.append(f'<text class="s{at}" x="{LEFT + WIDTH + 10}" y="{labels[at]:.1f}">{name} {values[-1]:.0%}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _apart(heights: Sequence[float], least: float) -> list[float]:
    """The heights of labels, moved down where they would touch."""
    moved = list(heights)
    order = sorted(range(len(moved)), key=lambda at: moved[at])
    for above, below in pairwise(order):
        moved[below] = max(moved[below], moved[above] + least)
    return moved


if __name__ == "__main__":
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_text(drawn(*attainments()), encoding="utf-8")
    print(f"wrote {PICTURE}")
