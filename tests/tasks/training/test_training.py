"""A tiny training: every task once, resumed, exported, loaded by diffusers and transformers, and measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from pydantic import ValidationError
from transformers import CLIPTextModel, CLIPTokenizer

from flows.settings import TrainSettings
from tasks.evaluation.comparisons.model import ModelComparison
from tasks.training.base import take_base
from tasks.training.card import write_card
from tasks.training.controlnet import train_controlnet
from tasks.training.export import export_model
from tasks.training.files import load_tensors, read_curve
from tasks.training.frames import draw_frames, load_frames, trained_frames
from tasks.training.latents import encode_training_frames, encode_with_base
from tasks.training.measure import measure_model
from tasks.training.tokenizer import build_tokenizer, load_tokenizer
from tasks.training.unet import train_unet
from tasks.training.vae import train_vae
from wave_ops.scenes.specs import random_scene
from wave_ops.scenes.vocabulary import COLOURS, HELD_OUT_PAIRS, SHAPES
from wave_ops.training.batches import DiffusionBatch, draw_batch
from wave_ops.training.latents import encode_latents
from wave_ops.training.modules import SAMPLE_SIZE
from wave_ops.training.schedules import Budget

ONE_STEP = Budget(steps=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the paths that each task of a tiny training returned."""
    work = str(tmp_path_factory.mktemp("training"))
    frames = draw_frames.fn(work, count=24, seed=1)
    tokenizer = build_tokenizer.fn(work)
    vae = train_vae.fn(work, frames, budget=ONE_STEP, seed=0, batch_size=2)
    latents = encode_training_frames.fn(work, frames, vae)
    unet = train_unet.fn(work, latents, tokenizer, budget=Budget(steps=2), seed=0, batch_size=2)
    controlnet = train_controlnet.fn(
        work,
        frames_folder=frames,
        latents_path=latents,
        tokenizer_folder=tokenizer,
        unet_checkpoint=unet,
        budget=ONE_STEP,
        seed=0,
        batch_size=2,
    )
    model = export_model.fn(
        work,
        str(Path(work) / "model"),
        tokenizer_folder=tokenizer,
        unet_checkpoint=unet,
        controlnet_checkpoint=controlnet,
    )
    return {
        "work": work,
        "frames": frames,
        "tokenizer": tokenizer,
        "vae": vae,
        "latents": latents,
        "unet": unet,
        "model": model,
    }


