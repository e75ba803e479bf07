"""A small pipeline on disk, as a user would have one."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SDXL-class pipeline with random weights in diffusers' folder layout."""
    pytest.importorskip("torch")
    from tests.backend import tiny_pipelines

    folder = tmp_path_factory.mktemp("models") / "tiny-sdxl"
    tiny_pipelines.sdxl().save_pretrained(folder)
    return folder
