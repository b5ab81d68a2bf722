from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wave_ops.errors import WaveOpsError
from wave_ops.metrics import warp_error


def image(*size: int) -> Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))


def test_the_warp_error_follows_the_flow_over_valid_pixels_only() -> None:
    first = image(6, 8)
    frames = torch.cat((first, first.roll(2, dims=3), first))
    frames[1, :, 0, 4] += 0.5
    flows = torch.zeros(2, 2, 6, 8)
    flows[0, 0], flows[1, 0] = -2, 2
    valid = torch.zeros(2, 6, 8, dtype=torch.bool)
    valid[0, :3, 2:] = True
    valid[1, 3:, :6] = True
    assert warp_error(frames, flows, valid).tolist() == pytest.approx([0.25 / 18, 0])


def test_the_warp_error_without_valid_pixels_is_not_a_number() -> None:
    frames = image(4, 4).repeat(2, 1, 1, 1)
    assert warp_error(frames, torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.bool)).isnan().all()


def test_a_single_frame_has_no_warp_error() -> None:
    nothing = torch.zeros(0, 4, 4)
    assert warp_error(image(4, 4), nothing[:, None].repeat(1, 2, 1, 1), nothing.bool()).shape == (0,)


@pytest.mark.usefixtures("unchecked")
def test_one_flow_and_one_mask_are_required_for_each_pair() -> None:
    with pytest.raises(WaveOpsError, match="2 pairs"):
        warp_error(torch.zeros(3, 3, 4, 4), torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.bool))
