from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tests._perception import tiny_clip, tiny_processor
from wave_ops.errors import WaveOpsError
from wave_ops.metrics import embed_frames, embed_text, frame_accuracy, temporal_consistency, text_alignment

Clip = tuple[Any, Any]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return tiny_clip(), tiny_processor(tmp_path_factory.mktemp("processor"))


def clip_frames(count: int, size: tuple[int, int] = (20, 30)) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), np.uint8)


def at_angles(*degrees: float, length: float = 1.0) -> Tensor:
    angles = torch.tensor(degrees).deg2rad()
    return length * torch.stack((angles.cos(), angles.sin()), dim=1)


def test_temporal_consistency_is_the_mean_cosine_of_neighbours() -> None:
    expected = (math.cos(math.radians(60)) + math.cos(math.radians(90))) / 2
    assert temporal_consistency(at_angles(0, 60, 150)) == pytest.approx(expected, abs=1e-6)


def test_a_still_is_consistent_and_fewer_than_two_frames_are_not_a_number() -> None:
    assert temporal_consistency(at_angles(10, 10, 10)) == pytest.approx(1)
    assert math.isnan(temporal_consistency(at_angles(10)))


def test_frame_accuracy_counts_frames_nearer_to_the_target_without_ties() -> None:
    target, source = at_angles(0, length=0.1)[0], at_angles(90, length=10)[0]
    assert frame_accuracy(at_angles(0, 20, 70, 80, -20), target, source) == pytest.approx(3 / 5)
    assert frame_accuracy(at_angles(30), target, target) == 0


def test_text_alignment_is_the_mean_cosine_to_the_prompt() -> None:
    expected = (math.cos(math.radians(30)) + math.cos(math.radians(80))) / 2
    assert text_alignment(at_angles(30, 80, length=3), at_angles(0, length=2)[0]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("size", [(20, 30), (3, 8)])  # three rows could be mistaken for three channels
def test_frames_are_embedded_by_the_image_tower_and_its_projection(size: tuple[int, int], clip: Clip) -> None:
    model, processor = clip
    frames = clip_frames(3, size)
    pixels = processor.image_processor([Image.fromarray(frame) for frame in frames], return_tensors="pt")
    with torch.no_grad():
        expected = model.visual_projection(model.vision_model(**pixels).pooler_output)
    embedded = embed_frames(model, processor, frames)
    torch.testing.assert_close(embedded, expected / expected.norm(dim=1, keepdim=True))


def test_a_prompt_is_embedded_by_the_text_tower_and_its_projection(clip: Clip) -> None:
    model, processor = clip
    with torch.no_grad():
        expected = model.text_projection(model.text_model(**processor.tokenizer(["red"], return_tensors="pt"))[1])[0]
    torch.testing.assert_close(embed_text(model, processor, "red"), expected / expected.norm())


def test_the_batch_size_does_not_change_the_embeddings(clip: Clip) -> None:
    frames = clip_frames(5)
    torch.testing.assert_close(embed_frames(*clip, frames, batch_size=2), embed_frames(*clip, frames))


def test_a_long_prompt_is_truncated(clip: Clip) -> None:
    assert torch.equal(embed_text(*clip, "red " * 40), embed_text(*clip, "red " * 30))


def test_features_returned_as_a_tensor_are_accepted(clip: Clip) -> None:
    model, processor = clip
    features = {
        "image": lambda **inputs: model.get_image_features(**inputs).pooler_output,
        "text": lambda **inputs: model.get_text_features(**inputs).pooler_output,
    }
    bare = SimpleNamespace(
        device=model.device,
        dtype=model.dtype,
        config=model.config,
        get_image_features=features["image"],
        get_text_features=features["text"],
    )
    assert torch.equal(embed_frames(bare, processor, clip_frames(1)), embed_frames(*clip, clip_frames(1)))
    assert torch.equal(embed_text(bare, processor, "red"), embed_text(*clip, "red"))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("frames", [clip_frames(2)[0], clip_frames(2) / 255, clip_frames(2)[..., :1], clip_frames(0)])
def test_arrays_that_are_not_uint8_rgb_frames_are_refused(frames: NDArray[Any], clip: Clip) -> None:
    with pytest.raises(WaveOpsError, match="uint8 frames"):
        embed_frames(*clip, frames)
