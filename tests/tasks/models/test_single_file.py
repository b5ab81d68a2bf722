from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from tasks.errors import TaskInputError
from tasks.models.checkpoints import resolve_model
from tasks.models.loading import _tokenizer, loaded_model
from tasks.models.single_file import CONFIGS, config_folder
from tests._checkpoints import save_sd15, save_sd21
from tests._single_file import save_single_file, vae_to_ldm, weights
from wave_ops.diffusion import encode_prompt

CROSS = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
CLIP = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
OPEN_CLIP = "cond_stage_model.model.token_embedding.weight"


def configs_next_to(file: Path, folder: Path) -> None:
    """Put a checkpoint's configs next to a file, without weights."""
    shutil.copytree(folder, file.with_suffix(""), ignore=shutil.ignore_patterns("*.safetensors", "controlnet"))


@pytest.fixture
def single(tmp_path: Path, sd15: Path) -> Path:
    file = save_single_file(tmp_path / "one.safetensors", sd15)
    configs_next_to(file, sd15)
    return file


@pytest.mark.parametrize("save", [save_sd15, save_sd21])
def test_one_file_has_the_weights_of_its_folder(save: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = save(tmp_path / "folder")
    file = save_single_file(tmp_path / "one.safetensors", folder)
    configs_next_to(file, folder)
    one, several = resolve_model(str(file)), resolve_model(str(folder))
    assert (one.vae_factor, one.size_multiple, one.native_area) == (several.vae_factor, 64, 64 * 64)
    assert one.digest != several.digest
    with loaded_model(several, device="cpu", dtype="float32") as expected:
        pass
    with loaded_model(one, device="cpu", dtype="float32") as found:
        for name in ("unet", "vae", "text_encoder"):
            wanted = getattr(expected, name).state_dict()
            state = getattr(found, name).state_dict()
            assert state.keys() == wanted.keys()
            assert all(torch.equal(state[key], wanted[key]) for key in wanted), name
        assert torch.equal(encode_prompt(found, "a red star"), encode_prompt(expected, "a red star"))
        assert found.scheduler_config == expected.scheduler_config


def test_the_weights_of_one_file_enter_the_digest(single: Path) -> None:
    before = resolve_model(str(single)).digest
    tensors = load_file(single)
    tensors[CROSS] += 1
    save_file(tensors, single)
    assert resolve_model(str(single)).digest != before


@pytest.mark.parametrize(
    ("shapes", "metadata", "folder"),
    [
        ({CROSS: (1, 768), CLIP: (1,)}, {}, "sd1"),
        ({CROSS: (1, 1024), OPEN_CLIP: (1,)}, {}, "sd2"),
        ({CROSS: (1, 1024), OPEN_CLIP: (1,)}, {"modelspec.prediction_type": "epsilon"}, "sd2_base"),
        ({CROSS: (1, 1024), OPEN_CLIP: (1,)}, {"modelspec.architecture": "stable-diffusion-v2-512"}, "sd2_base"),
        ({CROSS: (1, 1024), OPEN_CLIP: (1,)}, {"modelspec.architecture": "stable-diffusion-v2-768-v"}, "sd2"),
    ],
)
def test_the_version_is_known_from_the_tensors(
    shapes: dict[str, tuple[int, ...]], metadata: dict[str, str], folder: str, tmp_path: Path
) -> None:
    file = tmp_path / "x.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, file, metadata=metadata)
    assert config_folder(file) == CONFIGS / folder


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sd2_base"])
def test_the_configs_of_the_package_build_the_networks_and_tokenizer_of_their_version(kind: str) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(CONFIGS / kind / "unet"))
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(CONFIGS / kind / "vae"))
        text = CLIPTextModel(CLIPTextConfig.from_pretrained(CONFIGS / kind / "text_encoder"))
    counts = [sum(value.numel() for value in network.parameters()) for network in (unet, vae, text)]
    # As published: 860 and 866 million in the UNets, 84 in the VAE, 123 and 340 in the text encoders
    assert counts == (
        [859_520_964, 83_653_863, 123_060_480] if kind == "sd1" else [865_910_724, 83_653_863, 340_387_840]
    )
    assert unet.config.cross_attention_dim == text.config.hidden_size
    tokens = _tokenizer(CONFIGS / kind / "tokenizer")("a cat", padding="max_length", max_length=77).input_ids
    assert tokens[:4] == [49406, 320, 2368, 49407]
    assert set(tokens[4:]) == ({49407} if kind == "sd1" else {0})


