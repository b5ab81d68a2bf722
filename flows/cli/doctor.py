"""`wave doctor`: check everything that an edit needs."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata

import typer

from flows.cli.console import STDERR, STDOUT, WorkspaceOption, app, read_settings
from flows.cli.server import LOCAL_API, find_server
from flows.settings import WaveSettings

__all__ = ["Finding", "examine"]

PACKAGES = ("wave-edit", "torch", "torchvision", "diffusers", "transformers", "prefect", "zarr", "av", "numba")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check."""

    what: str
    text: str
    fine: bool = True
    optional: bool = False
    """Whether the main job is possible without it."""


@app.command()
def doctor(workspace: WorkspaceOption = None) -> None:
    """Check versions, devices, models, flow weights and the workspace."""
    with STDERR.status("Checking"):
        findings = examine(read_settings(workspace=workspace))
    for finding in findings:
        mark = "[green]ok[/]  " if finding.fine else "[yellow]note[/]" if finding.optional else "[red]fail[/]"
        STDOUT.print(f"{mark} {finding.what}: ", end="")
        STDOUT.print(finding.text, markup=False, soft_wrap=True)
    if not all(finding.fine or finding.optional for finding in findings):
        raise typer.Exit(1)


def examine(settings: WaveSettings) -> list[Finding]:
    """Check everything that an edit needs."""
    return [
        Finding(what="python", text=f"{platform.python_version()} on {platform.platform()}"),
        Finding(what="packages", text=", ".join(_versions())),
        _try("devices", _devices, settings),
        _try("H.264 encoder", _encoder, settings),
        _try("embedded model", _model, settings),
        Finding(what="flow dis", text="built in"),
        _try("flow raft", _raft, settings, optional=True),
        _try("workspace", _workspace, settings),
        _try("prefect server", _server, settings),
    ]


def _try(what: str, look: Callable[[WaveSettings], str], settings: WaveSettings, *, optional: bool = False) -> Finding:
    try:
        return Finding(what=what, text=look(settings))
    except ValueError as error:  # the base of every error that the packages raise on purpose
        return Finding(what=what, text=str(error), fine=False, optional=optional)


def _versions() -> Iterator[str]:
    for package in PACKAGES:
        try:
            yield f"{package} {metadata.version(package)}"
        except metadata.PackageNotFoundError:
            yield f"{package} (not installed)"


def _devices(settings: WaveSettings) -> str:
    import torch

    from tasks.models.devices import choose_device, choose_dtype

    device = choose_device(settings.device)
    cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    chosen = f"networks run on {device} in {choose_dtype(settings.dtype, device=device)}"
    return f"{os.cpu_count()} CPU cores, {', '.join(cards) or 'no CUDA device'}; {chosen}"


def _encoder(_: WaveSettings) -> str:
    import av

    if "libx264" not in av.codecs_available:
        raise ValueError("this PyAV has no libx264; install PyAV's own wheel")
    return f"libx264 through PyAV {av.__version__}"


def _model(_: WaveSettings) -> str:
    from tasks.models.checkpoints import resolve_model

    model = resolve_model("embedded")
    side = round(model.native_area**0.5)
    return f"{model.digest[:12]}, {side}x{side}, sizes in multiples of {model.size_multiple}, {model.location}"


def _raft(settings: WaveSettings) -> str:
    from tasks.models.flow_estimators import resolve_flow

    return resolve_flow("raft", weights=settings.flow_weights, fetch=False).location


def _workspace(settings: WaveSettings) -> str:
    from storage.workspace import Workspace

    workspace = Workspace.open(settings.workspace)
    workspace.check_writable()
    return f"{workspace.url} is writable and contains {workspace.usage() / 2**20:.1f} MiB"


def _server(_: WaveSettings) -> str:
    server = find_server()
    return server or f"none set and none at {LOCAL_API}: each run starts one of its own"
