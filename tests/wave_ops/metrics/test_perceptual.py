from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from tests._perception import lpips_weights
from wave_ops.errors import WaveOpsError
from wave_ops.metrics import Lpips

Weights = dict[str, Tensor]
SLICES = {"0": 1, "3": 2, "6": 3, "8": 4, "10": 5}


@pytest.fixture(scope="module")
def weights() -> Weights:
    return lpips_weights()


def images(count: int, *, seed: int = 0, size: tuple[int, int] = (40, 33)) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def plain_lpips(a: Tensor, b: Tensor, weights: Weights) -> Tensor:
    """Compute the formula of the paper, term by term, in float64."""
    shift, scale = (torch.tensor(v).double().view(3, 1, 1) for v in ([-0.03, -0.088, -0.188], [0.458, 0.448, 0.45]))
    w = {key: value.double() for key, value in weights.items()}
    x, y = (((2 * image.double() - 1) - shift) / scale for image in (a, b))
    total = torch.zeros(len(a)).double()
    for head, (index, stride, padding) in enumerate([(0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)]):
        if head in (1, 2):
            x, y = F.max_pool2d(x, 3, 2), F.max_pool2d(y, 3, 2)
        kernel, bias = w[f"features.{index}.weight"], w[f"features.{index}.bias"]
        x, y = (F.relu(F.conv2d(features, kernel, bias, stride=stride, padding=padding)) for features in (x, y))
        apart = (F.normalize(x, dim=1) - F.normalize(y, dim=1)) ** 2
        total += (apart * w[f"lin{head}.model.1.weight"]).sum(dim=1).mean(dim=(1, 2))
    return total


def as_package(weights: Weights) -> Weights:
    """Rename weights as in the package lpips: features in slices, heads twice, its own constants."""
    renamed = {"scaling_layer.shift": torch.zeros(1, 3, 1, 1)}
    for name, tensor in weights.items():
        part, index, kind = name.split(".", 2)
        renamed[f"net.slice{SLICES[index]}.{index}.{kind}" if part == "features" else name] = tensor
        if part.startswith("lin"):
            renamed[f"lins.{part[3]}.{index}.{kind}"] = tensor
    return renamed


def without_dropout(weights: Weights) -> Weights:
    return {name.replace("model.1", "model.0"): tensor for name, tensor in weights.items()}


def with_classifier(weights: Weights) -> Weights:
    return weights | {"classifier.6.weight": torch.zeros(2, 2)}


def test_the_distance_equals_the_formula(weights: Weights) -> None:
    a, b = images(3), images(3, seed=1)
    torch.testing.assert_close(
        Lpips.from_state_dict(weights)(a, b).double(), plain_lpips(a, b, weights), rtol=1e-5, atol=0
    )


def test_equal_images_are_at_distance_zero_and_the_order_does_not_matter(weights: Weights) -> None:
    lpips, a, b = Lpips.from_state_dict(weights), images(2), images(2, seed=1)
    assert lpips(a, a).tolist() == [0, 0]
    assert torch.equal(lpips(a, b), lpips(b, a))


def test_pixels_without_any_activation_do_not_make_the_distance_nan(weights: Weights) -> None:
    blind = {name: tensor - 1e3 if name.endswith("bias") else tensor for name, tensor in weights.items()}
    assert Lpips.from_state_dict(blind)(images(1), images(1, seed=1)).item() == 0


@pytest.mark.parametrize("layout", [as_package, without_dropout, with_classifier])
def test_weights_are_loaded_by_the_names_of_torchvision_and_of_lpips(
    weights: Weights, layout: Callable[[Weights], Weights]
) -> None:
    a, b = images(1), images(1, seed=1)
    assert torch.equal(Lpips.from_state_dict(layout(weights))(a, b), Lpips.from_state_dict(weights)(a, b))


def test_the_distance_of_half_precision_weights_and_images_is_float32(weights: Weights) -> None:
    a, b = images(1), images(1, seed=1)
    half = Lpips.from_state_dict({name: tensor.half() for name, tensor in weights.items()})
    distance = half(a.half(), b.half())
    assert distance.dtype == torch.float32
    torch.testing.assert_close(distance, Lpips.from_state_dict(weights)(a, b), rtol=1e-2, atol=0)


def test_images_get_gradients_and_weights_do_not(weights: Weights) -> None:
    lpips, a = Lpips.from_state_dict(weights), images(1).requires_grad_()
    assert not any(parameter.requires_grad for parameter in lpips.parameters())
    lpips(a, images(1, seed=1)).sum().backward()
    assert a.grad is not None
    assert a.grad.abs().sum() > 0


def test_a_missing_weight_is_named(weights: Weights) -> None:
    rest = {name: tensor for name, tensor in weights.items() if name != "features.6.bias"}
    with pytest.raises(WaveOpsError, match=r"lack features\.6\.bias or net\.slice3\.6\.bias"):
        Lpips.from_state_dict(rest)


def test_a_weight_of_another_network_is_refused(weights: Weights) -> None:
    with pytest.raises(WaveOpsError, match=r"lin1\.model\.1\.weight .* \(1, 192, 1, 1\), got \(1, 128, 1, 1\)"):
        Lpips.from_state_dict(weights | {"lin1.model.1.weight": torch.zeros(1, 128, 1, 1)})


def test_images_need_31_pixels_along_each_side(weights: Weights) -> None:
    lpips = Lpips.from_state_dict(weights)
    assert lpips(images(1, size=(31, 31)), images(1, seed=1, size=(31, 31))).item() > 0
    with pytest.raises(WaveOpsError, match="at least 31 x 31 pixels"):
        lpips(images(1, size=(64, 30)), images(1, seed=1, size=(64, 30)))


@pytest.mark.usefixtures("unchecked")
def test_images_of_different_shapes_are_refused(weights: Weights) -> None:
    with pytest.raises(WaveOpsError, match="one shape"):
        Lpips.from_state_dict(weights)(images(1), images(2))


def test_the_trained_metric_grows_with_noise_and_is_small_for_a_shift(shared: Path) -> None:
    lpips = Lpips.from_state_dict(load_file(shared / "weights" / "lpips_alex.safetensors"))
    scene = F.interpolate(images(1, size=(9, 9)), size=(96, 96), mode="bicubic").clamp(0, 1)
    noise = torch.randn(scene.shape, generator=torch.Generator().manual_seed(1))
    distances = [lpips(scene, (scene + strength * noise).clamp(0, 1)).item() for strength in (0, 0.02, 0.1, 0.4)]
    assert distances[0] == 0
    assert distances == sorted(distances)
    assert 0.3 < distances[-1] < 1.5
    assert lpips(scene, scene.roll(1, dims=3)).item() < distances[1]
