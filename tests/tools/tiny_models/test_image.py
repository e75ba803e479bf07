"""The embedded model `tiny-image`: its world, the reader that judges it, and the shipped weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from tools.tiny_models import measure_image, measuring, train_image  # noqa: E402
from tools.tiny_models.scene_reader import Reading, accuracy_on_drawn, judge, read, share_right  # noqa: E402
from tools.tiny_models.scenes import (  # noqa: E402
    PALETTE,
    RELATIONS,
    Scene,
    Thing,
    all_prompts,
    all_scenes,
    draw,
    held_out_scenes,
    training_scenes,
)
from tools.tiny_models.tiny_image import FOLDER, Parts, normalise_latents, word_tokenizer  # noqa: E402

RED_CIRCLE = Thing("red", "circle")
BLUE_SQUARE = Thing("blue", "square")
PAIR = Scene(RED_CIRCLE, "green", "left of", BLUE_SQUARE)
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return measuring.load(FOLDER)


def drawn(scene: Scene, height: int = 128, width: int = 128, seed: int = 0) -> np.ndarray:
    return draw(scene, height, width, np.random.default_rng(seed))


# ---------------------------------------------------------------------- grammar


def test_a_prompt_says_its_scene() -> None:
    assert PAIR.prompt == "a red circle left of a blue square on green"
    assert Scene(RED_CIRCLE, "green").prompt == "a red circle on green"


def test_every_prompt_parses_back_and_none_repeats() -> None:
    prompts = all_prompts()
    assert len(set(prompts)) == len(prompts)
    assert [Scene.parse(prompt).prompt for prompt in prompts] == prompts


@pytest.mark.parametrize(
    ("prompt", "complaint"),
    [
        ("a red circle", "names no background"),
        ("a red circle on mauve", "unknown background 'mauve'"),
        ("a red star on green", "unknown shape 'star'"),
        ("a pink circle on green", "unknown colour 'pink'"),
        ("red circle on green", "expected 'a <colour> <shape>'"),
        ("a red circle near a blue square on green", "expected 'a <colour> <shape>'"),
        ("a red circle on red", "must differ"),
        ("a red circle above a red square on green", "must differ"),
    ],
)
def test_a_bad_prompt_is_told_what_is_wrong(prompt: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Scene.parse(prompt)


def test_a_relation_needs_a_second_thing() -> None:
    with pytest.raises(ValueError, match="come together"):
        Scene(RED_CIRCLE, "green", "above")
    with pytest.raises(ValueError, match="unknown relation"):
        Scene(RED_CIRCLE, "green", "inside", BLUE_SQUARE)


def test_held_out_and_training_scenes_share_nothing_and_miss_nothing() -> None:
    held_out, training = set(held_out_scenes()), set(training_scenes())
    assert not held_out & training
    assert held_out | training == set(all_scenes())
    assert 0.10 < len(held_out) / len(all_scenes()) < 0.14
    # The split is part of every published figure: it may not move.
    assert Scene.parse("a red triangle on blue") in held_out
    assert PAIR not in held_out


def test_the_tokenizer_knows_every_word_and_ends_every_prompt() -> None:
    tokenizer = word_tokenizer()
    ids = tokenizer(all_prompts()[::40], padding="max_length").input_ids
    assert {len(row) for row in ids} == {tokenizer.model_max_length}
    assert all(tokenizer.unk_token_id not in row for row in ids)
    assert all(row.count(tokenizer.eos_token_id) == 1 for row in ids)
    assert tokenizer("A Red zebra").input_ids[3] == tokenizer.unk_token_id


# ---------------------------------------------------------------------- drawing and reading


@pytest.mark.parametrize("size", [(64, 64), (128, 96), (64, 128), (192, 128)])
def test_drawing_fits_any_canvas_and_depends_on_its_generator_only(size: tuple[int, int]) -> None:
    picture = drawn(PAIR, *size)
    assert picture.shape == (*size, 3)
    assert picture.dtype == np.uint8
    assert np.array_equal(picture, drawn(PAIR, *size))
    assert not np.array_equal(picture, drawn(PAIR, *size, seed=1))


def test_nothing_touches_the_edge() -> None:
    rng = np.random.default_rng(0)
    for scene in all_scenes()[::400]:
        picture = draw(scene, 64, 96, rng)
        edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert (edge == PALETTE[scene.background]).all()


@pytest.mark.parametrize("size", [(128, 128), (64, 64), (96, 128)])
def test_the_reader_is_right_on_drawn_scenes(size: tuple[int, int]) -> None:
    colour, shape = accuracy_on_drawn(all_scenes()[::71], *size)
    assert colour >= 0.99
    assert shape >= 0.99


def test_the_reader_names_what_it_sees() -> None:
    reading = read(drawn(PAIR))
    assert reading.background == "green"
    assert {(blob.colour, blob.shape) for blob in reading.blobs} == {("red", "circle"), ("blue", "square")}


@pytest.mark.parametrize("relation", RELATIONS)
def test_swapped_places_are_caught(relation: str) -> None:
    told = replace(PAIR, relation=relation)
    swapped = judge(told, drawn(replace(PAIR, relation=OPPOSITE[relation])))
    assert judge(told, drawn(told)).colour
    assert not swapped.colour
    assert not swapped.shape


def test_planted_faults_are_caught() -> None:
    wrong_colour = judge(PAIR, drawn(replace(PAIR, second=Thing("white", "square"))))
    assert (wrong_colour.colour, wrong_colour.shape) == (False, True)
    wrong_shape = judge(PAIR, drawn(replace(PAIR, first=Thing("red", "triangle"))))
    assert (wrong_shape.colour, wrong_shape.shape) == (True, False)
    wrong_ground = judge(PAIR, drawn(replace(PAIR, background="white")))
    assert (wrong_ground.colour, wrong_ground.shape) == (False, True)
    one_missing = judge(PAIR, drawn(Scene(RED_CIRCLE, "green")))
    assert (one_missing.colour, one_missing.shape) == (False, False)


def test_a_third_thing_and_a_patchy_thing_are_caught() -> None:
    picture = drawn(PAIR).copy()
    picture[2:22, 54:74] = PALETTE["white"]
    assert not judge(PAIR, picture).colour
    picture = drawn(PAIR).copy()
    red = (picture == PALETTE["red"]).all(axis=-1)
    red[:, ::2] = False
    picture[red] = PALETTE["yellow"]
    assert not judge(PAIR, picture).colour


def test_noise_and_an_empty_picture_are_no_scene() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    assert not judge(PAIR, noise).colour
    assert not judge(PAIR, noise).shape
    empty = np.full((128, 128, 3), PALETTE["green"], dtype=np.uint8)
    assert read(empty) == Reading("green", ())
    assert not judge(PAIR, empty).colour


# ---------------------------------------------------------------------- the model


def test_normalising_the_latent_space_keeps_the_pictures() -> None:
    torch.manual_seed(0)
    vae = Parts.untrained().vae.eval()
    pictures = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        latents = vae.encode(pictures).latent_dist.mean
        before = vae.decode(latents).sample
        normalise_latents(vae, latents)
        normal = vae.encode(pictures).latent_dist.mean
        after = vae.decode(normal).sample
    assert torch.allclose(normal.mean((0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(normal.std((0, 2, 3)), torch.ones(4), atol=1e-4)
    assert torch.allclose(before, after, atol=1e-4)


def test_the_shipped_weights_are_small_and_safe() -> None:
    assert 0 < measuring.weights_bytes(FOLDER) <= 12_000_000
    suffixes = {path.suffix for path in FOLDER.rglob("*") if path.is_file()}
    assert suffixes <= {".safetensors", ".json", ".md"}


def test_the_model_ships_with_the_tokenizer_it_was_trained_with(pipeline: Any) -> None:
    assert pipeline.tokenizer_2.get_vocab() == word_tokenizer().get_vocab()


@pytest.mark.parametrize("size", [(64, 64), (96, 128), (160, 64)])
def test_one_seed_one_picture_at_any_size(pipeline: Any, size: tuple[int, int]) -> None:
    once, again = (measure_image.generate(pipeline, [PAIR], size, steps=3) for _ in range(2))
    assert once.shape == (1, *size, 3)
    assert np.array_equal(once, again)


def test_held_out_prompts_come_out_in_their_colours(pipeline: Any) -> None:
    scenes = measure_image.chosen_scenes(12)
    pictures = measure_image.generate(pipeline, scenes, steps=12)
    colour, _ = share_right([judge(scene, picture) for scene, picture in zip(scenes, pictures, strict=True)])
    # Three colours and two places guessed at random would be right about once in a hundred.
    assert colour >= 0.6


# ---------------------------------------------------------------------- command lines


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model", "no-such-folder"],
        ["--prompts", "0"],
        ["--prompts", "100000"],
        ["--steps", "0"],
    ],
)
def test_measuring_refuses_bad_input(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        measure_image.main(arguments)
    assert stop.value.code == 2
    assert "error: " in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("arguments", [["--minutes", "0"], ["--threads", "0"]])
def test_training_refuses_bad_input(arguments: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        train_image.main(["-o", str(tmp_path / "model"), *arguments])
    assert stop.value.code == 2
    assert not list(tmp_path.iterdir())


def test_training_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        train_image.main(["-o", str(tmp_path)])
    assert stop.value.code == 2
    assert "exists" in capsys.readouterr().err
