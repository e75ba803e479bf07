"""What tests of several verbs share: a scenario for a policy of each kind."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from predictors.profile import Profile
from tests.cli.run_command import run
from tests.tilecast.test_setup import write_profile
from traces.trace import Trace


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scenario of each kind, a trace of a few requests, and the file of the policy that is tried."""
    folder = tmp_path_factory.mktemp("broken")
    write_profile(folder / "profile.parquet")
    profile = Profile.load(folder / "profile.parquet")
    Profile(pd.concat([profile.frame, profile.frame.assign(executor="patched")])).save(folder / "profile.parquet")
    made = ("trace", "generate", "--model", "tiny-image", "--rate", 4, "--duration", 2, "--steps", 3)
    run(*made, "--sizes", "64x64", "-o", folder / "trace.parquet")
    run(*made, "--sizes", "384x384", "-o", folder / "large.parquet")
    frame = Trace.load(folder / "trace.parquet").frame.copy()
    frame["checkpoint"] = [f"M{index % 4}" for index in range(len(frame))]
    Trace(frame, "many").save(folder / "many.parquet")
    common = 'model = "tiny-image"\n[predictor]\nprofile = "profile.parquet"\nlatency_model = "linear"\n[trace]\n'
    weights = "[weights]\nmemory_gb = 2.5\nweights_gb = 1.0\n"
    for name, trace, more in (
        ("scheduling", "trace", "[cluster]\nreplicas = 2\n[faults]\noutages = ['0.1:0:0.2']\n"),
        ("routing", "trace", "[cluster]\nreplicas = 2\n[faults]\noutages = ['0.1:0:0.2']\n"),
        ("caching", "trace", "[cluster]\nexecutor = 'patched'\n"),
        ("placement", "large", "[tiling]\nrefine = 0.5\nmode = 'clamp'\n[cluster]\ndevices = 2\n"),
        ("weights", "many", weights),
    ):
        (folder / f"{name}.toml").write_text(f'{common}path = "{trace}.parquet"\n{more}')
    return folder
