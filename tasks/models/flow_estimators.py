"""Optical flow estimators: DIS, which needs no weights, and RAFT, from a local file or torchvision's hub."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from storage.digest import digest_file
from tasks.errors import TaskInputError

if TYPE_CHECKING:
    from wave_ops.flow import FlowEstimator, RaftSize

__all__ = ["FlowIdentity", "load_flow", "resolve_flow"]

_CACHED_NAME = "raft_large.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowIdentity:
    """A flow estimator and the file of its weights."""

    name: Literal["dis", "raft"]
    location: str = ""
    """Safetensors file of the weights; empty for an estimator without weights."""
    digest: str = ""
    """Digest of that file; empty without one."""


def resolve_flow(name: Literal["dis", "raft"], *, weights: str = "", fetch: bool = True) -> FlowIdentity:
    """Find a flow estimator, and its weights if it needs any.

    Args:
        name: dis or raft.
        weights: for raft, a safetensors file of torchvision's state dict, or a folder that contains one
            (raft_large first); empty for torchvision's own, downloaded once.
        fetch: whether the weights may be downloaded.

    Raises:
        TaskInputError: if the weights are missing and cannot be downloaded.
    """
    if name == "dis":
        return FlowIdentity(name=name)
    path = _local_weights(Path(weights).expanduser()) if weights else _hub_weights(fetch=fetch)
    return FlowIdentity(name=name, location=str(path), digest=digest_file(path))


def load_flow(identity: FlowIdentity, *, device: str) -> FlowEstimator:
    """Load an estimator that `resolve_flow` found.

    Args:
        identity: the estimator.
        device: auto, cpu or cuda; DIS runs on the CPU in any case.

    Raises:
        TaskInputError: if the file does not contain RAFT's weights, or RAFT is to run on CUDA and there is none here.
    """
    from wave_ops.flow import build_raft, dis_flow, raft_flow  # noqa: PLC0415  (plans are made without torch)

    if identity.name == "dis":
        return dis_flow()
    from safetensors import SafetensorError  # noqa: PLC0415
    from safetensors.torch import load_file  # noqa: PLC0415

    from tasks.models.devices import choose_device  # noqa: PLC0415

    device = choose_device(device)
    try:
        state = load_file(identity.location)
        model = build_raft(_raft_size(len(state)))
        model.load_state_dict(state)
    except (OSError, SafetensorError, RuntimeError):
        raise TaskInputError(f"{identity.location} does not contain the weights of torchvision's RAFT.") from None
    return raft_flow(model.to(device).eval(), device=device)


def _raft_size(tensors: int) -> RaftSize:
    """Return which of the two networks has so many tensors: batch normalisation gives the large one far more."""
    return "large" if tensors > 140 else "small"


def _local_weights(path: Path) -> Path:
    if path.is_dir():
        found = sorted(path.glob("raft*.safetensors"), key=lambda file: ("large" not in file.name, file.name))
        if not found:
            raise TaskInputError(f"The folder {path} contains no raft*.safetensors; RAFT needs its weights.")
        return found[0].resolve()
    if not path.is_file():
        raise TaskInputError(f"There are no flow weights at {path}: set WAVE_FLOW_WEIGHTS, or use --flow dis.")
    if path.suffix != ".safetensors":
        raise TaskInputError(f"The flow weights {path} are not a safetensors file; wave loads nothing else.")
    return path.resolve()


def _hub_weights(*, fetch: bool) -> Path:
    """Return torchvision's RAFT as a safetensors file, downloaded on first use."""
    import torch  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415
    from torchvision.models.optical_flow import Raft_Large_Weights  # noqa: PLC0415

    path = Path(torch.hub.get_dir()) / "checkpoints" / _CACHED_NAME
    if path.is_file():
        return path
    if not fetch:
        raise TaskInputError("no weights here; they are downloaded on first use, or set WAVE_FLOW_WEIGHTS")
    try:
        state = Raft_Large_Weights.DEFAULT.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except OSError:
        raise TaskInputError(
            "RAFT's weights are not here and torchvision's hub cannot be reached: "
            "name a safetensors file with WAVE_FLOW_WEIGHTS, or use --flow dis."
        ) from None
    partial = path.with_suffix(f".{os.getpid()}.part")
    save_file(state, partial)
    partial.replace(path)
    return path
