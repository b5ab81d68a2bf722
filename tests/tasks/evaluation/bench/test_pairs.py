from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.errors import TaskInputError
from tasks.evaluation.bench._pairs import Pair, drawn_pairs, read_pairs

SIZE = (24, 32)
METRICS = {"cpu_seconds": 40.0, "error_mean": 9000.0, "error_median": 8000.0}


def save_pair(folder: Path, pair: Pair) -> Path:
    """Write a pair as the 8-bit images that EbSynth reads."""
    folder.mkdir(parents=True)
    images = {"key": pair.source.colour, "target": pair.target.colour, "style": pair.style}
    for side, guides in (("source", pair.source), ("target", pair.target)):
        images |= {f"{name}_{side}": g for name, g in zip(("edge", "temporal", "position"), guides[1:], strict=True)}
    for name, image in images.items():
        Image.fromarray(image[0].permute(1, 2, 0).round().byte().numpy()).save(folder / f"{name}.png")
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    flow = np.moveaxis(pair.start[0].numpy() - np.stack((x, y)), 0, -1)
    np.savez(folder / "flow.npz", flow_to_prev=flow.astype(np.float16))
    (folder / "ebsynth.json").write_text(json.dumps(METRICS))
    np.save(folder / "ebsynth_error.npy", np.full(SIZE, 9000.0, np.float32))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_pair(tmp_path / "reference" / "one", drawn_pairs(SIZE)[0])


def test_reading_a_written_pair_returns_its_8_bit_images_and_flow(folder: Path) -> None:
    (pair,), drawn = read_pairs(folder.parent), drawn_pairs(SIZE)[0]
    assert pair.name == "one"
    assert pair.ebsynth is not None
    assert pair.ebsynth.cpu_seconds == 40
    written = (drawn.style, *drawn.source, *drawn.target)
    for read, expected in zip((pair.style, *pair.source, *pair.target), written, strict=True):
        assert read.dtype == torch.float32
        assert torch.equal(read, expected.round())
    np.testing.assert_allclose(pair.start, drawn.start, atol=0.02)


@pytest.mark.parametrize("name", ["key.png", "style.png", "edge_source.png", "position_target.png", "flow.npz"])
def test_a_missing_file_of_a_pair_is_named_in_the_error(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(TaskInputError, match=f"one has no file {name}"):
        read_pairs(folder.parent)


def test_the_results_of_ebsynth_are_optional(folder: Path) -> None:
    (folder / "ebsynth_error.npy").unlink()
    (pair,) = read_pairs(folder.parent)
    assert pair.ebsynth is not None
    assert pair.ebsynth.error is None
    (folder / "ebsynth.json").unlink()
    assert read_pairs(folder.parent)[0].ebsynth is None


def spoil(folder: Path, name: str) -> None:
    """Overwrite a file with invalid content."""
    rows, columns = SIZE
    match name:
        case "target.png":
            Image.new("RGB", (columns, rows + 1)).save(folder / name)
        case "flow.npz":
            np.savez(folder / name, flow_to_prev=np.zeros((rows, columns, 3)))
        case "ebsynth_error.npy":
            np.save(folder / name, np.array([None, {}], dtype=object), allow_pickle=True)
        case "ebsynth.json":
            (folder / name).write_text(json.dumps({**METRICS, "cpu_seconds": 0}))
        case _:
            (folder / name).write_text("not an image")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("target.png", "all images of a pair need one size"),
        ("style.png", "cannot be read as an image"),
        ("flow.npz", "finite flow_to_prev of shape"),
        ("ebsynth.json", "above 0"),
        ("ebsynth_error.npy", "cannot be read as an array"),
    ],
)
def test_an_invalid_file_is_a_one_line_error_that_names_it(folder: Path, name: str, words: str) -> None:
    spoil(folder, name)
    with pytest.raises(TaskInputError, match=words) as raised:
        read_pairs(folder.parent)
    assert "\n" not in str(raised.value)
    assert name in str(raised.value)


def test_a_folder_without_pairs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TaskInputError, match="contains no pairs"):
        read_pairs(tmp_path)
    with pytest.raises(TaskInputError, match="no folder"):
        read_pairs(tmp_path / "nothing")
