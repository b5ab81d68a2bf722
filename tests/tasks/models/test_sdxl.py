from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from tasks.artifacts import stored_warps
from tasks.errors import TaskInputError
from tasks.models.checkpoints import resolve_model
from tasks.models.loading import _tokenizer, loaded_model
from tasks.models.lora import resolve_loras
from tasks.models.single_file import CONFIGS, config_folder
from tasks.planning.request import edit_request
from tasks.planning.stages import DECODE, EDIT, INVERT, KEYFRAME_FLOW
from tests._checkpoints import save_controlnet, save_sdxl
from tests._clips import save_clip
from tests._single_file import save_single_file
from tests._stages import artifact_of, make_plan, run_until_edited
from wave_ops.conditioning import encode_prompts
from wave_ops.diffusion import decode_latents, encode_frames
from wave_ops.edges import canny_edges
from wave_ops.editing import edit
from wave_ops.resize import resize_frames

CROSS = "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
CLIP = "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight"
OPEN_CLIP = "conditioner.embedders.1.model.token_embedding.weight"
NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sdxl(tmp_path_factory.mktemp("checkpoints") / "sdxl")


@pytest.fixture
def copy(sdxl: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sdxl, tmp_path / "copy"))


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_prompts_and_sizes_are_those_of_the_pipeline_of_sdxl(sdxl: Path) -> None:
    prompts, zeros = ("a red star", "a blue square over a green circle"), ""
    pipeline = StableDiffusionXLPipeline.from_pretrained(sdxl)
    with loaded_model(resolve_model(str(sdxl)), device="cpu", dtype="float32") as model, torch.inference_mode():
        found = encode_prompts(model, (*prompts, zeros))
        assert found.pooled is not None
        for branch, prompt in enumerate(prompts):
            text, negative, pooled, negative_pooled = pipeline.encode_prompt(prompt)
            torch.testing.assert_close(found.text[branch], text[0])
            torch.testing.assert_close(found.pooled[branch], pooled[0])
            assert torch.equal(found.text[-1], negative[0])
            assert torch.equal(found.pooled[-1], negative_pooled[0])
        sizes = pipeline._get_add_time_ids((64, 128), (0, 0), (64, 128), torch.float32, 24)
        added = found.arguments(torch.zeros(3, 4, 8, 16))["added_cond_kwargs"]
        assert torch.equal(added["time_ids"][:1], sizes)


def test_sizes_and_the_prompts_of_a_checkpoint_are_read(sdxl: Path) -> None:
    model = resolve_model(str(sdxl))
    assert (model.vae_factor, model.size_multiple, model.native_area) == (8, 32, 128 * 128)
    assert dict(model.variants).keys() == set(NETWORKS)


def test_an_sdxl_checkpoint_encodes_and_decodes_with_its_vae_in_float32(sdxl: Path) -> None:
    identity = resolve_model(str(sdxl), dtype="bfloat16")
    with loaded_model(identity, device="cpu", dtype="bfloat16") as model:
        assert (model.dtype, model.vae.dtype) == (torch.bfloat16, torch.float32)
        assert {value.dtype for value in model.text_encoder_2.parameters()} == {torch.bfloat16}
        frames = np.zeros((1, 32, 64, 3), np.uint8)
        assert decode_latents(model, encode_frames(model, frames)).shape == frames.shape
        assert encode_prompts(model, ["a red star"]).text.dtype == torch.bfloat16


def test_a_vae_in_float32_is_part_of_the_identity_and_the_configs_decide_on_it_and_on_empty_prompts(copy: Path) -> None:
    upcast = [resolve_model(str(copy), dtype=dtype).digest for dtype in ("float32", "bfloat16")]
    change_json(copy / "vae" / "config.json", force_upcast=False)
    same = [resolve_model(str(copy), dtype=dtype) for dtype in ("float32", "bfloat16")]
    assert len(set(upcast)) == 2
    assert same[0].digest == same[1].digest
    change_json(copy / "model_index.json", force_zeros_for_empty_prompt=False)
    with loaded_model(resolve_model(str(copy), dtype="bfloat16"), device="cpu", dtype="bfloat16") as model:
        assert model.vae.dtype == torch.bfloat16
        assert encode_prompts(model, [""]).text.abs().max() > 0


