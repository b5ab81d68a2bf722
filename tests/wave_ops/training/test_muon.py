"""The optimiser Muon."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wave_ops.training.muon import Muon, is_matrix, orthogonalise


@pytest.mark.parametrize("shape", [(8, 8), (8, 40), (40, 8), (128, 160)])
def test_orthogonalising_sets_singular_values_near_1_and_keeps_the_vectors(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(shape, generator=generator) * 1e-3
    result = orthogonalise(matrix)
    values = torch.linalg.svdvals(result)
    assert result.dtype == matrix.dtype
    # The smallest singular values of a square matrix may be too near 0 to grow to 1 in five steps
    assert 0.5 < float(values.median()) < 1.3
    assert float(values.max()) < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    rotated = left.T @ result @ right.T
    off = rotated - torch.diag(rotated.diagonal())
    assert float(off.abs().max()) < 0.05


def test_a_step_moves_a_matrix_by_the_learning_rate_in_every_direction() -> None:
    weight = nn.Parameter(torch.zeros(8, 8))
    weight.grad = torch.diag(torch.arange(1.0, 9.0))
    Muon([weight], lr=0.1, weight_decay=0.0).step()
    moved = -torch.linalg.eigvalsh(weight.detach())
    assert float(moved.min()) > 0.05
    assert float(moved.max()) < 0.13


def test_a_convolution_keeps_its_shape() -> None:
    weight = nn.Parameter(torch.zeros(8, 4, 3, 3))
    weight.grad = torch.randn(8, 4, 3, 3)
    Muon([weight], lr=0.1).step()
    assert weight.shape == (8, 4, 3, 3)
    assert bool(weight.any())


def test_a_parameter_without_a_gradient_is_not_changed() -> None:
    weight = nn.Parameter(torch.ones(4, 4))
    Muon([weight], lr=0.1).step()
    assert bool((weight == 1).all())


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("down_blocks.0.resnets.0.conv1.weight", (8, 8, 3, 3), True),
        ("mid_block.attentions.0.proj_in.bias", (8,), False),
        ("conv_in.weight", (8, 4, 3, 3), False),
        ("conv_out.weight", (4, 8, 3, 3), False),
        ("text_model.embeddings.token_embedding.weight", (9, 8), False),
    ],
)
def test_muon_trains_only_inner_matrices(name: str, shape: tuple[int, ...], expected: bool) -> None:
    assert is_matrix(name, torch.zeros(shape)) is expected
