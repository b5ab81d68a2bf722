"""The card of the embedded model, against the card that is generated from its files and metrics."""

from __future__ import annotations

import shutil
from pathlib import Path

from tasks.evaluation.comparisons.model import COMPARISON
from tasks.models.checkpoints import EMBEDDED
from tasks.training.card import write_card


def metrics_of(card: str) -> dict[str, float]:
    """Read the values of the table of metrics, whose rows are in the order of the comparison's measures."""
    rows = card.partition("| metric |")[2].partition("## Training")[0].strip().split("\n")[2:]
    cells = [row.split("|")[2].split() for row in rows]
    values = [float(number) / 100 if unit == "%" else float(number) for number, unit in cells]
    names = [measure.name for measure in COMPARISON.measures if measure.name != "seconds"]
    return dict(zip(names, values, strict=True))


def test_the_embedded_models_card_begins_as_a_generated_one(tmp_path: Path) -> None:
    card = (EMBEDDED / "README.md").read_text()
    model = shutil.copytree(EMBEDDED, tmp_path / "model")
    generated = write_card.fn(str(tmp_path), str(model), metrics=metrics_of(card), seed=0, frames=24_000)
    assert card.startswith(Path(generated).read_text())
