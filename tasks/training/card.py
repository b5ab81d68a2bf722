"""Model card of the embedded model: its parts, data, training and metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, Final

from prefect import task
from prefect.cache_policies import NO_CACHE
from safetensors import safe_open

from tasks.evaluation.comparisons.comparison import Measure
from tasks.evaluation.comparisons.model import COMPARISON
from tasks.training.files import read_curve, write_text
from wave_ops.scenes.vocabulary import COLOURS, SHAPES, TEXTURES

__all__ = ["write_card"]

_PARTS: Final = {"vae": "autoencoder", "unet": "UNet and text encoder", "controlnet": "ControlNet"}
_MEANINGS: Final = {
    "round trip": "autoencoder round trip, PSNR to the frames",
    "inversion": "inversion and sampling at guidance 1 in 50 steps, PSNR to the frames",
    "inversion to round trip": "the same, PSNR to the round trip",
    "inversion loss": "PSNR lost by inversion, relative to the round trip",
    "generation, colour": "generation at guidance 5: object colour as in the prompt",
    "generation, background colour": "the same, background colour",
    "generation, background texture": "the same, background texture",
    "generation, shape": "the same, shape",
    "edit success": "editing with the full method: requested change made",
    "edit success, colour": "the same, changes of colour",
    "edit success, shape": "the same, changes of shape",
    "edit success, background colour": "the same, changes of background colour",
    "edit success, background texture": "the same, changes of background texture",
    "rest kept": "editing: all other attributes unchanged",
    "preservation": "editing of the object: PSNR of the background",
    "edges followed": "ControlNet on the true edges: IoU of the generated and the true object",
    "edges followed by chance": "the same without the ControlNet (chance level)",
    "two objects, colours": "scenes with two objects, generation: colours as in the prompt",
    "two objects, shapes": "the same, shapes",
    "two objects, edit success": "scenes with two objects, editing: requested change made",
    "two objects, rest kept": "the same, all other attributes unchanged",
    "two objects, preservation": "the same, PSNR outside the edited object",
    "size": "all files",
}
_HEAD: Final = """# The embedded model

A small model in Stable Diffusion's layout, trained from scratch by this project on scenes that it draws itself. With it
every stage runs offline on a CPU. It knows only these words, at {side}x{side} pixels:

- colours: {colours}
- shapes: {shapes}
- backgrounds: {textures}

| | |
|---|---|
| data | {frames} frames of procedural scenes, one in five with two objects, one in three hard |
| captions | "a red star over a blue checked background"; "plain" left out half of the time, one in ten empty |
| autoencoder | AutoencoderKL, {vae}; latents rescaled to mean 0 and standard deviation 1 at scaling factor {scaling} |
| denoiser | UNet2DConditionModel, {unet}; CLIPTextModel, {text} |
| ControlNet | ControlNetModel on canny edges (100, 200), white on black{controlnet} |
| noise | DDIMScheduler, 1000 steps, 0.00085 to 0.012 scaled linear, epsilon |
| optimisers | AdamW; Muon for the matrices of UNet, text encoder and ControlNet; moving average of the weights |
| seed | {seed} |

`wave train-embedded` trains it again, with the settings of `flows/train_embedded.py`; `wave evaluate model` measures it
again.
"""


@task(name="Write the model card", cache_policy=NO_CACHE, persist_result=False)
def write_card(
    work_folder: str, output: str, *, metrics: Mapping[str, float], seed: int, frames: int = 0, notes: str = ""
) -> str:
    """Write the card from the model's configs, the curves of its training, and its metrics.

    Args:
        work_folder: folder of the training.
        output: folder of the model, to which README.md is written.
        metrics: from `measure_model`.
        seed: seed of the training.
        frames: number of training frames.
        notes: Markdown that ends the card.

    Returns:
        The card's path.
    """
    curves = {part: read_curve(Path(work_folder) / f"{part}.jsonl") for part in _PARTS}
    path = Path(output) / "README.md"
    head = _HEAD.format(
        colours=", ".join(COLOURS),
        shapes=", ".join(SHAPES),
        textures=", ".join(TEXTURES),
        seed=seed,
        frames=frames,
        **_facts(Path(output)),
    )
    sections = [head, _metrics_table(metrics), _curves_table(curves), notes]
    write_text(path, "\n".join(section for section in sections if section))
    return str(path)


def _facts(folder: Path) -> dict[str, str]:
    """Return the card's facts that come from the model's own files."""
    vae, unet, text = (_config(folder / part) for part in ("vae", "unet", "text_encoder"))
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    controlled = (folder / "controlnet" / "config.json").exists()
    return {
        "side": str(unet["sample_size"] * factor),
        "scaling": str(vae["scaling_factor"]),
        "vae": f"factor {factor}, channels {_channels(vae)}, {_millions(folder / 'vae')}",
        "unet": f"channels {_channels(unet)}, cross-attention at every level, {_millions(folder / 'unet')}",
        "text": f"width {text['hidden_size']}, {_millions(folder / 'text_encoder')}",
        "controlnet": f", {_millions(folder / 'controlnet')}" if controlled else "",
    }


def _config(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return values


def _channels(config: Mapping[str, Any]) -> str:
    return ", ".join(map(str, config["block_out_channels"]))


def _millions(folder: Path) -> str:
    """Return the number of parameters of a part, in millions."""
    count = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            count += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 (not a mapping)
    return f"{count / 1e6:.2f} M parameters"


def _metrics_table(metrics: Mapping[str, float]) -> str:
    rows = [_metric_row(measure, metrics[measure.name]) for measure in COMPARISON.measures if measure.name in metrics]
    title = "## Metrics, on held-out calm scenes with one object unless stated otherwise"
    return "\n".join([title, "", "| metric | value | target | |", "|---|---|---|---|", *rows, ""])


def _metric_row(measure: Measure, value: float) -> str:
    target, verdict = "", ""
    if measure.target is not None:
        higher = measure.better == "higher"
        target = f"{'at least' if higher else 'at most'} {_shown(measure, measure.target)}"
        verdict = "met" if (value >= measure.target if higher else value <= measure.target) else "missed"
    return f"| {_MEANINGS.get(measure.name, measure.name)} | {_shown(measure, value)} | {target} | {verdict} |"


def _shown(measure: Measure, value: float) -> str:
    return f"{100 * value:.1f} %" if measure.unit == "fraction" else f"{value:.1f} {measure.unit}"


def _curves_table(curves: Mapping[str, list[dict[str, float]]]) -> str:
    """Return a table of the loss at a few points of each training."""
    rows = [
        f"| {_PARTS[part]} | {record['step']:.0f} | {record['seconds'] / 60:.1f} | {record['loss']:.4f} |"
        for part, curve in curves.items()
        for record in _evenly_spaced(curve, count=6)
    ]
    head = ["## Training", "", "| part | step | minutes | loss |", "|---|---|---|---|"]
    return "\n".join([*head, *rows, ""])


def _evenly_spaced(curve: list[dict[str, float]], *, count: int) -> list[dict[str, float]]:
    """Return `count` records of a curve at equal distances, including the last one."""
    if len(curve) <= count:
        return curve
    return [curve[round((index + 1) * len(curve) / count) - 1] for index in range(count)]
