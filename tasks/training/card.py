"""The model card: what the model is, where it comes from, and what it can do, in figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, Final

from prefect import task
from prefect.cache_policies import NO_CACHE
from safetensors import safe_open

from tasks.evaluation.comparison import Measure
from tasks.evaluation.comparisons.model import COMPARISON
from tasks.training.files import read_curve, write_text
from wave_ops.scenes.vocabulary import COLOURS, SHAPES, TEXTURES

__all__ = ["write_card"]

_PARTS: Final = {"vae": "autoencoder", "unet": "UNet and text encoder", "controlnet": "ControlNet"}
_MEANINGS: Final = {
    "round trip": "autoencoder round trip, against the frames",
    "inversion": "inversion and sampling at guidance 1 in 50 steps, against the frames",
    "inversion to round trip": "the same, against the round trip",
    "inversion loss": "what inversion loses against the round trip",
    "generation, colour": "generation at guidance 5: object colour as asked for",
    "generation, background colour": "background colour",
    "generation, background texture": "background texture",
    "generation, shape": "shape",
    "edit success": "editing with the full method: what was asked for reached",
    "edit success, colour": "where that was a colour",
    "edit success, shape": "a shape",
    "edit success, background colour": "a background colour",
    "edit success, background texture": "a background texture",
    "rest kept": "everything else kept",
    "preservation": "the background after an edit of the object",
    "edges followed": "ControlNet on the true edges: overlap of the object with where it is",
    "edges followed by chance": "the same without it (what chance gives)",
    "two objects, colours": "scenes with two objects: colours there",
    "two objects, shapes": "shapes there",
    "two objects, edit success": "edits: what was asked for reached",
    "two objects, rest kept": "everything else kept",
    "two objects, preservation": "what is outside the edited object",
    "size": "all files",
}
_HEAD: Final = """# The embedded model

A small model in Stable Diffusion's layout, trained from nothing by this project on scenes that it draws itself. It lets
every stage run offline on a CPU. It knows these words, at {side}x{side} pixels, and nothing else.

- colours: {colours}
- shapes: {shapes}
- backgrounds: {textures}

| | |
|---|---|
| data | {frames} frames of procedural scenes, one in five with two objects, one in three hard |
| captions | "a red star over a blue checked background"; "plain" left out half of the time, one in ten empty |
| autoencoder | AutoencoderKL, {vae}; latents rescaled to mean 0 and spread 1 under {scaling} |
| denoiser | UNet2DConditionModel, {unet}; CLIPTextModel, {text} |
| ControlNet | ControlNetModel on canny edges (100, 200), white on black{controlnet} |
| noise | DDIMScheduler, 1000 steps, 0.00085 to 0.012 scaled linear, epsilon |
| optimisers | AdamW; Muon for the matrices of UNet, text encoder and ControlNet; running average of the weights |
| seed | {seed} |

It is made again by `wave train-embedded`, whose settings are those of `flows/train_embedded.py`, and measured again by
`wave evaluate model`.
"""


@task(name="Write the model card", cache_policy=NO_CACHE, persist_result=False)
def write_card(
    work_folder: str, output: str, *, figures: Mapping[str, float], seed: int, frames: int = 0, notes: str = ""
) -> str:
    """Write the card from the model's configs, the training's curves and the comparison's figures. Returns its path."""
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
    sections = [head, _figures_table(figures), _curves_table(curves), notes]
    write_text(path, "\n".join(section for section in sections if section))
    return str(path)


def _facts(folder: Path) -> dict[str, str]:
    """What the model's own configs say of it."""
    vae, unet, text = (_config(folder / part) for part in ("vae", "unet", "text_encoder"))
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    controlled = (folder / "controlnet" / "config.json").exists()
    return {
        "side": str(unet["sample_size"] * factor),
        "scaling": str(vae["scaling_factor"]),
        "vae": f"factor {factor}, channels {_listed(vae)}, {_millions(folder / 'vae')}",
        "unet": f"channels {_listed(unet)}, cross-attention at every level, {_millions(folder / 'unet')}",
        "text": f"width {text['hidden_size']}, {_millions(folder / 'text_encoder')}",
        "controlnet": f", {_millions(folder / 'controlnet')}" if controlled else "",
    }


def _config(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return values


def _listed(config: Mapping[str, Any]) -> str:
    return ", ".join(map(str, config["block_out_channels"]))


def _millions(folder: Path) -> str:
    """How many parameters a part has."""
    count = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            count += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 (no mapping)
    return f"{count / 1e6:.2f} M parameters"


def _figures_table(figures: Mapping[str, float]) -> str:
    rows = [_figure_row(measure, figures[measure.name]) for measure in COMPARISON.measures if measure.name in figures]
    title = "## Figures, on held-out calm scenes, with one object unless said otherwise"
    return "\n".join([title, "", "| what | value | asked for | |", "|---|---|---|---|", *rows, ""])


def _figure_row(measure: Measure, value: float) -> str:
    asked, verdict = "", ""
    if measure.bar is not None:
        higher = measure.better == "higher"
        asked = f"{'at least' if higher else 'at most'} {_shown(measure, measure.bar)}"
        verdict = "holds" if (value >= measure.bar if higher else value <= measure.bar) else "missed"
    return f"| {_MEANINGS.get(measure.name, measure.name)} | {_shown(measure, value)} | {asked} | {verdict} |"


def _shown(measure: Measure, value: float) -> str:
    return f"{100 * value:.1f} %" if measure.unit == "share" else f"{value:.1f} {measure.unit}"


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
