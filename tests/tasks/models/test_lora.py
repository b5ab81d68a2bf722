from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tasks.errors import TaskInputError
from tasks.models import loading
from tasks.models.checkpoints import resolve_model
from tasks.models.loading import loaded_model
from tasks.models.lora import parse_lora, resolve_loras
from wave_ops.diffusion import StableDiffusion, encode_prompt

QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
OUTPUT = "encoder.layers.0.self_attn.out_proj"
UP, DOWN, ALPHA = torch.linspace(-1, 1, 64).reshape(32, 2), torch.linspace(0, 1, 64).reshape(2, 32), 1.0


def kohya(file: Path, *, query: str = QUERY, fill: float = 0.0) -> Path:
    layers = {f"lora_unet_{query.replace('.', '_')}", f"lora_te_text_model_{OUTPUT.replace('.', '_')}"}
    save_file(
        {
            f"{layer}.{name}": tensor + fill
            for layer in layers
            for name, tensor in (("lora_up.weight", UP), ("lora_down.weight", DOWN), ("alpha", torch.tensor(ALPHA)))
        },
        file,
    )
    return file


def diffusers(file: Path, *, query: str = QUERY, fill: float = 0.0) -> Path:
    scaled = UP * ALPHA / len(DOWN)  # this layout has no alpha
    layers = {f"unet.{query}", f"text_encoder.text_model.{OUTPUT}"}
    save_file(
        {
            f"{layer}.{name}": tensor + fill
            for layer in layers
            for name, tensor in (("lora_B.weight", scaled), ("lora_A.weight", DOWN))
        },
        file,
    )
    return file


def outputs(model: StableDiffusion) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        text = encode_prompt(model, "a red star")
        latents = torch.linspace(-1, 1, 256).reshape(1, 4, 8, 8)
        return text, model.unet(latents, 10, encoder_hidden_states=text).sample


def added_by_hand(model: StableDiffusion, *, weight: float) -> tuple[Tensor, Tensor]:
    """Return the outputs with the product of both matrices added to the weights, which are put back."""
    layers = [model.unet.get_submodule(QUERY), model.text_encoder.get_submodule(OUTPUT)]
    kept = [layer.weight.detach().clone() for layer in layers]
    with torch.no_grad():
        for layer, own in zip(layers, kept, strict=True):
            layer.weight.copy_(own + weight * ALPHA / len(DOWN) * UP @ DOWN)
    found = outputs(model)
    with torch.no_grad():
        for layer, own in zip(layers, kept, strict=True):
            layer.weight.copy_(own)
    return found


