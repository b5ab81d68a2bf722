"""NaN and infinity in what networks compute: found where values reach the host anyway, then traced to a module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wave_ops.cuda_graphs import without_graphs
from wave_ops.diffusion import StableDiffusion
from wave_ops.errors import NonFiniteError

__all__ = ["check_finite", "check_finite_weights", "traced"]


def check_finite(values: NDArray[Any], what: str) -> None:
    """Check that values on the host are finite.

    Args:
        values: any shape.
        what: what they are, for the message: "the latents of step 3".

    Raises:
        NonFiniteError: one of them is NaN or infinite.
    """
    if not np.isfinite(values).all():
        bad = values.size - int(np.isfinite(values).sum())
        raise NonFiniteError(f"{what} are not finite: {bad} of {values.size} values are NaN or infinity")


@torch.inference_mode()
def check_finite_weights(network: nn.Module, name: str) -> None:
    """Check that all weights of a network are finite, with one transfer from its device.

    Args:
        network: in its final data type, since values that overflow in half precision are infinite there.
        name: of the network, for the message.

    Raises:
        NonFiniteError: with the first tensor that is not.
    """
    tensors = {key: value for key, value in network.state_dict().items() if value.is_floating_point()}
    if tensors:
        finite = torch.stack([value.isfinite().all() for value in tensors.values()]).tolist()
        bad = next((key for key, good in zip(tensors, finite, strict=True) if not good), "")
        if bad:
            dtype = str(tensors[bad].dtype).removeprefix("torch.")
            raise NonFiniteError(f"the weights {bad} of {name} contain NaN or infinity in {dtype}")


@contextmanager
def traced(model: StableDiffusion) -> Iterator[None]:
    """Stop at the first module of the model's networks that returns NaN or infinity in this context.

    Every module waits for its device: only for a computation that is known to fail.

    Raises:
        NonFiniteError: with the module's name and its data type.
    """
    with ExitStack() as stack:
        stack.enter_context(without_graphs())
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        for name, network in _networks(model).items():
            for path, module in network.named_modules():
                if next(module.children(), None) is None:
                    hook = partial(_check_output, f"{name}.{path}")
                    stack.callback(module.register_forward_hook(hook).remove)
        yield


def _networks(model: StableDiffusion) -> Mapping[str, nn.Module]:
    names = ("text_encoder", "text_encoder_2", "vae", "unet", "controlnet")
    found = {name: getattr(model, name) for name in names}
    return {name: network for name, network in found.items() if network is not None}


def _check_output(name: str, _module: nn.Module, _inputs: object, output: object) -> None:
    if isinstance(output, Tensor) and output.is_floating_point() and not output.isfinite().all():
        dtype = str(output.dtype).removeprefix("torch.")
        raise NonFiniteError(f"the module {name} returns NaN or infinity in {dtype}")
