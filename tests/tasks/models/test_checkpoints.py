from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from tasks.errors import TaskInputError
from tasks.models import loading
from tasks.models.checkpoints import resolve_controlnet, resolve_model
from tasks.models.loading import loaded_model
from tests._checkpoints import save_sd15, save_sd21
from wave_ops.diffusion import decode_latents, encode_frames, encode_prompt
from wave_ops.schedule import DDIMSchedule


@pytest.fixture
def copy(sd15: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sd15, tmp_path / "copy"))


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_sizes_are_computed_from_the_configs(sd15: Path) -> None:
    model = resolve_model(str(sd15))
    assert (model.vae_factor, model.size_multiple, model.native_area) == (8, 64, 64 * 64)
    assert model.advice.guidance_scale is None


def test_advice_is_read_from_the_model_index(copy: Path) -> None:
    change_json(copy / "model_index.json", wave={"guidance_scale": 5, "negative_prompt": "", "injection": 0.2})
    advice = resolve_model(str(copy)).advice
    assert (advice.guidance_scale, advice.negative_prompt, advice.injection) == (5, "", 0.2)


def test_the_digest_depends_on_weights_and_sites_but_not_on_card_or_advice(copy: Path, sd15: Path) -> None:
    before = resolve_model(str(sd15)).digest
    (copy / "README.md").write_text("a card")
    change_json(copy / "model_index.json", wave={"guidance_scale": 5})
    assert resolve_model(str(copy)).digest == before
    change_json(copy / "model_index.json", wave={"sites": {"warp_resnets": []}})
    assert resolve_model(str(copy)).digest != before
    change_json(copy / "model_index.json", wave={})
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["conv_out.bias"] += 1
    save_file(tensors, weights)
    assert resolve_model(str(copy)).digest != before


def test_fp16_weights_are_chosen_for_float16_or_where_there_are_no_others(tmp_path: Path) -> None:
    both = save_sd15(tmp_path / "both", dtype=torch.float16, variant="fp16")
    only_half = resolve_model(str(both))
    assert set(dict(only_half.variants).values()) == {"fp16"}
    for part, stem in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        shutil.copy(both / part / f"{stem}.fp16.safetensors", both / part / f"{stem}.safetensors")
    assert set(dict(resolve_model(str(both)).variants).values()) == {None}
    assert set(dict(resolve_model(str(both), dtype="float16").variants).values()) == {"fp16"}
    with loaded_model(only_half, device="cpu", dtype="float32") as model:
        assert model.dtype == torch.float32


def test_a_loaded_checkpoint_encodes_decodes_and_schedules(tmp_path: Path) -> None:
    for save, prediction in ((save_sd15, "epsilon"), (save_sd21, "v_prediction")):
        identity = resolve_model(str(save(tmp_path / save.__name__)))
        with loaded_model(identity, device="cpu", dtype="float32") as model:
            frames = np.zeros((2, 64, 128, 3), np.uint8)
            latents = encode_frames(model, frames)
            assert latents.shape == (2, 4, 8, 16)
            assert decode_latents(model, latents).shape == frames.shape
            assert encode_prompt(model, "a red star").shape[:2] == (1, 77)
            assert (model.size_multiple, model.native_area) == (identity.size_multiple, identity.native_area)
            schedule = DDIMSchedule.from_config(model.scheduler_config, steps=50)
            assert schedule.prediction_type == prediction
            assert (schedule.timesteps[0], schedule.timesteps[-1]) == (1, 981)


def test_loading_the_same_model_again_returns_the_same_object(sd15: Path) -> None:
    identity = resolve_model(str(sd15))
    with loaded_model(identity, device="cpu", dtype="float32") as first:
        pass
    with loaded_model(identity, device="cpu", dtype="float32") as second:
        assert second is first


def test_a_checkpoint_and_its_controlnet_are_loaded_once_for_any_sequence_of_stages(
    sd15: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    network = loading._network
    monkeypatch.setattr(
        loading,
        "_network",
        lambda family, *args, **kw: [loads.append(family.__name__), network(family, *args, **kw)][1],
    )
    loading._load.cache_clear()
    loading._load_controlnet.cache_clear()
    model = resolve_model(str(sd15))
    own = resolve_controlnet("auto", model=model)
    for controlnet in (None, own, None, own):  # inversion and edit of two prompts
        with loaded_model(model, controlnet, device="cpu", dtype="float32") as loaded:
            assert (loaded.controlnet is None) == (controlnet is None)
    assert sorted(loads) == ["AutoencoderKL", "CLIPTextModel", "ControlNetModel", "UNet2DConditionModel"]


def shard(folder: Path, *, infix: str = "") -> list[Path]:
    """Save a UNet's weights again in several files with an index; return them."""
    unet = UNet2DConditionModel.from_pretrained(folder)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    unet.save_pretrained(folder, max_shard_size="200KB", variant=infix or None)
    return sorted(folder.glob("*.safetensors"))


@pytest.mark.parametrize("infix", ["", "fp16"])
def test_weights_in_several_files_are_checked_loaded_and_identified(copy: Path, sd15: Path, infix: str) -> None:
    parts = shard(copy / "unet", infix=infix)
    assert len(parts) > 1
    model = resolve_model(str(copy))
    assert dict(model.variants)["unet"] == (infix or None)
    with loaded_model(model, device="cpu", dtype="float32") as loaded:
        weight = loaded.unet.conv_out.weight
    assert torch.equal(weight, UNet2DConditionModel.from_pretrained(sd15 / "unet").conv_out.weight)
    tensors = load_file(parts[-1])
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, parts[-1])
    assert resolve_model(str(copy)).digest != model.digest