@pytest.mark.parametrize("save", [kohya, diffusers])
@pytest.mark.parametrize("weight", [1.0, -0.5])
def test_a_lora_acts_as_its_product_added_to_the_weights(
    save: Callable[[Path], Path], weight: float, tmp_path: Path, sd15: Path
) -> None:
    base = resolve_model(str(sd15))
    with loaded_model(base, device="cpu", dtype="float32") as model:
        expected, plain = added_by_hand(model, weight=weight), outputs(model)
    with loaded_model(
        resolve_loras(base, [f"{save(tmp_path / 'l.safetensors')}:{weight}"]), device="cpu", dtype="float32"
    ) as model:
        found = outputs(model)
    for ours, theirs, without in zip(found, expected, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        assert (ours - without).abs().max() > 1e-3


def test_loras_add_up(tmp_path: Path, sd15: Path) -> None:
    base = resolve_model(str(sd15))
    specs = [f"{kohya(tmp_path / 'a.safetensors')}:0.25", f"{diffusers(tmp_path / 'b.safetensors')}:0.5"]
    with loaded_model(base, device="cpu", dtype="float32") as model:
        expected = added_by_hand(model, weight=0.75)
    with loaded_model(resolve_loras(base, specs), device="cpu", dtype="float32") as model:
        torch.testing.assert_close(outputs(model), expected, rtol=1e-4, atol=1e-5)


def test_after_a_lora_weights_modules_and_outputs_are_the_same_bit_for_bit(tmp_path: Path, sd15: Path) -> None:
    base = resolve_model(str(sd15))
    specs = [f"{kohya(tmp_path / 'l.safetensors')}:0.7", str(diffusers(tmp_path / "m.safetensors"))]
    lora = resolve_loras(base, specs)
    with loaded_model(base, device="cpu", dtype="float32") as model:
        before = outputs(model)
        states = [{k: v.clone() for k, v in n.state_dict().items()} for n in (model.unet, model.text_encoder)]
        modules = [list(network.modules()) for network in (model.unet, model.text_encoder)]
    with pytest.raises(RuntimeError, match="stopped"), loaded_model(lora, device="cpu", dtype="float32") as model:
        raise RuntimeError("stopped")
    with loaded_model(base, device="cpu", dtype="float32") as model:
        for network, state, parts in zip((model.unet, model.text_encoder), states, modules, strict=True):
            assert network.state_dict().keys() == state.keys()
            assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
            assert all(a is b for a, b in zip(network.modules(), parts, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(outputs(model), before, strict=True))


def test_a_lora_does_not_load_the_model_again(tmp_path: Path, sd15: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = resolve_model(str(sd15))
    lora = resolve_loras(base, [str(kohya(tmp_path / "l.safetensors"))])
    with loaded_model(base, device="cpu", dtype="float32"):
        pass
    monkeypatch.setattr(loading, "_network", None)
    for model in (lora, base, lora):
        with loaded_model(model, device="cpu", dtype="float32"):
            pass


def test_loras_and_their_weights_are_part_of_the_identity(tmp_path: Path, sd15: Path) -> None:
    base, file = resolve_model(str(sd15)), kohya(tmp_path / "l.safetensors")
    digests = {resolve_loras(base, [f"{file}{end}"]).digest for end in ("", ":1", ":0.5")}
    digests.add(resolve_loras(base, [str(kohya(tmp_path / "other.safetensors", fill=1))]).digest)
    assert len(digests) == 3
    assert base.digest not in digests
    assert resolve_loras(base, [f"{file}:0"]) == base


def text(file: Path) -> Path:
    file.write_text("no header")
    return file


def checkpoint(file: Path) -> Path:
    save_file({"conv_in.weight": torch.zeros(1)}, file)
    return file


@pytest.mark.parametrize(
    ("save", "words"), [(text, "damaged"), (checkpoint, "contains no LoRA"), (lambda file: file, "does not exist")]
)
def test_a_file_without_a_lora_is_refused(save: Callable[[Path], Path], words: str, tmp_path: Path, sd15: Path) -> None:
    with pytest.raises(TaskInputError, match=words):
        resolve_loras(resolve_model(str(sd15)), [str(save(tmp_path / "l.safetensors"))])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"query": "down_blocks.7.attentions.0.transformer_blocks.0.attn1.to_q"}, "does not fit the model"),
        ({"query": "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"}, "does not fit the model"),
        ({"fill": float("nan")}, "NaN or infinity"),
    ],
)
@pytest.mark.parametrize("save", [kohya, diffusers])
def test_a_lora_of_another_model_is_refused_and_taken_back(
    save: Callable[..., Path], options: dict[str, Any], words: str, tmp_path: Path, sd15: Path
) -> None:
    base = resolve_model(str(sd15))
    lora = resolve_loras(base, [str(save(tmp_path / "l.safetensors", **options))])
    with (
        pytest.raises(TaskInputError, match=words) as caught,
        loaded_model(lora, device="cpu", dtype="float32"),
    ):
        pass
    assert "\n" not in str(caught.value)
    with loaded_model(base, device="cpu", dtype="float32") as model:
        assert not any("lora" in name for network in (model.unet, model.text_encoder) for name in network.state_dict())


def test_a_weight_follows_the_last_colon() -> None:
    assert parse_lora("a.safetensors") == ("a.safetensors", 1.0)
    assert parse_lora("a:b.safetensors:-0.5") == ("a:b.safetensors", -0.5)
    for spec in ("a.safetensors:strong", "a.safetensors:nan", "a.safetensors:"):
        with pytest.raises(TaskInputError):
            parse_lora(spec)
