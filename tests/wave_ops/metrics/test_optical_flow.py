from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from storage.flo import read_flo
from wave_ops.errors import WaveOpsError
from wave_ops.flow import dis_flow
from wave_ops.metrics import flow_endpoint_error, mask_precision_recall


def test_the_endpoint_error_is_the_mean_distance() -> None:
    flow = torch.zeros(2, 2, 3, 4)
    flow[0, 0], flow[0, 1], flow[1, 1, 0] = 3, 4, 6
    assert flow_endpoint_error(flow, torch.zeros_like(flow)).tolist() == pytest.approx([5, 2])


def test_nan_in_an_invalid_pixel_does_not_change_the_error() -> None:
    flow = torch.zeros(1, 2, 4, 4)
    flow[0, 0, 0, 0] = torch.nan
    valid = ~flow.isnan().any(dim=1)
    assert flow_endpoint_error(flow, torch.zeros(1, 2, 4, 4), valid=valid).item() == 0


def test_dis_has_its_published_error_on_a_real_pair(shared: Path) -> None:
    folder = shared / "reference" / "flow"
    pair = [np.asarray(Image.open(folder / f"rubberwhale{i}.png").convert("RGB")) for i in (1, 2)]
    truth = torch.from_numpy(read_flo(folder / "middlebury_flow_gt.flo"))[None]
    _, forward = dis_flow("medium")(*pair)
    valid = ~truth.isnan().any(dim=1)
    assert flow_endpoint_error(torch.from_numpy(forward)[None], truth, valid=valid).item() == pytest.approx(0.225, 0.02)


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        ([1, 1, 0, 0], [1, 0, 1, 1], (1 / 2, 1 / 3)),
        ([0, 0, 0, 0], [1, 0, 0, 0], (1, 0)),
        ([1, 0, 0, 0], [0, 0, 0, 0], (0, 1)),
        ([0, 0, 0, 0], [0, 0, 0, 0], (1, 1)),
    ],
)
def test_precision_and_recall_of_known_masks(predicted, truth, expected) -> None:
    masks = (torch.tensor(mask, dtype=torch.bool) for mask in (predicted, truth))
    assert mask_precision_recall(*masks) == pytest.approx(expected)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("metric", [flow_endpoint_error, mask_precision_recall])
def test_arrays_of_different_shapes_are_refused(metric) -> None:
    with pytest.raises(WaveOpsError, match="one shape"):
        metric(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 5))
