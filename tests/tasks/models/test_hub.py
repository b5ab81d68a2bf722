from __future__ import annotations

import pytest

from tasks.errors import TaskInputError
from tasks.models.hub import fetch_snapshot, select_files

FILES = [
    "README.md",
    "v1-5.safetensors",
    "model_index.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.fp16.safetensors",
    "safety_checker/model.safetensors",
]
PATTERNS = ["model_index.json", "unet/*.json", "unet/*.safetensors", "vae/*.safetensors", "text_encoder/*.safetensors"]


@pytest.mark.parametrize(
    ("half", "unet"),
    [
        (False, "unet/diffusion_pytorch_model.safetensors"),
        (True, "unet/diffusion_pytorch_model.fp16.safetensors"),
    ],
)
def test_one_variant_of_each_network_is_selected(half: bool, unet: str) -> None:
    assert select_files(FILES, patterns=PATTERNS, half=half) == sorted(
        [
            "model_index.json",
            "unet/config.json",
            unet,
            "vae/diffusion_pytorch_model.safetensors",
            "text_encoder/model.fp16.safetensors",
        ]
    )


@pytest.mark.parametrize("half", [False, True])
def test_all_parts_and_the_index_of_one_variant_are_selected(half: bool) -> None:
    full = [
        f"unet/diffusion_pytorch_model{end}" for end in ("-00001-of-00002.safetensors", "-00002-of-00002.safetensors")
    ]
    full.append("unet/diffusion_pytorch_model.safetensors.index.json")
    fp16 = ["unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.safetensors.index.fp16.json"]
    assert select_files([*full, *fp16], patterns=PATTERNS, half=half) == sorted(fp16 if half else full)


def test_an_unreachable_hub_is_reported_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr("tasks.models.hub.HfApi.model_info", refuse)
    monkeypatch.setattr("tasks.models.hub.snapshot_download", refuse)
    with pytest.raises(TaskInputError, match=r"'owner/name' is not a folder here.*cannot be reached"):
        fetch_snapshot("owner/name", patterns=["*.json"])
