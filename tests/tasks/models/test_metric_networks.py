from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.errors import TaskInputError
from tasks.models.metric_networks import load_clip_model, load_lpips
from tests._perception import lpips_weights, save_tiny_clip, tiny_clip
from wave_ops.metrics import embed_frames, embed_text

FRAMES = np.random.default_rng(0).integers(0, 256, (2, 20, 30, 3), np.uint8)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return save_tiny_clip(tmp_path / "clip")


def test_lpips_is_loaded_from_a_file(tmp_path: Path) -> None:
    save_file(lpips_weights(), tmp_path / "lpips.safetensors")
    image = torch.rand(1, 3, 32, 32)
    assert load_lpips(str(tmp_path / "lpips.safetensors"))(image, 1 - image).item() > 0


def test_the_reference_weights_are_loaded(shared: Path) -> None:
    image = torch.zeros(1, 3, 32, 32)
    assert load_lpips(shared / "weights" / "lpips_alex.safetensors")(image, image).item() == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.safetensors", "no LPIPS weights at"),
        ("lpips.pth", "not a safetensors file"),
        ("damaged.safetensors", "damaged"),
        ("other.safetensors", r"does not contain LPIPS weights: .* lack features\.0\.weight"),
    ],
)
def test_a_file_without_lpips_weights_is_refused_in_one_sentence(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "lpips.pth").write_bytes(b"pickle")
    (tmp_path / "damaged.safetensors").write_bytes(b"no weights")
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(TaskInputError, match=message):
        load_lpips(tmp_path / name)


def test_a_clip_loaded_from_a_folder_embeds_as_the_saved_one(clip: Path) -> None:
    model, processor = load_clip_model(str(clip))
    for embed, item in ((embed_frames, FRAMES), (embed_text, "red")):
        torch.testing.assert_close(embed(model, processor, item), embed(tiny_clip(), processor, item))
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_loading_the_same_clip_again_returns_the_same_object(clip: Path) -> None:
    assert load_clip_model(str(clip))[0] is load_clip_model(str(clip))[0]


def test_half_precision_weights_are_converted_to_float32(clip: Path) -> None:
    (clip / "model.safetensors").unlink()
    tiny_clip().half().save_pretrained(clip, variant="fp16")
    model, processor = load_clip_model(str(clip))
    assert model.dtype == torch.float32
    exact = embed_frames(tiny_clip(), processor, FRAMES)
    torch.testing.assert_close(embed_frames(model, processor, FRAMES), exact, atol=5e-3, rtol=0)


def test_a_hub_id_is_downloaded(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requested = {}

    def fetch(repository: str, *, patterns: list[str]) -> Path:
        requested[repository] = patterns
        return clip

    monkeypatch.setattr("tasks.models.metric_networks.fetch_snapshot", fetch)
    load_clip_model("owner/clip-name")
    assert requested == {"owner/clip-name": ["*.json", "*.txt", "model*.safetensors"]}


@pytest.mark.parametrize("spec", ["nowhere", "/no/such/folder", "./owner", "a/b/c"])
def test_a_name_without_a_model_is_refused_in_one_sentence(spec: str) -> None:
    with pytest.raises(TaskInputError, match="There is no CLIP at"):
        load_clip_model(spec)


def test_a_folder_without_a_config_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TaskInputError, match=r"it has no config\.json"):
        load_clip_model(str(tmp_path))


@pytest.mark.parametrize(
    ("config", "message"), [("{", "unreadable config.json"), ("[]", "not a CLIP"), ('{"model_type": "bert"}', "'bert'")]
)
def test_a_config_of_another_model_is_refused_in_one_sentence(config: str, message: str, clip: Path) -> None:
    (clip / "config.json").write_text(config)
    with pytest.raises(TaskInputError, match=message):
        load_clip_model(str(clip))


def test_pickled_weights_are_refused(clip: Path) -> None:
    (clip / "model.safetensors").rename(clip / "pytorch_model.bin")
    with pytest.raises(TaskInputError, match="loads no other weights"):
        load_clip_model(str(clip))


def test_incomplete_weights_are_refused(clip: Path) -> None:
    weights = load_file(clip / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, clip / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TaskInputError, match=r"incomplete: its weights lack visual_projection\.weight"):
        load_clip_model(str(clip))


def test_weights_of_another_size_are_refused(clip: Path) -> None:
    config = json.loads((clip / "config.json").read_text())
    (clip / "config.json").write_text(json.dumps(config | {"projection_dim": 6}))
    with pytest.raises(TaskInputError, match="cannot be loaded"):
        load_clip_model(str(clip))


def test_damaged_weights_are_refused(clip: Path) -> None:
    (clip / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(TaskInputError, match="cannot be loaded"):
        load_clip_model(str(clip))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("tokenizer.json", "vocab.json"), r"no tokenizer\.json or vocab\.json"),
        (("processor_config.json",), r"no preprocessor_config\.json"),
    ],
)
def test_a_clip_without_tokenizer_or_image_processor_is_refused(
    files: tuple[str, ...], message: str, clip: Path
) -> None:
    for name in files:
        (clip / name).unlink()
    with pytest.raises(TaskInputError, match=message):
        load_clip_model(str(clip))