def test_existing_frames_are_not_drawn_again(trained: dict[str, str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(trained["frames"]).iterdir()}
    draw_frames.fn(trained["work"], count=24, seed=1)
    assert {path: path.stat().st_mtime_ns for path in Path(trained["frames"]).iterdir()} == before


def test_frames_have_their_scenes_captions_and_are_marked_as_hard(trained: dict[str, str]) -> None:
    frames, known = load_frames(trained["frames"])
    assert frames.shape == (24, SAMPLE_SIZE, SAMPLE_SIZE, 3)
    assert frames.dtype == torch.uint8
    assert known["captions"][3] == random_scene(1_000_003).caption
    assert known["hard"] == [seed % 3 == 0 for seed in range(1_000_000, 1_000_024)]


def test_existing_latents_are_not_computed_again(trained: dict[str, str]) -> None:
    before = Path(trained["latents"]).stat().st_mtime_ns
    encode_training_frames.fn(trained["work"], trained["frames"], trained["vae"])
    assert Path(trained["latents"]).stat().st_mtime_ns == before


def test_the_end_of_the_training_draws_no_hard_frame(trained: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[list[int]] = []

    def watched(*args: Any, **kwargs: Any) -> DiffusionBatch:
        batch = draw_batch(*args, **kwargs)
        chosen.append(batch.indices.tolist())
        return batch

    monkeypatch.setattr("tasks.training.unet.draw_batch", watched)
    monkeypatch.setattr(
        "tasks.training.unet.train_with_checkpoints", lambda _path, _training, loss_at, **_: (loss_at(0), loss_at(19))
    )
    _, known = load_frames(trained["frames"])
    train_unet.fn(
        trained["work"], trained["latents"], trained["tokenizer"], budget=Budget(steps=20), seed=0, batch_size=200
    )
    assert [{known["hard"][index] for index in indices} for indices in chosen] == [{True, False}, {False}]


def test_every_word_of_a_caption_is_one_token(trained: dict[str, str]) -> None:
    tokenizer = load_tokenizer(trained["tokenizer"])
    caption = "a red star and a green circle over an orange checked background"
    assert len(tokenizer(caption).input_ids) == len(caption.split()) + 2
    assert tokenizer.decode(tokenizer(caption).input_ids, skip_special_tokens=True) == caption


def test_latents_have_mean_0_and_standard_deviation_1(trained: dict[str, str]) -> None:
    latents = load_tensors(Path(trained["latents"]))[0]["latents"]
    torch.testing.assert_close(latents.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)


def test_a_finished_training_changes_nothing_when_run_again(trained: dict[str, str]) -> None:
    before, _ = load_tensors(Path(trained["vae"]))
    train_vae.fn(trained["work"], trained["frames"], budget=ONE_STEP, seed=0, batch_size=2)
    after, _ = load_tensors(Path(trained["vae"]))
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_checkpoint_and_curve_contain_the_last_step(trained: dict[str, str]) -> None:
    assert load_tensors(Path(trained["unet"]))[1]["step"] == 2
    (record,) = read_curve(Path(trained["unet"]).with_suffix(".jsonl"))
    assert set(record) == {"step", "seconds", "loss", "learning_rate_factor"}
    assert record["step"] == 2


def test_diffusers_and_transformers_load_the_exported_model_in_half_precision(trained: dict[str, str]) -> None:
    folder = Path(trained["model"])
    for family, name in ((AutoencoderKL, "vae"), (UNet2DConditionModel, "unet"), (ControlNetModel, "controlnet")):
        model = family.from_pretrained(folder / name, use_safetensors=True, torch_dtype=torch.float16)
        assert {value.dtype for value in model.parameters()} == {torch.float16}
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", use_safetensors=True)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    assert tokenizer.model_max_length == encoder.config.max_position_embeddings == 32
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    assert (scheduler.config.steps_offset, scheduler.config.set_alpha_to_one) == (1, False)
    assert json.loads((folder / "model_index.json").read_text())["unet"] == ["diffusers", "UNet2DConditionModel"]


def test_the_exported_unet_is_the_moving_average(trained: dict[str, str]) -> None:
    state, _ = load_tensors(Path(trained["unet"]))
    unet = UNet2DConditionModel.from_pretrained(Path(trained["model"]) / "unet", torch_dtype=torch.float16)
    for name, value in unet.named_parameters():
        assert torch.equal(value, state[f"average/unet.{name}"].half())


def test_the_exported_model_is_small_and_leaves_no_temporary_files(trained: dict[str, str]) -> None:
    files = [path for path in Path(trained["model"]).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 25e6
    assert not [path for path in files if path.name.startswith(".")]


def test_the_card_contains_the_metrics_and_the_curves(trained: dict[str, str]) -> None:
    metrics = measure_model.fn(trained["work"], trained["model"], scenes=1, steps=2)
    card = Path(write_card.fn(trained["work"], trained["model"], metrics=metrics, seed=7)).read_text()
    assert "| autoencoder round trip, PSNR to the frames |" in card
    assert f"| all files | {metrics['size']:.1f} MB | at most 25.0 MB | met |" in card
    assert "AutoencoderKL, factor 8, channels 16, 32, 64, 64," in card
    assert "at 128x128 pixels" in card
    assert "| UNet and text encoder | 2 |" in card
    assert "| seed | 7 |" in card


def test_a_measured_scene_is_not_measured_again(trained: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    before = measure_model.fn(trained["work"], trained["model"], scenes=1, steps=2)
    monkeypatch.setattr(ModelComparison, "measure", None)
    assert measure_model.fn(trained["work"], trained["model"], scenes=1, steps=2) == before


@pytest.mark.parametrize(("value", "verdict"), [(0.951, "met"), (0.949, "missed")])
def test_the_card_states_whether_a_target_is_met(trained: dict[str, str], value: float, verdict: str) -> None:
    metrics = {"generation, colour": value, "inversion loss": 2 * value}
    card = Path(write_card.fn(trained["work"], trained["model"], metrics=metrics, seed=7)).read_text()
    assert f"| {100 * value:.1f} % | at least 95.0 % | {verdict} |" in card
    assert f"| {2 * value:.1f} dB | at most 1.0 dB | missed |" in card


def test_a_base_model_is_kept_and_its_autoencoder_encodes_the_frames(trained: dict[str, str], tmp_path: Path) -> None:
    base = Path(trained["model"])
    tokenizer, unet = take_base.fn(str(tmp_path), str(base))
    latents = encode_with_base.fn(str(tmp_path), trained["frames"])
    controlnet = train_controlnet.fn(
        str(tmp_path),
        frames_folder=trained["frames"],
        latents_path=latents,
        tokenizer_folder=tokenizer,
        unet_checkpoint=unet,
        budget=ONE_STEP,
        seed=3,
        batch_size=2,
    )
    export_model.fn(
        str(tmp_path),
        str(tmp_path / "model"),
        tokenizer_folder=tokenizer,
        unet_checkpoint=unet,
        controlnet_checkpoint=controlnet,
    )
    for part in ("unet", "text_encoder", "vae", "controlnet"):
        (before,), (after,) = (sorted((folder / part).glob("*.safetensors")) for folder in (base, tmp_path / "model"))
        assert (before.read_bytes() == after.read_bytes()) == (part != "controlnet"), part
    frames, _ = load_frames(trained["frames"])
    exported = AutoencoderKL.from_pretrained(base / "vae").eval()
    assert torch.equal(load_tensors(Path(latents))[0]["latents"][:2], encode_latents(exported, frames[:2]))


def test_no_training_sees_a_held_out_pair_but_every_colour_and_every_shape() -> None:
    captions = [random_scene(seed).caption for seed in range(400)]
    seen = [captions[index] for index in trained_frames(captions)]
    assert 0 < len(captions) - len(seen) < 80
    assert not [caption for caption in seen for colour, shape in HELD_OUT_PAIRS if f"{colour} {shape}" in caption]
    assert {word for caption in seen for word in caption.split()} >= {*COLOURS, *SHAPES}


def test_the_seed_of_a_training_does_not_reach_the_scenes_of_evaluations() -> None:
    with pytest.raises(ValidationError, match="less than 1000"):
        TrainSettings(output="a", work_folder="b", seed=1_000)
    TrainSettings(output="a", work_folder="b", seed=999)