def test_a_missing_part_of_the_weights_is_named(copy: Path) -> None:
    last = shard(copy / "unet")[-1]
    last.unlink()
    with pytest.raises(TaskInputError, match=f"incomplete: .* names {last.name}"):
        resolve_model(str(copy))
    index = copy / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "../../outside.safetensors"}}')
    with pytest.raises(TaskInputError, match="outside"):
        resolve_model(str(copy))
    index.write_text("[]")
    with pytest.raises(TaskInputError, match="index of weights"):
        resolve_model(str(copy))


def test_a_controlnet_is_found_in_the_model_or_in_a_folder_or_is_none(sd15: Path, copy: Path) -> None:
    model = resolve_model(str(sd15))
    assert resolve_controlnet("none", model=model) is None
    own = resolve_controlnet("auto", model=model)
    assert own == resolve_controlnet(str(sd15 / "controlnet"), model=model)
    shutil.rmtree(copy / "controlnet")
    assert resolve_controlnet("auto", model=resolve_model(str(copy))) is None
    with loaded_model(model, own, device="cpu", dtype="float32") as loaded:
        assert loaded.controlnet is not None


@pytest.mark.parametrize("name", ["control_v11f1p_sd15_depth", "sd-controlnet-openpose", "Tile"])
def test_a_controlnet_for_something_else_than_edges_is_refused_unless_it_is_said_to_be_for_canny(
    name: str, sd15: Path, tmp_path: Path
) -> None:
    model = resolve_model(str(sd15))
    folder = Path(shutil.copytree(sd15 / "controlnet", tmp_path / name))
    with pytest.raises(TaskInputError, match=f"write canny={folder}"):
        resolve_controlnet(f"{folder}/", model=model)
    found = resolve_controlnet(f"canny={folder}", model=model)
    assert found is not None
    assert found.location == str(folder)
    assert resolve_controlnet(f"depth={folder}", model=model) == found
    with pytest.raises(TaskInputError, match=r"Unknown kind of ControlNet .* canny, depth"):
        resolve_controlnet(f"sonar={folder}", model=model)


def test_a_controlnet_is_refused_by_the_name_in_its_config(copy: Path) -> None:
    model = resolve_model(str(copy))
    change_json(copy / "controlnet" / "config.json", _name_or_path="lllyasviel/sd-controlnet-seg")
    with pytest.raises(TaskInputError, match="is for seg by its name"):
        resolve_controlnet(str(copy / "controlnet"), model=model)
    change_json(copy / "controlnet" / "config.json", _name_or_path="lllyasviel/sd-controlnet-canny")
    assert resolve_controlnet(str(copy / "controlnet"), model=model) is not None


def keep_pickles_only(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (keep_pickles_only, "pickled weights"),
        (lambda folder: (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink(), "contains no weights"),
        (lambda folder: (folder / "model_index.json").unlink(), "has no model_index.json"),
        (lambda folder: (folder / "unet" / "config.json").unlink(), "has no unet/config.json"),
        (lambda folder: (folder / "scheduler" / "scheduler_config.json").unlink(), "scheduler_config.json"),
        (lambda folder: (folder / "unet" / "config.json").write_text("{"), "unreadable config.json"),
        (lambda folder: (folder / "unet" / "config.json").write_text("[]"), "not a JSON object"),
        (lambda folder: change_json(folder / "unet" / "config.json", in_channels=9), "inpainting"),
        (lambda folder: change_json(folder / "unet" / "config.json", sample_size=None), "sample_size"),
        (lambda folder: change_json(folder / "vae" / "config.json", block_out_channels=None), "block_out_channels"),
        (
            lambda folder: change_json(folder / "model_index.json", text_encoder_2=["a", "b"]),
            "no text_encoder_2/config.json",
        ),
        (lambda folder: change_json(folder / "model_index.json", transformer=["a", "b"]), "1.x, 2.x and XL"),
        (lambda folder: change_json(folder / "model_index.json", wave={"guidance": 5}), "advice"),
        (lambda folder: change_json(folder / "model_index.json", wave=[1]), "advice"),
    ],
)
def test_an_unusable_checkpoint_is_refused_in_one_sentence(copy: Path, damage: Any, words: str) -> None:
    damage(copy)
    with pytest.raises(TaskInputError) as caught:
        resolve_model(str(copy))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("spec", "words"), [("nothing", "Unknown model"), ("./a/b", "Unknown model")])
def test_an_unknown_model_is_refused_in_one_sentence(spec: str, words: str) -> None:
    with pytest.raises(TaskInputError, match=words):
        resolve_model(spec)


def test_a_file_is_refused_as_a_model(copy: Path) -> None:
    with pytest.raises(TaskInputError, match=r"expected a \.safetensors file"):
        resolve_model(str(copy / "model_index.json"))
