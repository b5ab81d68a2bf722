from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from tests._upsamplers import UPSAMPLERS, cases, cubic, roughened, shrunk
from wave_ops.errors import WaveOpsError
from wave_ops.guided_upsampling import upsample_edit
from wave_ops.resize import resize_frames
from wave_ops.scenes.rendering import render, render_frame
from wave_ops.scenes.specs import SceneSpec, edit_spec, random_scene

Frame = NDArray[np.uint8]
SIZES = [((1279, 717), (128, 72)), ((48, 64), (64, 64)), ((30, 41), (7, 9)), ((5, 3), (2, 1)), ((9, 9), (9, 9))]
RECORD = Path(__file__).parents[2] / "docs" / "decisions" / "0007-the-source-guides-the-upsampling.md"


def noise(height: int, width: int) -> Frame:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def resized(frame: Frame, size: tuple[int, int]) -> Frame:
    return resize_frames(frame[None], size)[0]


def decibels(frame: Frame, truth: Frame) -> float:
    return float(-10 * np.log10(max(np.square((frame - truth.astype(float)) / 255).mean(), 1e-9)))


def largest_difference(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    return float(np.abs(a.astype(float) - b).max())


def scene(seed: int = 1) -> SceneSpec:
    return random_scene(seed, size=(256, 256), frame_count=4)


@pytest.mark.parametrize(("size", "working"), SIZES)
def test_an_edit_that_changes_nothing_returns_the_source_bit_for_bit(
    size: tuple[int, int], working: tuple[int, int]
) -> None:
    source = noise(*size)
    assert np.array_equal(upsample_edit(source, resized(source, working)), source)


@pytest.mark.parametrize(("size", "working"), SIZES[:3])
def test_a_flat_edit_stays_flat(size: tuple[int, int], working: tuple[int, int]) -> None:
    flat = np.full((*working, 3), (200, 128, 7), np.uint8)
    assert np.array_equal(upsample_edit(noise(*size), flat), np.broadcast_to(flat[:1, :1], (*size, 3)))


def test_an_affine_change_of_colour_is_reproduced_within_two_levels_except_for_one_pixel_in_a_thousand() -> None:
    source = data.astronaut()
    mixer = 0.7 * np.array([[1.1, 0.1, -0.1], [-0.05, 0.9, 0.1], [0.05, -0.1, 0.9]])
    truth = source @ mixer.T + 25
    edited = shrunk(np.rint(truth).astype(np.uint8))
    difference = np.abs(upsample_edit(source, edited) - truth)
    assert np.quantile(difference, 0.999) < 2
    assert difference.mean() < 0.5


def test_a_negative_is_as_sharp_as_its_source() -> None:
    source = data.astronaut()
    assert decibels(upsample_edit(source, shrunk(255 - source)), 255 - source) > 50


@pytest.mark.parametrize("seed", [1, 2, 4])
@pytest.mark.parametrize("where", ["colour", "background_colour"])
def test_a_recoloured_scene_is_sharper_than_a_cubic_enlargement(seed: int, where: str) -> None:
    source, truth = (render_frame(spec, 0.5) for spec in (scene(seed), edit_spec(scene(seed), **{where: "white"})))  # type: ignore[arg-type]
    for edited in (shrunk(truth), roughened(shrunk(truth))):
        assert decibels(upsample_edit(source, edited), truth) > decibels(cubic(source, edited), truth) + 2


def test_a_removed_object_leaves_no_trace() -> None:
    before = scene()
    source, empty = (render_frame(spec, 0.5) for spec in (before, SceneSpec(**_without_objects(before))))
    plain = cubic(source, shrunk(empty))
    removed = render(before).object_masks[0, 0]
    inside = removed & (np.abs(source.astype(int) - empty).max(2) > 0)
    difference = np.abs(upsample_edit(source, shrunk(empty)).astype(int) - plain)[inside]
    assert inside.sum() > 500
    assert decibels(upsample_edit(source, shrunk(empty)), empty) >= decibels(plain, empty)
    assert np.quantile(difference, 0.99) <= 2


def _without_objects(spec: SceneSpec) -> dict[str, object]:
    return {"objects": (), "background": spec.background, "size": spec.size, "frame_count": spec.frame_count}


def test_an_old_outline_is_not_drawn_into_a_new_shape() -> None:
    before, after = scene(), edit_spec(scene(), shape="ring")
    source, truth = (render_frame(spec, 0.5) for spec in (before, after))
    edited = shrunk(truth)
    error, plain_error = (
        np.abs(method(source, edited).astype(float) - truth).max(2) for method in (upsample_edit, cubic)
    )
    flat = plain_error < 1  # where enlargement alone is right, there is nothing to add
    assert np.quantile(error[flat], 0.995) < 3


def test_an_edit_made_larger_than_its_source_is_shrunk() -> None:
    source, edited = noise(20, 30), np.repeat(np.repeat(noise(10, 15), 4, 0), 4, 1)
    assert upsample_edit(source, edited).shape == source.shape
    assert np.array_equal(upsample_edit(edited, edited), edited)


def test_noise_of_the_edit_flickers_less_than_when_enlarged() -> None:
    frames, truth = (render(spec).frames for spec in (scene(), edit_spec(scene(), colour="white")))
    rng = np.random.default_rng(1)
    edits = [np.clip(shrunk(frame) + rng.normal(0, 6, (64, 64, 3)), 0, 255).round().astype(np.uint8) for frame in truth]

    def flicker(result: list[Frame]) -> float:
        return float(np.abs(np.diff(np.array(result, float), axis=0) - np.diff(truth.astype(float), axis=0)).mean())

    mine, plain = ([method(*pair) for pair in zip(frames, edits, strict=True)] for method in (upsample_edit, cubic))
    assert flicker(mine) < 0.9 * flicker(plain)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "wrong", [noise(4, 4)[..., :1], noise(4, 4).astype(np.float32), noise(4, 4)[None], noise(4, 4)[:0]]
)
def test_an_array_that_is_not_a_frame_is_refused(wrong: Frame) -> None:
    with pytest.raises(WaveOpsError, match="expected the source frame as uint8"):
        upsample_edit(wrong, noise(2, 2))
    with pytest.raises(WaveOpsError, match="expected the edited frame as uint8"):
        upsample_edit(noise(4, 4), wrong)


