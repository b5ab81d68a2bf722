"""The model card: what the model is, where it comes from, and what it can do, in figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.train_files import read_curve, write_text
from wave_ops.scenes.vocabulary import COLOURS, SHAPES, TEXTURES

__all__ = ["write_card"]

_PARTS: Final = {"vae": "autoencoder", "unet": "UNet and text encoder", "controlnet": "ControlNet"}
_FIGURES: Final = {
    "round_trip_psnr": "autoencoder round trip of frames (dB)",
    "inversion_psnr": "inversion and sampling at guidance 1, against the frames (dB)",
    "inversion_psnr_against_round_trip": "the same, against the round trip (dB)",
    "generation_colour": "generation at guidance 5: object colour as asked for",
    "generation_shape": "shape",
    "generation_background_colour": "background colour",
    "generation_background_texture": "background texture",
    "generation_overlap": "overlap of the drawn object with one placed elsewhere at random (what chance gives)",
    "steered_overlap": "the same with the ControlNet on the true edges",
    "recolouring_colour": "recolouring by prompt swap at guidance 5: new object colour reached",
    "recolouring_shape": "shape kept",
    "recolouring_background_colour": "background colour kept",
    "recolouring_background_texture": "background texture kept",
    "recolouring_overlap": "overlap of the recoloured object with where it was",
}
_HEAD: Final = """# The embedded model

A small model in Stable Diffusion's layout, trained from nothing by this project on scenes that it draws itself. It lets
every stage run offline on a CPU. It knows these words, at 64x64 pixels, and nothing else.

- colours: {colours}
- shapes: {shapes}
- backgrounds: {textures}

| | |
|---|---|
| data | {frames} frames of procedural scenes, one in ten with two objects; held-out scenes for the figures |
| captions | "a red star over a blue checked background"; "plain" left out half of the time, one in ten empty |
| autoencoder | AutoencoderKL, factor 4, channels 16, 32, 64; latents rescaled to mean 0 and spread 1 under 0.18215 |
| denoiser | UNet2DConditionModel, channels 32, 64, 128, cross-attention at every level; CLIPTextModel, width 128 |
| ControlNet | ControlNetModel on canny edges (100, 200), white on black |
| noise | DDIMScheduler, 1000 steps, 0.00085 to 0.012 scaled linear, epsilon |
| optimisers | AdamW; Muon for the matrices of UNet, text encoder and ControlNet; running average of the weights |
| seed | {seed} |

It is made again by `wave train-embedded`, whose settings are those of `flows/train_embedded.py`, and measured again,
from the repository's root, by

    python -c "from tasks.train_figures import measure_model; print(measure_model.fn('tasks/embedded'))"
"""


@task(name="Write the model card", cache_policy=NO_CACHE, persist_result=False)
def write_card(
    work_folder: str, output: str, *, figures: Mapping[str, float], seed: int, frames: int = 0, notes: str = ""
) -> str:
    """Write the card from the training's curves and the model's figures. Returns its path."""
    curves = {part: read_curve(Path(work_folder) / f"{part}.jsonl") for part in _PARTS}
    path = Path(output) / "README.md"
    head = _HEAD.format(
        colours=", ".join(COLOURS), shapes=", ".join(SHAPES), textures=", ".join(TEXTURES), seed=seed, frames=frames
    )
    sections = [head, _figures_table(figures), _curves_table(curves), notes]
    write_text(path, "\n".join(section for section in sections if section))
    return str(path)


def _figures_table(figures: Mapping[str, float]) -> str:
    rows = [f"| {_FIGURES.get(name, name)} | {_shown(name, value)} |" for name, value in figures.items()]
    return "\n".join(["## Figures, on held-out scenes with one object", "", "| what | value |", "|---|---|", *rows, ""])


def _shown(name: str, value: float) -> str:
    return f"{value:.1f}" if "psnr" in name else f"{value:.0%}"


def _curves_table(curves: Mapping[str, list[dict[str, float]]]) -> str:
    """Loss at a few points of each training."""
    rows = [
        f"| {_PARTS[part]} | {record['step']:.0f} | {record['seconds'] / 60:.1f} | {record['loss']:.4f} |"
        for part, curve in curves.items()
        for record in _spread(curve, count=6)
    ]
    head = ["## Training", "", "| part | step | minutes | loss |", "|---|---|---|---|"]
    return "\n".join([*head, *rows, ""])


def _spread(curve: list[dict[str, float]], *, count: int) -> list[dict[str, float]]:
    """Records of a curve at even distances, its last one included."""
    if len(curve) <= count:
        return curve
    return [curve[round((place + 1) * len(curve) / count) - 1] for place in range(count)]
