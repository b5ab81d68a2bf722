"""Whole propagated frames against plain arithmetic, with an exhaustive search in place of the random ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests import _propagation_oracle as oracle
from tests._propagation import to_array, to_tensor
from wave_ops.propagation import Guides, PropagationSettings, Synthesis, propagate_interval

SIDE = 16


def exhaustive_painter(style: torch.Tensor, source: Guides, **_) -> Callable[..., Synthesis]:
    """Replace both searches, for any batch."""

    def paint_one(index: int, guides: Guides) -> tuple[np.ndarray, ...]:
        edited, *known = (to_array(image[index : index + 1]).astype(float) for image in (style, *source))
        wanted = [to_array(guide[index : index + 1]).astype(float) for guide in guides]
        matches = oracle.exhaustive_search(known, wanted)
        image, seen = oracle.vote(edited, matches), oracle.vote(known[0], matches)
        error = oracle.patch_errors([edited, *known], [image, *wanted], matches)
        return image, error[..., None], matches[..., ::-1], seen

    def paint(guides: Guides, *, starts: tuple[torch.Tensor, ...]) -> Synthesis:
        painted = zip(*(paint_one(index, guides) for index in range(len(style))), strict=True)
        image, error, matches, seen = (
            torch.cat([to_tensor(values, str(style.device)) for values in batch]) for batch in painted
        )
        return Synthesis(image, error[:, 0], matches, seen)

    return paint


@pytest.fixture(scope="module")
def clip(make_texture) -> dict[str, np.ndarray]:
    """A ground and a square that move apart; the ground is by turns that of the first and of the last frame."""
    rng = np.random.default_rng(5)
    frames, flows = [], []
    for i in range(5):
        one, other = (make_texture(SIDE, SIDE, seed=seed, left=1.25 * i) for seed in (0, 1))
        blocks = np.repeat(np.repeat(rng.random((2, 2)) < (0, 0.5, 0.5, 0.5, 1)[i], 8, axis=0), 8, axis=1)
        frame = np.where(blocks[..., None], other, one)
        inside = np.zeros((SIDE, SIDE), bool)
        inside[4:10, 9 - 2 * i : 14 - 2 * i] = True
        frame[inside] = 255 - 40 * np.arange(inside.sum())[:, None] % 200
        flows.append(np.where(inside[..., None], (2.0, 0.25), (1.25, 0.0)))
        frames.append(np.rint(frame).astype(np.uint8))
    edited = [255 - frames[0] // 2, 40 + frames[-1] // 2]
    for image in edited:  # the lower half of the edit does not follow from the colours of the source
        image[SIDE // 2 :] = rng.integers(0, 256, (SIDE // 2, SIDE, 3))
    return {
        "frames": np.stack(frames),
        "first": edited[0],
        "last": edited[1],
        "to_prev": np.stack(flows[1:]),
        "to_cur": -np.stack(flows[:-1]),
    }


@pytest.fixture(scope="module")
def expected(clip) -> tuple[list[np.ndarray], ...]:
    return oracle.propagate(**clip)


@pytest.fixture(scope="module")
def fused(clip) -> tuple[list[np.ndarray], ...]:
    return oracle.propagate(**clip, plain=False, switched_in_holes=True)


def test_the_clip_of_the_oracle_has_what_could_go_wrong(clip, expected):
    """Both keyframes are selected, some pixels only because they switched before, and the flow has holes."""
    _, selections, by_errors = expected
    assert 0.1 < selections[0].mean() < 0.9
    assert sum((chosen & ~now).sum() for chosen, now in zip(selections, by_errors, strict=True)) > 20
    assert all(oracle.occluded(*flows).mean() > 0.05 for flows in zip(clip["to_prev"], clip["to_cur"], strict=True))


@pytest.mark.parametrize("blend", ["mix", "contrast"])
def test_frames_between_keyframes_are_those_of_plain_arithmetic(clip, expected, fused, device, monkeypatch, blend):
    published = blend == "contrast"
    monkeypatch.setattr("wave_ops.propagation.interval._painter", exhaustive_painter)
    output = propagate_interval(
        clip["frames"],
        first=clip["first"],
        last=clip["last"],
        flows_to_prev=np.moveaxis(clip["to_prev"], -1, 1).astype(np.float32),
        flows_to_cur=np.moveaxis(clip["to_cur"], -1, 1).astype(np.float32),
        device=device,
        settings=PropagationSettings(blend=blend, fuse_gradients=published, keep_switched=published),
    )
    np.testing.assert_array_equal(output[0], clip["first"])
    np.testing.assert_array_equal(output[-1], clip["last"])
    for got, image in zip(output[1:-1], (fused if published else expected)[0], strict=True):
        np.testing.assert_allclose(got, image, atol=0.51)


def test_a_frame_without_a_later_keyframe_is_the_earlier_ones_candidate(clip, device, monkeypatch):
    monkeypatch.setattr("wave_ops.propagation.interval._painter", exhaustive_painter)
    output = propagate_interval(
        clip["frames"],
        first=clip["first"],
        last=None,
        flows_to_prev=np.moveaxis(clip["to_prev"], -1, 1).astype(np.float32),
        flows_to_cur=np.moveaxis(clip["to_cur"], -1, 1).astype(np.float32),
        device=device,
    )
    painted = oracle.outward(clip["frames"], clip["first"], clip["to_prev"], clip["to_cur"])
    for got, (image, _) in zip(output[1:], painted, strict=True):
        np.testing.assert_allclose(got, image, atol=0.51)


def test_the_settings_of_the_oracle_are_the_defaults():
    settings = PropagationSettings()
    weights = settings.style_weight, settings.colour_weight, settings.edge_weight
    assert (*weights, settings.temporal_weight, settings.position_weight) == oracle.WEIGHTS
    assert settings.gradient_weights == oracle.GRADIENT_WEIGHTS
    assert (settings.blend, settings.fuse_gradients, settings.keep_switched) == ("mix", False, False)