@pytest.fixture(scope="module")
def measured() -> Mapping[str, Mapping[str, float]]:
    """PSNR by method and kind of edit, with a star where the small edit is rough."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for kind, source, truth in cases():
        for mark, edited in (("", shrunk(truth)), ("*", roughened(shrunk(truth)))):
            for name, method in {**UPSAMPLERS, "this one": upsample_edit}.items():
                found[name][kind + mark].append(decibels(method(source, edited), truth))
    return {name: {kind: float(np.mean(each)) for kind, each in row.items()} for name, row in found.items()}


def recorded() -> Mapping[str, Mapping[str, float]]:
    rows = [re.split(r"\s*\|\s*", line.strip("| \n")) for line in RECORD.read_text().splitlines() if line[:1] == "|"]
    (_, *kinds), _, *table = rows
    return {name: dict(zip(kinds, map(float, values), strict=True)) for name, *values in table}


@pytest.mark.slow
def test_the_decision_record_states_the_measured_values(measured: Mapping[str, Mapping[str, float]]) -> None:
    assert measured == {name: pytest.approx(row, abs=0.2) for name, row in recorded().items()}


@pytest.mark.slow
def test_of_all_guided_methods_this_one_harms_least_and_it_sharpens_most_edits_a_lot(
    measured: Mapping[str, Mapping[str, float]],
) -> None:
    gains = {name: [row[kind] - measured["cubic"][kind] for kind in row] for name, row in measured.items()}
    mine = gains.pop("this one")
    assert min(mine) > -1.25
    assert sum(gain > 3 for gain in mine) >= 10
    assert all(min(gains[name]) < -1.4 for name in gains if name not in {"cubic", "Lanczos"})
