"""The embedded model `tiny-video`: its moving world, the reader that judges it, its clips, and the shipped weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from PIL import Image  # noqa: E402

from backend.clips import clip_strip, write_clip  # noqa: E402
from backend.executor import Executor  # noqa: E402
from backend.loading import geometry_of_pipeline, load_pipeline  # noqa: E402
from tools.clip import CLIP, PROMPTS, beside  # noqa: E402
from tools.picture import ROOT  # noqa: E402
from tools.tiny_models import measure_video, train_video  # noqa: E402
from tools.tiny_models.clip_reader import Verdict, accuracy_on_drawn, judge, share_right  # noqa: E402
from tools.tiny_models.measuring import weights_bytes  # noqa: E402
from tools.tiny_models.moving_scenes import (  # noqa: E402
    FRAMES,
    MovingScene,
    all_scenes,
    draw_clip,
    held_out_scenes,
    training_scenes,
)
from tools.tiny_models.scenes import PALETTE, Thing  # noqa: E402
from tools.tiny_models.tiny_video import FOLDER, NATIVE_SIZE, Parts, set_latent_statistics, word_tokenizer  # noqa: E402
from traces.errors import BadInput  # noqa: E402
from traces.geometry import geometry_of  # noqa: E402
from traces.request import Request  # noqa: E402

SCENE = MovingScene(Thing("red", "circle"), "blue", "right", "quickly", "big")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return load_pipeline("tiny-video")


def drawn(scene: MovingScene, height: int = 64, width: int = 64, seed: int = 0, frames: int = FRAMES) -> np.ndarray:
    return draw_clip(scene, height, width, np.random.default_rng(seed), frames)


# ---------------------------------------------------------------------- grammar


@pytest.mark.parametrize(
    ("scene", "prompt"),
    [
        (SCENE, "a big red circle moving right quickly on blue"),
        (replace(SCENE, speed=None, size=None), "a red circle moving right on blue"),
        (replace(SCENE, direction=None, speed=None), "a big red circle standing still on blue"),
    ],
)
def test_a_prompt_says_its_scene(scene: MovingScene, prompt: str) -> None:
    assert scene.prompt == prompt


def test_every_prompt_parses_back_and_none_repeats() -> None:
    scenes = all_scenes()
    assert len({scene.prompt for scene in scenes}) == len(scenes)
    assert [MovingScene.parse(scene.prompt) for scene in scenes] == scenes


@pytest.mark.parametrize(
    ("prompt", "complaint"),
    [
        ("", "names no background"),
        ("a red circle moving right", "names no background"),
        ("a red circle on blue", "says neither"),
        ("a red circle moving on blue", "expected 'moving DIRECTION"),
        ("a red circle moving right very quickly on blue", "expected 'moving DIRECTION"),
        ("a red circle moving north on blue", "unknown direction 'north'"),
        ("a red circle moving right madly on blue", "unknown speed 'madly'"),
        ("a huge red circle moving right on blue", "unknown size 'huge'"),
        ("a red star moving right on blue", "unknown shape 'star'"),
        ("a red circle moving right on mauve", "unknown background 'mauve'"),
        ("red circle standing still on blue", "expected 'a \\[small or big\\] COLOUR SHAPE'"),
        ("a red circle moving right on red", "cannot be seen"),
    ],
)
def test_a_bad_prompt_is_told_what_is_wrong(prompt: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        MovingScene.parse(prompt)


def test_what_stands_still_has_no_speed() -> None:
    with pytest.raises(ValueError, match="no speed"):
        replace(SCENE, direction=None)


def test_held_out_and_training_scenes_share_nothing_and_miss_nothing() -> None:
    held_out, training = set(held_out_scenes()), set(training_scenes())
    assert not held_out & training
    assert held_out | training == set(all_scenes())
    assert 0.10 < len(held_out) / len(all_scenes()) < 0.14
    # The split is part of every published figure: it may not move.
    assert SCENE in held_out
    assert MovingScene.parse("a red circle moving right on blue") not in held_out


def test_the_tokenizer_knows_every_word_and_ends_every_prompt() -> None:
    tokenizer = word_tokenizer()
    rows = tokenizer([scene.prompt for scene in all_scenes()[::20]]).input_ids
    assert all(tokenizer.unk_token_id not in row and row[-1] == tokenizer.eos_token_id for row in rows)
    assert max(map(len, rows)) <= train_video.PROMPT_TOKENS
    assert tokenizer("").input_ids == [tokenizer.eos_token_id]
    assert tokenizer("A Red zebra").input_ids[2] == tokenizer.unk_token_id


# ---------------------------------------------------------------------- drawing and reading


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (48, 96), (128, 64)])
def test_drawing_fits_any_canvas_and_depends_on_its_generator_only(size: tuple[int, int]) -> None:
    clip = drawn(SCENE, *size)
    assert clip.shape == (FRAMES, *size, 3)
    assert clip.dtype == np.uint8
    assert np.array_equal(clip, drawn(SCENE, *size))
    assert not np.array_equal(clip, drawn(SCENE, *size, seed=1))


def test_nothing_touches_the_edge() -> None:
    rng = np.random.default_rng(0)
    for scene in all_scenes()[::50]:
        clip = draw_clip(scene, 48, 64, rng)
        edge = np.concatenate([clip[:, 0], clip[:, -1], clip[:, :, 0], clip[:, :, -1]], axis=1)
        assert (edge == PALETTE[scene.background]).all()


def test_a_clip_too_long_for_its_speed_is_refused() -> None:
    with pytest.raises(ValueError, match="40 frames are too many"):
        drawn(SCENE, frames=40)


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (128, 128)])
def test_the_reader_is_right_on_drawn_clips(size: tuple[int, int]) -> None:
    assert min(accuracy_on_drawn(all_scenes()[::80], *size).values()) >= 0.98


@pytest.mark.parametrize(
    ("shown", "right"),
    [
        (replace(SCENE, thing=Thing("white", "circle")), (False, True, True)),
        (replace(SCENE, background="green"), (False, True, True)),
        (replace(SCENE, thing=Thing("red", "triangle")), (True, False, True)),
        (replace(SCENE, direction="left"), (True, True, False)),
        (replace(SCENE, direction="down"), (True, True, False)),
        (replace(SCENE, speed="slowly"), (True, True, False)),
        (replace(SCENE, direction=None, speed=None), (True, True, False)),
    ],
)
def test_planted_faults_are_caught(shown: MovingScene, right: tuple[bool, bool, bool]) -> None:
    verdict = judge(SCENE, drawn(shown))
    assert (verdict.colour, verdict.shape, verdict.motion) == right


def test_what_a_prompt_leaves_open_may_be_either() -> None:
    told = replace(SCENE, speed=None, size=None)
    for shown in (SCENE, replace(SCENE, speed="slowly"), replace(SCENE, size="small")):
        assert judge(told, drawn(shown)).motion


def test_a_second_thing_in_one_frame_and_backward_time_are_caught() -> None:
    clip = drawn(SCENE).copy()
    assert not judge(SCENE, clip[::-1]).motion
    clip[4, 2:12, 2:12] = PALETTE["white"]
    assert judge(SCENE, clip) == Verdict(colour=False, shape=False, motion=False)


def test_noise_and_an_empty_clip_are_no_scene() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (FRAMES, 64, 64, 3), dtype=np.uint8)
    empty = np.full((FRAMES, 64, 64, 3), PALETTE["blue"], dtype=np.uint8)
    assert share_right([judge(SCENE, noise), judge(SCENE, empty)]) == {"colour": 0, "shape": 0, "motion": 0}


# ---------------------------------------------------------------------- clips on disk


def test_a_written_clip_plays_as_it_was(tmp_path: Path) -> None:
    clip = drawn(SCENE)
    write_clip(tmp_path / "clip.webp", clip / 255.0, fps=10)
    with Image.open(tmp_path / "clip.webp") as played:
        frames, durations = [], []
        for index in range(played.n_frames):  # type: ignore[attr-defined]
            played.seek(index)
            frames.append(np.asarray(played.convert("RGB")))
            durations.append(played.info["duration"])
    assert np.array_equal(np.stack(frames), clip)
    assert durations == [100] * FRAMES


def test_equal_frames_keep_their_time(tmp_path: Path) -> None:
    clip = drawn(replace(SCENE, direction=None, speed=None), frames=5)
    write_clip(tmp_path / "clip.webp", clip / 255.0, fps=8)
    with Image.open(tmp_path / "clip.webp") as played:
        played.load()
        total = sum(_duration(played, index) for index in range(getattr(played, "n_frames", 1)))
    assert total in (5 * 125, 0)  # a clip of one picture has no time at all


def _duration(image: Image.Image, index: int) -> int:
    image.seek(index)
    image.load()
    return int(image.info.get("duration", 0))


def test_a_strip_runs_from_the_first_frame_to_the_last() -> None:
    clip = drawn(SCENE)
    strip = np.asarray(clip_strip(clip / 255.0, frames=4))
    assert strip.shape == (64, 4 * 64 + 3 * 2, 3)
    assert np.array_equal(strip[:, :64], clip[0])
    assert np.array_equal(strip[:, -64:], clip[-1])
    assert clip_strip(clip[:2] / 255.0, frames=4).width == 2 * 64 + 2


@pytest.mark.parametrize("shape", [(64, 64, 3), (0, 64, 64, 3), (9, 64, 64, 4)])
def test_what_is_no_clip_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match="a clip is an array"):
        write_clip(tmp_path / "clip.webp", np.zeros(shape))
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------- training


def test_training_sees_what_the_pipeline_will_hand_the_transformer(tmp_path: Path) -> None:
    """One weighted zero row stands exactly for the hundreds with which the pipeline fills up a prompt."""
    trainer = train_video.Trainer(1.0, 0, tmp_path / "none")
    prompts = [SCENE.prompt, ""]
    embeddings, _ = trainer.parts.pipeline().encode_prompt(prompts, max_sequence_length=train_video.PIPELINE_TOKENS)
    clip, timesteps = torch.randn(2, 8, 2, 4, 6), torch.tensor([30.0, 900.0])
    ids = torch.stack([trainer.token_ids(prompt) for prompt in prompts])
    bias = torch.zeros(train_video.PROMPT_TOKENS + 1)
    bias[-1] = math.log(train_video.PIPELINE_TOKENS - train_video.PROMPT_TOKENS)
    with torch.no_grad():
        stock = trainer.parts.transformer(clip, timesteps, embeddings).sample
        for block in trainer.parts.transformer.blocks:
            block.attn1.set_processor(train_video.PlainAttention(bias))
            block.attn2.set_processor(train_video.PlainAttention(bias))
        trained = trainer.parts.transformer(clip, timesteps, trainer._text(ids)).sample
    assert torch.allclose(stock, trained, atol=1e-5)


def test_latent_statistics_make_what_is_denoised_normal() -> None:
    torch.manual_seed(0)
    vae = Parts.untrained().vae.eval()
    latents = train_video.encoded(vae, torch.rand(2, 3, 5, 32, 32) * 2 - 1, 2)
    set_latent_statistics(vae, latents)
    normal = train_video.normalised(vae, latents)
    assert torch.allclose(normal.mean((0, 2, 3, 4)), torch.zeros(8), atol=1e-3)
    assert torch.allclose(normal.std((0, 2, 3, 4)), torch.ones(8), atol=1e-3)


def test_an_interrupted_training_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    def trained(trainer: train_video.Trainer) -> torch.Tensor:
        for name, weight in trainer._denoiser_weights():
            weight.grad = torch.full_like(weight, 0.01 + len(name))
        trainer.optimizer.step()
        trainer._update_average()
        return torch.cat([weight.flatten() for _, weight in trainer._denoiser_weights()])

    first = train_video.Trainer(1.0, 0, tmp_path / "checkpoint")
    first.vae_is_done, first.optimizer = True, first._denoiser_optimizer()
    trained(first)
    first.save_checkpoint()
    second = train_video.Trainer(1.0, 1, tmp_path / "checkpoint")
    second.resume()
    assert second.steps == 1
    assert torch.equal(trained(first), trained(second))
    assert all(torch.equal(first.average[name], second.average[name]) for name in first.average)


# ---------------------------------------------------------------------- the model


def test_the_shipped_weights_are_small_and_safe() -> None:
    assert 0 < weights_bytes(FOLDER) <= 12_000_000
    suffixes = {path.suffix for path in FOLDER.rglob("*") if path.is_file()}
    assert suffixes <= {".safetensors", ".json", ".md"}


def test_the_model_is_what_its_name_says(pipeline: Any) -> None:
    known = geometry_of("tiny-video")
    read = geometry_of_pipeline(pipeline, "another name")
    assert pipeline.tokenizer.get_vocab() == word_tokenizer().get_vocab()
    assert known.native_size == (NATIVE_SIZE, NATIVE_SIZE)
    for field in ("latent_factor", "latent_channels", "frame_factor", "patch"):
        assert getattr(known, field) == getattr(read, field)


def test_sizes_the_pipeline_refuses_are_refused_by_the_geometry(pipeline: Any) -> None:
    with pytest.raises(ValueError, match="divisible by 16"):
        pipeline(SCENE.prompt, height=40, width=64, num_frames=5)
    for request, complaint in (
        (Request("r", 0.0, 40, 64, 2, frames=5), "height 40 is not a multiple of 16"),
        (Request("r", 0.0, 64, 64, 2, frames=6), "frames 6 is not 1 plus a multiple of 4"),
    ):
        with pytest.raises(BadInput, match=complaint):
            geometry_of("tiny-video").check(request)


@pytest.mark.parametrize(("size", "frames"), [((32, 48), 9), ((64, 64), 5), ((96, 32), 1)])
def test_one_seed_one_clip_at_any_size(pipeline: Any, size: tuple[int, int], frames: int) -> None:
    once, again = (measure_video.generate(pipeline, [SCENE], size, frames, steps=2) for _ in range(2))
    assert once.shape == (1, frames, *size, 3)
    assert np.array_equal(once, again)


@pytest.mark.parametrize(("side", "scenes", "least_db"), [(64, 2, 25), (128, 1, 22)])  # less beyond the trained sizes
def test_the_vae_gives_moving_things_back(pipeline: Any, side: int, scenes: int, least_db: float) -> None:
    assert measure_video.reconstruction_psnr(pipeline, measure_video.chosen_scenes(scenes), side, side) >= least_db


def test_held_out_prompts_come_out_in_their_colours(pipeline: Any) -> None:
    scenes = measure_video.chosen_scenes(6)
    clips = measure_video.generate(pipeline, scenes, steps=10)
    shares = share_right([judge(scene, clip) for scene, clip in zip(scenes, clips, strict=True)])
    # Two colours guessed at random would be right once in twenty. Shapes and motions: see the model's README.
    assert shares["colour"] >= 0.6


def test_the_executor_makes_a_clip(pipeline: Any) -> None:
    request = Request("clip", 0.0, 48, 64, 3, frames=9, guidance_scale=3.0, prompt=SCENE.prompt, seed=5)
    alone = pipeline(
        SCENE.prompt,
        height=48,
        width=64,
        num_frames=9,
        num_inference_steps=3,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(5),
    ).frames
    executor = Executor(load_pipeline("tiny-video"))
    delivered: list[np.ndarray] = []
    for stage, steps in (("encode", 1), ("denoise", 3), ("decode", 1)):
        outcome = executor.execute(stage, [request], steps, deliver=lambda _, pixels: delivered.append(pixels))
        assert not outcome.failed
    assert np.array_equal(delivered[0], alone)


def test_the_clip_of_the_readme_plays() -> None:
    with Image.open(CLIP) as clip:
        assert clip.format == "WEBP"
        assert getattr(clip, "n_frames", 1) > 1
        assert clip.size == beside(np.zeros((len(PROMPTS), 1, 64, 64, 3), np.uint8)).shape[2:0:-1]
    assert CLIP.stat().st_size < 100_000
    assert f"]({CLIP.relative_to(ROOT).as_posix()})" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(MovingScene.parse(prompt).is_held_out for prompt in PROMPTS)


# ---------------------------------------------------------------------- command lines


@pytest.mark.parametrize(
    "arguments",
    [["--model", "no-such-folder"], ["--prompts", "0"], ["--prompts", "100000"], ["--steps", "0"]],
)
def test_measuring_refuses_bad_input(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        measure_video.main(arguments)
    assert stop.value.code == 2
    assert "error: " in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("arguments", [["--minutes", "0"], ["--threads", "0"]])
def test_training_refuses_bad_input(arguments: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        train_video.main(["-o", str(tmp_path / "model"), *arguments])
    assert stop.value.code == 2
    assert not list(tmp_path.iterdir())


def test_training_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        train_video.main(["-o", str(tmp_path)])
    assert stop.value.code == 2
    assert "exists" in capsys.readouterr().err
