"""Perceptual distance of images, between features of a trained network (LPIPS)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import alexnet

from wave_ops.errors import WaveOpsError
from wave_ops.metrics._arrays import check_same_shape

__all__ = ["Lpips"]

# Mean and standard deviation of AlexNet's training images, for images in [-1, 1]
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_CHANNELS = (64, 192, 384, 256, 256)
_SLICES = {0: 1, 3: 2, 6: 3, 8: 4, 10: 5}
_LAST_ACTIVATION = 12
# Of a smaller image two poolings after a stride of 4 leave nothing
_SMALLEST = 31
_EPSILON = 1e-10


class Lpips(nn.Module):
    """LPIPS with AlexNet, version 0.1, built by `from_state_dict`.

    Source: Zhang, Isola, Efros, Shechtman, Wang, "The Unreasonable Effectiveness of Deep Features as a Perceptual
    Metric" (CVPR 2018): activations after the five ReLUs, each pixel's channels scaled to unit length, squared
    differences weighted per channel, averaged over pixels, summed over layers.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        with torch.device("meta"):  # the weights come from the state dict
            self.features = alexnet(weights=None).features[:_LAST_ACTIVATION]
            self.heads = nn.ModuleList(nn.Conv2d(count, 1, kernel_size=1, bias=False) for count in _CHANNELS)
        for name, values in (("shift", _SHIFT), ("scale", _SCALE)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    @staticmethod
    def from_state_dict(state: Mapping[str, Tensor]) -> Lpips:
        """Build the metric in float32, on the device of its weights, without gradients of the weights.

        Args:
            state: AlexNet's convolutions in torchvision's names ("features.0.weight") or in those of the package
                lpips ("net.slice1.0.weight"), and the weights per channel in the latter's ("lin0.model.1.weight").
                Further keys are ignored.

        Raises:
            WaveOpsError: a key is missing, or its tensor has another shape.
        """
        module = Lpips()
        wanted = {name: tensor.shape for name, tensor in module.state_dict().items()}
        found = {name: _find(state, name, shape=shape).detach().float() for name, shape in wanted.items()}
        module.load_state_dict(found, assign=True)
        return module.to(found["features.0.weight"].device).eval().requires_grad_(False)

    def forward(
        self, a: Float[Tensor, "batch 3 height width"], b: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch"]:
        """Return one distance per image; lower is nearer.

        Range [0, inf), 0 where equal; a little over 1 against an image of noise.

        Args:
            a: images in [0, 1], each side at least 31 pixels, below which no features are left. The caller must
                enlarge smaller images; the metric was fitted to patches of 64 px.
            b: images to compare with.

        Raises:
            WaveOpsError: the shapes differ, or the images are too small.
        """
        check_same_shape(a, b)
        if min(a.shape[2:]) < _SMALLEST:
            raise WaveOpsError(
                f"LPIPS needs images of at least {_SMALLEST} x {_SMALLEST} pixels, got {(*a.shape[2:],)}"
            )
        distance = torch.zeros(len(a), dtype=self.shift.dtype, device=self.shift.device)
        for head, features_a, features_b in zip(self.heads, self._activations(a), self._activations(b), strict=True):
            difference = (_unit(features_a) - _unit(features_b)).square()
            distance = distance + head(difference).mean(dim=(1, 2, 3))
        return distance

    def _activations(self, images: Tensor) -> Iterator[Tensor]:
        """Yield the features after each ReLU, so that only one layer's are in memory."""
        x = (2 * images.to(self.shift.dtype) - 1 - self.shift) / self.scale
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                yield x


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + _EPSILON)


def _find(state: Mapping[str, Tensor], name: str, *, shape: torch.Size) -> Tensor:
    """Return the tensor of a weight, under any of its names."""
    names = _aliases(name)
    found = next((state[key] for key in names if key in state), None)
    if found is None:
        raise WaveOpsError(f"the weights of LPIPS (AlexNet) lack {' or '.join(names)}")
    if found.shape != shape:
        raise WaveOpsError(f"expected {names[0]} of LPIPS (AlexNet) to be {(*shape,)}, got {(*found.shape,)}")
    return found


def _aliases(name: str) -> tuple[str, ...]:
    part, index, kind = name.split(".")
    if part == "features":
        return name, f"net.slice{_SLICES[int(index)]}.{index}.{kind}"
    # index 0 if the package was built without dropout
    return f"lin{index}.model.1.{kind}", f"lin{index}.model.0.{kind}"
