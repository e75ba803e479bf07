"""Columns of a trace that no run looks at: named, so that nobody believes that they have an effect."""

from __future__ import annotations

import pandas as pd

from traces.columns import DTYPES
from traces.errors import spelled_like

RECORDED = frozenset({"exec_s", "type_recorded", "status_recorded"})
"""What importers keep of what was recorded; nobody expects an effect of it."""

ALIASES = {
    "batch_size": "images",
    "cfg": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "clip_length": "frames",
    "denoising_strength": "strength",
    "guidance": "guidance_scale",
    "init_image": "image",
    "inpaint_mask": "mask",
    "lora": "adapters",
    "lora_weights": "adapters",
    "loras": "adapters",
    "mask_image": "mask",
    "n": "images",
    "negative": "negative_prompt",
    "num_frames": "frames",
    "num_images": "images",
    "num_images_per_prompt": "images",
    "num_inference_steps": "steps",
    "text": "prompt",
    "true_cfg": "true_cfg_scale",
    "user": "tenant",
}
"""What other programs call the fields of a request."""


def without_effect(frame: pd.DataFrame) -> str:
    """A sentence on the columns that are no field of a request; empty where there are none."""
    names = [
        name for name in frame.columns if name not in DTYPES and name not in RECORDED and frame[name].notna().any()
    ]
    return f"columns that have no effect: {', '.join(map(_with_hint, names))}" if names else ""


def _with_hint(name: str) -> str:
    plain = name.strip().lower().replace(" ", "_").replace("-", "_")
    meant = ALIASES.get(plain) or spelled_like(plain, DTYPES, 0.85)
    return f"{name} (did you mean {meant!r}?)" if meant else name