@pytest.mark.parametrize("change", ["weights", "zeros", "tokenizer"])
def test_the_second_text_encoder_is_part_of_the_identity(change: str, copy: Path) -> None:
    before = resolve_model(str(copy)).digest
    if change == "zeros":
        change_json(copy / "model_index.json", force_zeros_for_empty_prompt=False)
    elif change == "tokenizer":
        change_json(copy / "tokenizer_2" / "tokenizer_config.json", model_max_length=76)
    else:
        file = copy / "text_encoder_2" / "model.safetensors"
        tensors = load_file(file)
        tensors["text_projection.weight"] += 1
        save_file(tensors, file, metadata={"format": "pt"})
    assert resolve_model(str(copy)).digest != before


def test_one_file_has_the_weights_of_its_folder(tmp_path: Path, sdxl: Path) -> None:
    file = save_single_file(tmp_path / "one.safetensors", sdxl)
    shutil.copytree(sdxl, file.with_suffix(""), ignore=shutil.ignore_patterns("*.safetensors"))
    one, several = resolve_model(str(file)), resolve_model(str(sdxl))
    assert (one.vae_factor, one.size_multiple, one.native_area) == (8, 32, 128 * 128)
    with loaded_model(several, device="cpu", dtype="float32") as expected:
        pass
    with loaded_model(one, device="cpu", dtype="float32") as found:
        for name in NETWORKS:
            wanted, state = (getattr(model, name).state_dict() for model in (expected, found))
            assert state.keys() == wanted.keys()
            assert all(torch.equal(state[key], wanted[key]) for key in wanted), name
        prompts = [encode_prompts(model, ["a red star", ""]) for model in (expected, found)]
        assert torch.equal(prompts[0].text, prompts[1].text)
        assert prompts[0].pooled is not None
        assert prompts[1].pooled is not None
        torch.testing.assert_close(prompts[0].pooled, prompts[1].pooled)  # the projection is transposed in memory


def test_an_edit_with_a_controlnet_from_a_folder_is_that_of_its_networks_on_the_edges(
    copy: Path, tmp_path: Path
) -> None:
    clip = save_clip(tmp_path / "clip.mp4", frames=2)
    save_controlnet(copy / "controlnet", copy)
    texts = {"prompt": "a blue star", "source_prompt": "a red star"}
    request = edit_request(video=str(clip), model=str(copy), size="64x64", steps=1, controlnet=("auto",), **texts)
    plan = run_until_edited(make_plan(request, tmp_path / "workspace"))
    assert plan.inputs.controlnet is not None
    networks, inverted = plan.inputs.controlnet.networks, artifact_of(plan, INVERT)
    stored, settings = torch.from_numpy(inverted.read_region("latents")), plan[EDIT].settings
    source = resize_frames(artifact_of(plan, DECODE).read_region("frames"), plan.size)
    with loaded_model(plan.inputs.model, networks, device="cpu", dtype="float32") as model:
        expected, without = (
            edit(
                model,
                stored.__getitem__,
                negative_prompt=settings.negative_prompt,
                orders=inverted.read_region("orders").tolist(),
                warps=stored_warps(artifact_of(plan, KEYFRAME_FLOW), plan.pairs),
                settings=settings.editing,
                edges=edges,
                **texts,
            )
            for edges in (canny_edges(source), None)
        )
    found = torch.from_numpy(artifact_of(plan, EDIT).read_region("latents")[-1])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, without, atol=1e-3)


def save_names(file: Path, *, names: tuple[str, ...] = (), metadata: dict[str, str] | None = None) -> Path:
    shapes = {CROSS: (1, 2048), CLIP: (1,), OPEN_CLIP: (1,)} | dict.fromkeys(names, (1,))
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, file, metadata=metadata)
    return file