def without(name: str) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        save_file({key: value for key, value in load_file(file).items() if not key.startswith(name)}, file)

    return damage


def reshape(name: str) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        save_file(load_file(file) | {name: torch.zeros(1, 2)}, file)

    return damage


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:1000]), "damaged"),
        (without("first_stage_model"), "--vae"),
        (without("cond_stage_model"), "no cond_stage_model"),
        (without("model.diffusion_model.out"), "no model.diffusion_model.out.2.weight"),
        (reshape(CROSS), "is 1x2, and they say anyx32"),
        (lambda file: (file.with_suffix("") / "model_index.json").unlink(), "into the folder"),
        (lambda file: (file.with_suffix("") / "unet" / "config.json").unlink(), "no unet/config.json"),
    ],
)
def test_an_unusable_file_is_refused_in_one_sentence(damage: Callable[[Path], None], words: str, single: Path) -> None:
    damage(single)
    with pytest.raises(TaskInputError) as caught:
        resolve_model(str(single))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "model.diffusion_model.time_embed.2.bias",
        "first_stage_model.decoder.norm_out.bias",
        "cond_stage_model.transformer.text_model.final_layer_norm.bias",
    ],
)
def test_a_file_without_a_tensor_is_refused_when_it_is_loaded(name: str, single: Path) -> None:
    without(name)(single)
    identity = resolve_model(str(single))
    with (
        pytest.raises(TaskInputError, match=r"one\.safetensors is incomplete"),
        loaded_model(identity, device="cpu", dtype="float32"),
    ):
        pass


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "lora.safetensors"
    save_file({"lora_unet_x.lora_up.weight": torch.zeros(1)}, file)
    with pytest.raises(TaskInputError, match="not a checkpoint of Stable Diffusion"):
        resolve_model(str(file))
    (tmp_path / "model.ckpt").write_bytes(b"x")
    with pytest.raises(TaskInputError, match=r"expected a \.safetensors file"):
        resolve_model(str(tmp_path / "model.ckpt"))


@pytest.mark.parametrize("form", ["folder", "checkpoint", "file", "diffusers file"])
@pytest.mark.parametrize("whole", ["folder", "file"])
def test_another_vae_takes_the_place_of_the_models_own(
    form: str, whole: str, tmp_path: Path, sd15: Path, single: Path
) -> None:
    other = Path(shutil.copytree(sd15 / "vae", tmp_path / "other" / "vae"))
    (file,) = other.glob("*.safetensors")
    save_file({name: tensor * 2 for name, tensor in load_file(file).items()}, file)
    ldm = tmp_path / "vae.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in vae_to_ldm(weights(other)).items()}, ldm)
    spec = {"folder": other, "checkpoint": other.parent, "file": ldm, "diffusers file": file}[form]
    model = sd15 if whole == "folder" else single
    identity = resolve_model(str(model), vae=str(spec))
    assert identity.digest != resolve_model(str(model)).digest
    with loaded_model(identity, device="cpu", dtype="float32") as loaded:
        state = loaded.vae.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in load_file(file).items())


def test_a_file_without_a_vae_is_used_with_another(tmp_path: Path, sd15: Path) -> None:
    file = save_single_file(tmp_path / "pruned.safetensors", sd15, vae=False)
    configs_next_to(file, sd15)
    with loaded_model(resolve_model(str(file), vae=str(sd15)), device="cpu", dtype="float32") as loaded:
        assert loaded.vae.config.latent_channels == 4


def test_a_vae_that_does_not_fit_is_refused(tmp_path: Path, sd15: Path) -> None:
    with pytest.raises(TaskInputError, match="Unknown VAE"):
        resolve_model(str(sd15), vae="nothing")
    with pytest.raises(TaskInputError, match="do not fit the config"):
        resolve_model(str(sd15), vae=str(sd15 / "unet" / "diffusion_pytorch_model.safetensors"))
    other = Path(shutil.copytree(sd15 / "vae", tmp_path / "vae"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"latent_channels": 16}))
    with pytest.raises(TaskInputError):
        resolve_model(str(sd15), vae=str(other))
