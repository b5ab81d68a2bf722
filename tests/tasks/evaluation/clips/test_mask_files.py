from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from storage.video import write_video
from tasks.errors import TaskInputError
from tasks.evaluation.clips.mask_files import read_masks

MASKS = np.zeros((3, 32, 48), np.bool_)
for index in range(3):
    MASKS[index, 8:24, 8 * index : 8 * index + 16] = True


def save_folder(path: Path) -> Path:
    path.mkdir()
    for i, mask in enumerate(MASKS):
        Image.fromarray(mask.astype(np.uint8) * 255).save(path / f"{i:05d}.png")
    (path / "notes.txt").write_text("no image")
    return path


def save_palette(path: Path) -> Path:
    """Save indices of objects as DAVIS does; the colour of the first one is dark."""
    path.mkdir()
    for i, mask in enumerate(MASKS):
        image = Image.fromarray(mask.astype(np.uint8) * (1 + i % 2), mode="P")
        image.putpalette([0, 0, 0, 20, 0, 0, 0, 30, 0])
        image.save(path / f"{i:05d}.png")
    return path


def save_video(path: Path) -> Path:
    file = path.with_suffix(".mp4")
    frames = [np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255 for mask in MASKS]
    write_video(file, frames, timestamps=range(3), time_base=Fraction(1, 8))
    return file


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("save", "wrong"), [(save_folder, 0.0), (save_palette, 0.0), (save_video, 0.01)])
def test_masks_are_read_from_images_with_a_palette_or_without_and_from_videos(
    save: Callable[[Path], Path], wrong: float, tmp_path: Path
) -> None:
    found = read_masks(save(tmp_path / "mask"), count=3)
    assert found.shape == MASKS.shape
    assert np.mean(found != MASKS) <= wrong
    assert len(read_masks(tmp_path / "mask" if wrong == 0 else tmp_path / "mask.mp4", count=2)) == 2


def test_one_image_is_the_mask_of_all_frames(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "mask")
    found: NDArray[np.bool_] = read_masks(folder / "00001.png", count=4)
    np.testing.assert_array_equal(found, np.repeat(MASKS[1:2], 4, axis=0))


def test_a_mask_that_is_missing_short_broken_or_of_several_sizes_is_an_error(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "mask")
    with pytest.raises(TaskInputError, match="has 3 frames, and 4 are needed"):
        read_masks(folder, count=4)
    with pytest.raises(TaskInputError, match=r"The mask .*gone.* does not exist"):
        read_masks(tmp_path / "gone", count=1)
    Image.fromarray(MASKS[0, 1:].astype(np.uint8)).save(folder / "00001.png")
    with pytest.raises(TaskInputError, match="several sizes"):
        read_masks(folder, count=3)
    (folder / "00001.png").write_text("no image")
    with pytest.raises(TaskInputError, match="cannot be read"):
        read_masks(folder, count=3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(TaskInputError, match="contains no image"):
        read_masks(tmp_path / "empty", count=1)