def test_one_file_of_sdxl_is_known_from_its_tensors(tmp_path: Path) -> None:
    assert config_folder(save_names(tmp_path / "x.safetensors")) == CONFIGS / "sdxl"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"names": ("v_pred",)}, "v-prediction"),
        ({"metadata": {"modelspec.prediction_type": "v"}}, "v-prediction"),
        ({"names": ("conditioner.embedders.0.model.text_projection",)}, "refiner"),
    ],
)
def test_one_file_of_another_kind_of_sdxl_is_refused(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(TaskInputError, match=words) as caught:
        resolve_model(str(save_names(tmp_path / "x.safetensors", **options)))
    assert "\n" not in str(caught.value)


def test_one_file_without_the_second_text_encoder_is_refused(tmp_path: Path, sdxl: Path) -> None:
    file = save_single_file(tmp_path / "one.safetensors", sdxl)
    shutil.copytree(sdxl, file.with_suffix(""), ignore=shutil.ignore_patterns("*.safetensors"))
    tensors = load_file(file)
    save_file({name: value for name, value in tensors.items() if name != OPEN_CLIP}, file)
    with pytest.raises(TaskInputError, match=f"no {OPEN_CLIP}"):
        resolve_model(str(file))


def test_the_configs_of_the_package_build_the_networks_and_tokenizers_of_sdxl() -> None:
    folder = CONFIGS / "sdxl"
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "unet"))
        second = CLIPTextModelWithProjection(CLIPTextConfig.from_pretrained(folder / "text_encoder_2"))
    counts = [sum(value.numel() for value in network.parameters()) for network in (unet, second)]
    assert counts == [2_567_463_684, 694_659_840]  # as published
    padded = [
        _tokenizer(folder / name)("a cat", padding="max_length", max_length=77).input_ids[-1]
        for name in ("tokenizer", "tokenizer_2")
    ]
    assert padded == [49407, 0]


def refine(folder: Path) -> None:
    change_json(folder / "model_index.json", requires_aesthetics_score=True)


def without_first_encoder(folder: Path) -> None:
    change_json(folder / "model_index.json", text_encoder=[None, None])


def aesthetic_unet(folder: Path) -> None:
    change_json(folder / "unet" / "config.json", projection_class_embeddings_input_dim=5 * 8 + 24)


def plain_unet(folder: Path) -> None:
    change_json(folder / "unet" / "config.json", addition_embed_type=None)


def without_second_tokenizer(folder: Path) -> None:
    shutil.rmtree(folder / "tokenizer_2")


def with_third_encoder(folder: Path) -> None:
    change_json(folder / "model_index.json", text_encoder_3=["transformers", "T5EncoderModel"])


def narrow_text(folder: Path) -> None:
    change_json(folder / "unet" / "config.json", cross_attention_dim=32)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (refine, "refiner"),
        (without_first_encoder, "refiner"),
        (aesthetic_unet, "6 sizes of 8 and an embedding of 24"),
        (plain_unet, "added conditions"),
        (without_second_tokenizer, "no tokenizer_2/vocab.json"),
        (with_third_encoder, "1.x, 2.x and XL"),
        (narrow_text, "do not fit|returns 32 and 48"),
    ],
)
def test_an_unusable_checkpoint_is_refused_in_one_sentence(
    damage: Callable[[Path], None], words: str, copy: Path
) -> None:
    damage(copy)
    with pytest.raises(TaskInputError, match=words) as caught:
        resolve_model(str(copy))
    assert "\n" not in str(caught.value)


def test_a_lora_reaches_both_text_encoders_and_the_unet_and_is_taken_back(tmp_path: Path, sdxl: Path) -> None:
    layers = {
        "unet.up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q": 32,
        "text_encoder.text_model.encoder.layers.0.self_attn.out_proj": 32,
        "text_encoder_2.text_model.encoder.layers.0.self_attn.out_proj": 48,
    }
    ends = {"lora_A.weight": (2, None), "lora_B.weight": (None, 2)}
    file = tmp_path / "l.safetensors"
    save_file(
        {
            f"{layer}.{end}": torch.full([side or width for side in shape], 0.5)
            for layer, width in layers.items()
            for end, shape in ends.items()
        },
        file,
    )
    base = resolve_model(str(sdxl))

    def outputs(identity: Any) -> list[torch.Tensor]:
        with loaded_model(identity, device="cpu", dtype="float32") as model, torch.inference_mode():
            prompts = encode_prompts(model, ["a red star"])
            latents = torch.linspace(-1, 1, 256).reshape(1, 4, 8, 8)
            noise = model.unet(latents, 10, **replace(prompts, text=prompts.text * 0).arguments(latents)).sample
            assert prompts.pooled is not None
            return [prompts.text[..., :32], prompts.text[..., 32:], prompts.pooled, noise]

    before, during, after = (outputs(each) for each in (base, resolve_loras(base, [str(file)]), base))
    for plain, changed, again in zip(before, during, after, strict=True):
        assert not torch.equal(plain, changed)
        assert torch.equal(plain, again)
