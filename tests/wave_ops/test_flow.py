from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from wave_ops.errors import WaveOpsError
from wave_ops.flow import build_raft, compose_flows, dis_flow, raft_flow, refine_flow
from wave_ops.masks import occlusion_mask
from wave_ops.metrics import mask_precision_recall

Frame = NDArray[np.uint8]


def texture(height: int, width: int, *, seed: int = 0, grain: int = 4) -> Frame:
    """Return smooth random colours with details of about `grain` pixels."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // grain + 2, width // grain + 2, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def shifted_pair(height: int, width: int, *, dx: int, dy: int) -> tuple[Frame, Frame]:
    """Return prev and cur, two views of one picture: the point at p in `prev` is at p + (dx, dy) in `cur`."""
    whole = texture(height + 32, width + 32)
    return whole[16 : 16 + height, 16 : 16 + width], whole[16 - dy : 16 - dy + height, 16 - dx : 16 - dx + width]


class Still(torch.nn.Module):
    """A stand-in for RAFT: returns the mean colour difference as flow, and records the shape of its input."""

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> list[torch.Tensor]:
        assert not any(side % 8 for side in first.shape[2:])
        assert min(first.shape[2:]) >= 128
        assert -1 <= first.min() <= first.max() <= 1
        self.shape = tuple(first.shape)
        difference = (second - first).mean(dim=1, keepdim=True)
        return [torch.zeros_like(difference).repeat(1, 2, 1, 1), difference.repeat(1, 2, 1, 1)]


@pytest.mark.parametrize("size", [(256, 320), (128, 128), (96, 130), (64, 64), (48, 80)])
def test_dis_finds_a_shift_in_both_directions(size) -> None:
    to_prev, to_cur = dis_flow()(*shifted_pair(*size, dx=3, dy=-2))
    assert to_prev.shape == to_cur.shape == (2, *size)
    inside = np.s_[:, 6:-6, 6:-6]
    truth = np.array([3, -2], np.float32)[:, None, None]
    assert np.abs(to_prev[inside] + truth).mean() < 0.1
    assert np.abs(to_cur[inside] - truth).mean() < 0.1


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 5), (16, 16), (20, 31), (9, 200)])
def test_dis_accepts_frames_of_any_size(size) -> None:
    to_prev, to_cur = dis_flow()(texture(*size), texture(*size, seed=1))
    assert to_prev.shape == to_cur.shape == (2, *size)
    assert np.isfinite(to_prev).all()


def test_dis_follows_a_small_square_on_small_frames() -> None:
    prev, cur = texture(64, 64), texture(64, 64)
    prev[20:40, 20:40] = cur[20:40, 24:44] = texture(20, 20, seed=1)
    to_prev, to_cur = dis_flow()(prev, cur)
    assert abs(np.median(to_prev[0, 22:38, 26:42]) + 4) < 0.2
    assert abs(np.median(to_cur[0, 22:38, 22:38]) - 4) < 0.2
    assert np.abs(to_prev[:, :12]).mean() < 0.1


def test_dis_compares_grey_in_which_red_outweighs_blue() -> None:
    red, blue = shifted_pair(96, 128, dx=3, dy=-2), shifted_pair(96, 128, dx=-3, dy=2)
    prev, cur = (
        np.stack([r[..., 0], np.full_like(r[..., 0], 100), b[..., 2]], axis=2) for r, b in zip(red, blue, strict=True)
    )
    _, to_cur = dis_flow()(prev, cur)
    np.testing.assert_allclose(np.median(to_cur, axis=(1, 2)), [3, -2], atol=0.2)


def test_the_occlusion_mask_of_dis_contains_the_uncovered_strip_and_is_wrong_only_near_moving_edges() -> None:
    prev, cur = texture(128, 128), texture(128, 128)
    prev[40:88, 30:78] = cur[40:88, 40:88] = texture(48, 48, seed=1)
    mask = occlusion_mask(*(torch.from_numpy(flow)[None] for flow in dis_flow()(prev, cur)))
    truth = torch.zeros(1, 128, 128, dtype=torch.bool)
    truth[:, 40:88, 30:40] = True
    near_an_edge = torch.zeros_like(truth)
    near_an_edge[:, 30:98, 20:98] = True
    near_an_edge[:, 50:78, 50:68] = False
    assert mask_precision_recall(mask, truth)[1] > 0.8
    assert not (mask & ~near_an_edge).any()


def test_dis_does_not_depend_on_the_number_of_threads() -> None:
    before = cv2.getNumThreads()
    pair = shifted_pair(150, 190, dx=5, dy=1)
    try:
        flows = []
        for count in (1, 2, 5):
            cv2.setNumThreads(count)
            flows.append(np.stack(dis_flow()(*pair)))
    finally:
        cv2.setNumThreads(before)
    assert all(np.array_equal(flows[0], other) for other in flows[1:])


def test_flows_are_separate_float32_arrays() -> None:
    for flow in dis_flow("fast")(*shifted_pair(64, 64, dx=1, dy=0)):
        assert flow.dtype == np.float32
        assert flow.flags.c_contiguous
        assert flow.flags.writeable


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ((136, 200), (2, 3, 136, 200)),
        ((130, 201), (2, 3, 136, 208)),
        ((64, 100), (2, 3, 128, 200)),
        ((30, 43), (2, 3, 152, 216)),
    ],
)
def test_raft_gets_multiples_of_eight_and_at_least_128_pixels(size, shape) -> None:
    model = Still()
    to_prev, to_cur = raft_flow(model)(np.full((*size, 3), 255, np.uint8), np.zeros((*size, 3), np.uint8))
    assert model.shape == shape
    factor = -(-128 // min(size))
    np.testing.assert_allclose(to_prev, np.full((2, *size), 2 / factor), rtol=1e-6)
    np.testing.assert_allclose(to_cur, np.full((2, *size), -2 / factor), rtol=1e-6)


@pytest.mark.parametrize("size", ["small", "large"])
def test_raft_is_built_without_a_download(size, monkeypatch) -> None:
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", None)
    assert sum(p.numel() for p in build_raft(size).parameters()) > 900_000


@pytest.mark.parametrize(
    "frames",
    [
        (texture(8, 8), texture(8, 9)),
        (texture(8, 8)[..., 0], texture(8, 8)[..., 0]),
        (texture(8, 8), texture(8, 8).astype(np.float32)),
        (texture(8, 8)[:0], texture(8, 8)[:0]),
    ],
)
@pytest.mark.parametrize("estimator", [dis_flow(), raft_flow(Still())])
@pytest.mark.usefixtures("unchecked")
def test_frames_that_are_not_a_pair_are_refused(estimator, frames) -> None:
    with pytest.raises(WaveOpsError, match="expected two"):
        estimator(*frames)


@pytest.mark.usefixtures("unchecked")
def test_unknown_estimators_are_refused() -> None:
    with pytest.raises(WaveOpsError, match="ultrafast, fast, medium"):
        dis_flow("slow")
    with pytest.raises(WaveOpsError, match="small or large"):
        build_raft("tiny")


def rubber_whale(folder: Path) -> tuple[Frame, Frame, NDArray[np.float32]]:
    frames = [cv2.imread(str(folder / f"rubberwhale{i}.png"))[..., ::-1].copy() for i in (1, 2)]
    raw = (folder / "middlebury_flow_gt.flo").read_bytes()
    width, height = np.frombuffer(raw, np.int32, 2, offset=4)
    return *frames, np.frombuffer(raw, np.float32, offset=12).reshape(height, width, 2).transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("name", "weights", "bound"),
    [
        ("dis", None, 0.24),
        ("small", "raft_small", 0.33),
        pytest.param("large", "raft_large_sintel", 0.21, marks=pytest.mark.slow),
    ],
)
def test_estimators_have_their_known_error_on_rubber_whale(shared, name, weights, bound) -> None:
    prev, cur, truth = rubber_whale(shared / "reference" / "flow")
    if weights is None:
        estimator = dis_flow()
    else:
        model = build_raft(name)
        model.load_state_dict(load_file(shared / "weights" / f"{weights}.safetensors"), strict=True)
        estimator = raft_flow(model)
    _, to_cur = estimator(prev, cur)
    known = (np.abs(truth) < 1e6).all(axis=0)
    error = np.linalg.norm(to_cur - truth, axis=0)[known].mean()
    assert error < bound


def test_composed_flows_lead_where_the_flows_lead_one_after_the_other() -> None:
    """Scalings towards points inside the frame, which are sampled exactly: s (p - c) + c, one after the other."""
    positions = torch.stack(torch.meshgrid(torch.arange(12.0), torch.arange(20.0), indexing="ij")[::-1])
    scalings = [(0.9, (15.0, 3.0)), (0.7, (4.0, 8.0)), (0.8, (10.0, 2.0))]
    flows, led = [], positions
    for scale, centre in scalings:
        middle = torch.tensor(centre)[:, None, None]
        flows.append((scale - 1) * (positions - middle))
        led = scale * (led - middle) + middle
    torch.testing.assert_close(compose_flows(flows), led - positions, atol=1e-4, rtol=0)
    assert torch.equal(compose_flows(flows[:1]), flows[0])


@pytest.mark.parametrize("size", [(128, 160), (64, 64), (20, 48)])
def test_a_shift_over_a_repeated_pattern_is_found_from_a_start_and_not_without(size) -> None:
    """Stripes of 8 px that move by 21: alone, the search finds the nearest of the shifts that look the same."""
    height, width = size
    columns = np.arange(width + 32)
    stripes = np.where(columns // 4 % 2, 40, 210).astype(np.uint8)
    whole = np.repeat(np.broadcast_to(stripes, (height, width + 32))[..., None], 3, axis=2)
    rows = np.arange(height, dtype=np.uint8)[:, None, None] % 23
    prev, cur = (np.ascontiguousarray(whole[:, start : start + width] + rows) for start in (24, 3))  # moves by 21
    near = np.zeros((2, *size), np.float32)
    near[0] = 19.0
    to_prev, to_cur = refine_flow(prev, cur, (-near, near))
    inside = np.s_[0, :, 8 : width - 24]  # of what both frames show
    assert np.abs(to_cur[inside] - 21).mean() < 1
    assert np.abs(dis_flow()(prev, cur)[1][inside] - 21).mean() > 4
    assert to_prev.shape == to_cur.shape == (2, *size)


def test_flows_of_another_size_are_no_start(unchecked) -> None:
    frame = texture(32, 32)
    with pytest.raises(WaveOpsError, match="flows of shape"):
        refine_flow(frame, frame, (np.zeros((2, 32, 32), np.float32), np.zeros((2, 16, 32), np.float32)))
