"""The quality measures: each is quiet on clean pictures and raised by the fault it is for."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from rich.console import Console
from skimage import data
from skimage.metrics import peak_signal_noise_ratio

from reports.quality import Borders, Quality, measure
from reports.quality.edges import edge_leak
from reports.quality.flicker import flicker
from reports.quality.frames import frames_of
from reports.quality.objects import count_objects, palette_of
from reports.quality.pictures import gather, in_step, read_picture
from reports.quality.report import QualityReport
from reports.quality.seams import find_seams, seam_energy
from tests.examples_tried import examples
from traces.errors import BadInput

PHOTOS = ("astronaut", "coffee", "chelsea")


def photo(name):
    return getattr(data, name)() / 255.0


def shapes(height=128, width=128, ground=(0.12, 0.24, 0.86), places=((40, 36, 22), (84, 88, 26)), noise=0.004):
    """A flat scene of one yellow circle and one white square a place (y, x, radius), drawn finely, slightly noisy."""
    sheet = Image.new("RGB", (4 * width, 4 * height), tuple(int(255 * part) for part in ground))
    pen = ImageDraw.Draw(sheet)
    for index, (y, x, radius) in enumerate(places):
        box = tuple(4 * part for part in (x - radius, y - radius, x + radius, y + radius))
        (pen.ellipse if index % 2 == 0 else pen.rectangle)(box, fill=("gold", "white")[index % 2])
    picture = np.asarray(sheet.resize((width, height), Image.Resampling.BOX)) / 255.0
    return (picture + noise * np.random.default_rng(0).standard_normal(picture.shape)).clip(0, 1)


def with_seams(picture, rows, columns, amplitude, seed=0):
    """Tiles in turn a little brighter and darker."""
    random, faulty = np.random.default_rng(seed), picture.copy()
    row_stops, column_stops = (0, *rows, picture.shape[0]), (0, *columns, picture.shape[1])
    for row, (top, bottom) in enumerate(pairwise(row_stops)):
        for column, (left, right) in enumerate(pairwise(column_stops)):
            faulty[top:bottom, left:right] += (-1) ** (row + column) * amplitude * random.uniform(0.5, 1)
    return faulty.clip(0, 1)


def thirds(picture):
    return Borders(*(tuple(round(length * part / 24) * 8 for part in (1, 2)) for length in picture.shape[:2]))


def one(picture):
    return frames_of(picture)


CLEAN = {name: photo(name) for name in PHOTOS} | {
    "shapes": shapes(),
    "flat": np.full((96, 128, 3), 0.4),
    "shading": np.linspace(0.2, 0.9, 128 * 128).reshape(128, 128, 1).repeat(3, 2),
}
clean = pytest.mark.parametrize("name", CLEAN)


# ---- PSNR, SSIM


def test_psnr_is_that_of_scikit_image_and_infinite_for_equal_pictures():
    picture, other = photo("coffee"), photo("coffee")[::-1]
    assert measure(picture, other).psnr_db == pytest.approx(peak_signal_noise_ratio(picture, other, data_range=1))
    same = measure(picture, picture.copy())
    assert (same.psnr_db, same.ssim, same.largest_difference) == (math.inf, pytest.approx(1), 0)


def test_psnr_and_ssim_fall_with_noise_and_ssim_sees_structure():
    picture = photo("chelsea")
    random = np.random.default_rng(1).standard_normal(picture.shape)
    found = [measure((picture + level * random).clip(0, 1), picture) for level in (0.01, 0.03, 0.1)]
    assert found[0].psnr_db == pytest.approx(40, abs=0.3)
    assert found[0].psnr_db > found[1].psnr_db > found[2].psnr_db
    assert found[0].ssim > found[1].ssim > found[2].ssim


def test_ssim_minds_structure_more_than_brightness():
    """Two pictures equally far from the truth: one paler, one noisy."""
    picture = photo("chelsea")
    paler = picture * 0.8 + 0.1
    level = np.sqrt(np.mean((paler - picture) ** 2))
    noisy = (picture + level * np.random.default_rng(1).standard_normal(picture.shape)).clip(0, 1)
    pale, noise = measure(paler, picture), measure(noisy, picture)
    assert pale.psnr_db == pytest.approx(noise.psnr_db, abs=0.3)
    assert pale.ssim > noise.ssim + 0.2


def test_a_clip_counts_all_its_frames():
    clip = np.stack([shapes()] * 3)
    worse = clip.copy()
    worse[1] = 1 - worse[1]
    single, whole = measure(worse[1], clip[1]), measure(worse, clip)
    assert whole.psnr_db == pytest.approx(single.psnr_db + 10 * math.log10(3), abs=1e-3)
    assert whole.ssim == pytest.approx((2 + single.ssim) / 3, abs=1e-3)


# ---- seams


@clean
def test_clean_pictures_have_no_seams(name):
    picture = CLEAN[name]
    assert 0.6 < seam_energy(one(picture), thirds(picture)) < 1.5
    grid = find_seams(one(picture))
    assert grid.energy < 1.5, grid


@clean
def test_tiles_of_other_brightness_raise_seam_energy(name):
    picture = CLEAN[name]
    borders = thirds(picture)
    energies = [seam_energy(one(with_seams(picture, *borders, level)), borders) for level in (0, 0.02, 0.05, 0.1)]
    assert energies == sorted(energies)
    assert energies[2] > 1.3 * energies[0]
    assert energies[3] > 2.5 * energies[0]


def test_one_faulty_tile_of_nine_is_enough_when_borders_are_known():
    picture = shapes()
    borders = thirds(picture)
    faulty = picture.copy()
    faulty[: borders.rows[0], : borders.columns[0]] += 0.08
    assert seam_energy(one(faulty.clip(0, 1)), borders) > 1.3 * seam_energy(one(picture), borders)


def test_in_a_flat_picture_a_step_of_n_grey_levels_is_one_plus_n():
    picture = np.full((96, 96, 3), 0.5)
    picture[:, 48:] += 5 / 255
    assert seam_energy(one(picture), Borders((), (48,))) == pytest.approx(6, rel=1e-3)


def test_a_seam_spread_over_pixels_is_seen():
    columns = np.arange(128)
    ramp = np.clip((columns - 60) / 8, 0, 1) * 0.05
    picture = 0.5 + ramp[None, :, None] * np.ones((96, 1, 3))
    assert seam_energy(one(picture), Borders((), (64,))) > 5


def test_objects_on_borders_are_no_seams():
    """Both shapes have edges right on the border, along less than three quarters of it."""
    picture = shapes(places=((64, 42, 22), (64, 86, 22)), noise=0.0)
    assert seam_energy(one(picture), Borders((), (64,))) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("name", ["shapes", "flat", "shading"])
@pytest.mark.parametrize(("period", "offset"), [(32, 0), (24, 7), (40, 20)])
def test_the_period_of_a_grid_of_seams_is_found(name, period, offset):
    picture = CLEAN[name]
    rows, columns = (tuple(range(offset or period, length, period)) for length in picture.shape[:2])
    grid = find_seams(one(with_seams(picture, rows, columns, 0.06)))
    assert grid.energy > max(1.3, find_seams(one(picture)).energy)
    assert (grid.period, grid.offset % period) == (period, offset % period)


@pytest.mark.parametrize("name", ["shapes", "flat", "shading", "astronaut"])
def test_the_one_border_of_two_tiles_is_found(name):
    picture = CLEAN[name]
    rows, columns = ((length // 2,) for length in picture.shape[:2])
    grid = find_seams(one(with_seams(picture, rows, columns, 0.08)))
    assert grid.energy > 1.5 * find_seams(one(picture)).energy
    assert (grid.period, grid.offset) == (0, rows[0] if grid.axis == "rows" else columns[0])


def test_a_cross_of_two_borders_anywhere_is_found():
    grid = find_seams(one(with_seams(shapes(), (96,), (40,), 0.08)))
    assert grid.energy > 3
    assert (grid.axis, grid.period, grid.offset) in (("rows", 0, 96), ("columns", 0, 40))


def test_a_horizon_is_no_grid():
    picture = photo("coffee")
    picture[picture.shape[0] // 3 :] *= 0.5
    assert find_seams(one(picture)).energy < 1.5


@settings(max_examples=examples(12), deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.data())
def test_seam_energy_of_any_size_and_borders_is_a_number_or_undefined(height, width, drawn):
    picture = np.random.default_rng(height * 71 + width).random((height, width, 3))
    rows, columns = (
        tuple(sorted(drawn.draw(st.sets(st.integers(1, length - 1), max_size=4)) if length > 1 else ()))
        for length in (height, width)
    )
    energy = seam_energy(one(picture), Borders(rows, columns))
    assert math.isnan(energy) or energy > 0
    assert math.isnan(find_seams(one(picture)).energy) or find_seams(one(picture)).energy > 0


@pytest.mark.parametrize("rows", [(0,), (40, 40), (60, 20), (96,), (-3,)])
def test_borders_outside_the_picture_are_refused(rows):
    with pytest.raises(BadInput, match=r"rows .* 1\.\.95"):
        measure(np.full((96, 64, 3), 0.5), borders=Borders(rows, ()))


# ---- edge leak


def leaking(picture, share, axis=0, depth=1 / 8, mirrored=True):
    """The outer rows (or columns) blended with the opposite ones: all, mirrored, or only the outermost one."""
    view = picture.swapaxes(0, 1) if axis else picture
    faulty, count = view.copy(), int(len(view) * depth)
    fade = (share * (1 - np.arange(count) / count))[:, None, None]
    top, bottom = view[:count], view[-count:][::-1]
    other_top, other_bottom = (bottom, top) if mirrored else (bottom[:1], top[:1])
    faulty[:count] = (1 - fade) * top + fade * other_top
    faulty[-count:] = ((1 - fade) * bottom + fade * other_bottom)[::-1]
    return faulty.swapaxes(0, 1) if axis else faulty


@clean
def test_clean_pictures_do_not_leak(name):
    assert edge_leak(one(CLEAN[name])) < 0.05


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("mirrored", [True, False])
def test_a_blend_of_the_opposite_edge_leaks(name, axis, mirrored):
    picture = CLEAN[name]
    leaks = [edge_leak(one(leaking(picture, share, axis, mirrored=mirrored))) for share in (0, 0.25, 0.5)]
    assert leaks[0] < 0.05
    assert leaks[0] < leaks[1] < leaks[2]
    assert leaks[2] > 0.15


def test_an_object_that_comes_back_at_the_other_edge_leaks():
    """Half a circle at the bottom, and its other half at the top where no circle is."""
    cut = shapes(places=((128, 40, 24),))
    wrapped = shapes(places=((128, 40, 24), (-200, 0, 1), (0, 40, 24)))
    assert edge_leak(one(cut)) < 0.05
    assert edge_leak(one(wrapped)) > 0.25


def test_a_plain_ground_around_an_object_is_no_leak():
    assert edge_leak(one(shapes(places=((64, 64, 50),)))) < 0.05


# ---- flicker


def moving(frames=8, speed=(1.5, 2.5), size=96):
    """A flat scene whose shapes move steadily."""
    return np.stack(
        [
            shapes(size, size, places=((30 + speed[0] * t, 24 + speed[1] * t, 14), (70 - t, 70, 16)), noise=0.0)
            for t in range(frames)
        ]
    )


def panning(frames=6, speed=3):
    picture = photo("coffee")
    return np.stack([picture[100:292, 40 + speed * t : 232 + speed * t] for t in range(frames)])


CLIPS = {"shapes": moving(), "pan": panning(), "still": np.stack([photo("chelsea")[:192, :192]] * 6)}
clips = pytest.mark.parametrize("name", CLIPS)


@clips
def test_smooth_motion_does_not_flicker(name):
    assert flicker(frames_of(CLIPS[name])) < 0.06


@clips
def test_brightness_jitter_flickers(name):
    clip = CLIPS[name]
    jitter = np.random.default_rng(3).uniform(-1, 1, len(clip))[:, None, None, None]
    found = [flicker(frames_of((clip + level * jitter).clip(0, 1))) for level in (0, 0.02, 0.05)]
    assert found[0] + 0.02 < found[1] < found[2]
    assert found[2] > 3 * found[0] + 0.1


@pytest.mark.parametrize("name", ["pan", "still"])
def test_a_tile_that_jumps_flickers(name):
    clip = CLIPS[name].copy()
    clip[3, 64:128, 64:128] = clip[3, 84:148, 44:108]
    assert flicker(frames_of(clip)) > flicker(frames_of(CLIPS[name])) + 0.02


def test_to_and_fro_is_one_and_fresh_noise_two_thirds():
    random = np.random.default_rng(0)
    tile = 0.3 * np.ones((64, 64, 3))
    assert flicker(frames_of(np.stack([tile, 2 * tile] * 4))) == pytest.approx(1, abs=0.01)
    levels = random.uniform(0, 1, 400)
    whole = np.ones((400, 16, 16, 3)) * levels[:, None, None, None]
    assert flicker(frames_of(whole)) == pytest.approx(0.65, abs=0.06)


def test_pictures_and_two_frames_have_no_flicker():
    assert math.isnan(flicker(frames_of(shapes())))
    assert math.isnan(flicker(frames_of(np.stack([shapes()] * 2))))


# ---- repeated objects


@pytest.mark.parametrize("count", range(5))
def test_objects_are_counted(count):
    places = ((24, 24, 14), (26, 90, 12), (64, 60, 13), (100, 24, 14), (100, 100, 15))[:count]
    frames = one(shapes(places=places))
    assert count_objects(frames, palette_of(frames)) == count


def test_an_object_copied_into_every_tile_is_extra():
    sketch = shapes(64, 64, places=((32, 32, 18),))
    once = (
        np.asarray(Image.fromarray((sketch * 255).astype(np.uint8)).resize((128, 128), Image.Resampling.BICUBIC)) / 255
    )
    clean = measure(once, sketch=sketch)
    assert (clean.objects, clean.extra_objects) == (1, 0)
    copied = measure(np.tile(sketch, (2, 2, 1)), sketch=sketch)
    assert (copied.objects, copied.extra_objects) == (4, 3)
    assert measure(np.tile(sketch, (3, 3, 1)), expected_objects=1).extra_objects == 8


def test_a_part_in_another_colour_is_extra():
    """Of the sketch's two colours the nearer one to the part's is that of the disc it lies in."""
    sketch = shapes(ground=(0.96, 0.96, 0.96), places=((64, 64, 40),), noise=0)
    sketch[(sketch != sketch[0, 0]).any(-1)] = (0.86, 0.12, 0.12)
    faulty = sketch.copy()
    faulty[50:80, 50:80] = (0.12, 0.67, 0.24)
    assert count_objects(one(faulty), palette_of(one(sketch))) == 1
    assert measure(faulty, sketch=sketch).extra_objects == 1


def test_a_lost_object_is_less_than_none():
    assert measure(np.full((128, 128, 3), 0.3) * [1, 2, 1], sketch=shapes()).extra_objects == -2


def test_a_photograph_upscaled_keeps_its_regions():
    picture = photo("astronaut")
    sketch = picture.reshape(256, 2, 256, 2, 3).mean((1, 3))
    quality = measure(picture, sketch=sketch)
    assert quality.objects > 10
    assert abs(quality.extra_objects) <= 0.2 * quality.objects


def test_a_clip_counts_its_median_frame():
    frames = [shapes(places=((40, 36, 22), (84, 88, 26))[:n]) for n in (2, 2, 1, 2, 0)]
    quality = measure(np.stack(frames), expected_objects=2)
    assert (quality.objects, quality.extra_objects) == (2, 0)


# ---- all together


def test_what_does_not_apply_is_nan():
    quality = measure(shapes(), borders=Borders((), ()))
    unknown = {name for name, value in quality.as_json().items() if value is None}
    assert unknown == {"psnr_db", "ssim", "largest_difference", "seam_energy", "flicker", "extra_objects"}


def test_tiny_pictures_are_measured_as_far_as_they_go():
    quality = measure(np.full((1, 5, 3), 0.5), np.full((1, 5, 3), 0.25))
    assert quality.psnr_db == pytest.approx(20 * math.log10(4))
    assert math.isnan(quality.ssim)
    assert math.isnan(quality.edge_leak)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((4, 4)), "shape"),
        (np.zeros((4, 4, 4)), "shape"),
        (np.zeros((0, 4, 3)), "shape"),
        (np.zeros((4, 4, 3), np.uint8), "floats"),
        (np.full((4, 4, 3), 1.2), "floats"),
        (np.full((4, 4, 3), np.nan), "floats"),
    ],
)
def test_what_is_no_picture_is_refused(pixels, message):
    with pytest.raises(BadInput, match=message):
        measure(pixels)


def test_a_reference_of_another_size_is_refused():
    with pytest.raises(BadInput, match="reference"):
        measure(shapes(64, 64), shapes(64, 96))


# ---- files


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    stills = [Image.fromarray((frame * 255).round().astype(np.uint8)) for frame in frames_of(pixels)]
    options = {"lossless": True} if path.suffix == ".webp" else {}
    if len(stills) > 1:
        options |= {"save_all": True, "append_images": stills[1:], "duration": 120}
    stills[0].save(path, **options)


def test_pictures_of_all_kinds_are_read(tmp_path):
    clip = moving(4)
    save(tmp_path / "a.png", clip[0])
    save(tmp_path / "b.webp", clip)
    save(tmp_path / "c.gif", clip)
    for index, still in enumerate(clip):
        save(tmp_path / f"d-f{index:03d}.png", still)
    (tmp_path / "notes.txt").write_text("no picture")
    save(tmp_path / "b-strip.png", clip[0])
    files = gather(tmp_path)
    assert list(files) == ["a", "b", "c", "d"]
    shapes_read = {name: read_picture(found).frames.shape for name, found in files.items()}
    assert shapes_read == {"a": (1, 96, 96, 3)} | dict.fromkeys("bcd", (4, 96, 96, 3))
    np.testing.assert_allclose(read_picture(files["b"]).frames, clip, atol=0.5 / 255 + 1e-6)


def test_equal_frames_that_a_file_stores_once_are_frames_again(tmp_path):
    clip = moving(6)
    held = clip.copy()
    held[2] = held[1]
    save(tmp_path / "held.webp", held)
    save(tmp_path / "moving.webp", clip)
    stored = [read_picture(gather(tmp_path / f"{name}.webp")[name]) for name in ("held", "moving")]
    assert [len(picture.frames) for picture in stored] == [5, 6]
    assert [len(frames) for frames in in_step(stored)] == [6, 6]


def test_a_report_matches_names_and_says_what_is_missing(tmp_path):
    ours, theirs = tmp_path / "run" / "images", tmp_path / "reference"
    for index in range(3):
        save(ours / f"{index}.png", shapes(64, 64))
    save(theirs / "0.png", shapes(64, 64))
    save(theirs / "1.webp", 1 - shapes(64, 64))
    save(theirs / "9.png", shapes(64, 64))
    report = QualityReport.of(tmp_path / "run", theirs)
    assert list(report.qualities) == ["0", "1", "2"]
    assert report.qualities["0"].psnr_db == math.inf
    assert report.qualities["1"].psnr_db < 10
    assert math.isnan(report.qualities["2"].psnr_db)
    assert "the first is 2" in report.notes[0]
    assert "the first is 9" in report.notes[1]
    assert report.summary()["worst"].psnr_db == report.qualities["1"].psnr_db
    console = Console(width=200, record=True)
    console.print(report.table())
    text = console.export_text()
    assert "equal" in text
    assert "flicker" not in text
    report.write(tmp_path / "out.json")
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["pictures"]["0"]["psnr_db"] is None
    assert written["pictures"]["0"]["largest_difference"] == 0
    assert set(written["pictures"]["0"]) == set(Quality.__dataclass_fields__)


def test_single_files_belong_together_whatever_their_names(tmp_path):
    save(tmp_path / "a.png", shapes(64, 64))
    save(tmp_path / "b.png", shapes(64, 64))
    report = QualityReport.of(tmp_path / "a.png", tmp_path / "b.png", sketch=tmp_path / "b.png")
    assert report.qualities["a"].largest_difference == 0
    assert report.qualities["a"].extra_objects == 0


def test_files_that_are_no_pictures_are_refused(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    with pytest.raises(BadInput, match=r"broken\.png"):
        QualityReport.of(tmp_path)
    with pytest.raises(BadInput, match="no such"):
        QualityReport.of(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="no picture"):
        QualityReport.of(tmp_path / "empty")
    save(tmp_path / "good" / "x.png", shapes(64, 64))
    save(tmp_path / "other" / "y.png", shapes(64, 64))
    with pytest.raises(BadInput, match="is named as"):
        QualityReport.of(tmp_path / "good", tmp_path / "other")
