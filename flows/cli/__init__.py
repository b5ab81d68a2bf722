"""The `wave` command."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from flows.settings import WaveSettings
    from tasks.planning.plan import EditPlan
    from tasks.planning.request import EditRequest

__all__ = ["app", "main"]

app = typer.Typer(
    help="Edit videos by text.", add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False
)
_INTERRUPTED = 130
_PACKAGES = ("storage", "tasks", "wave_ops")
_MISUSE: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")
_UNFOLDED = 240
"""Columns of what is no terminal: a file has no width that rows would have to be folded to."""
_STDOUT = Console(highlight=False, width=None if sys.stdout.isatty() else _UNFOLDED)
_STDERR = Console(stderr=True, highlight=False)

Workspace = Annotated[
    str | None, typer.Option(metavar="URL", help="Where results are kept: a folder or an fsspec URL (WAVE_WORKSPACE).")
]
Tracebacks = Annotated[bool, typer.Option("--verbose", help="Show tracebacks.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show Prefect's log, and tracebacks.")]


def main() -> None:
    """Run the command; what goes wrong is told in one sentence."""
    try:
        code = app(standalone_mode=False) or 0
        if code == _INTERRUPTED:  # as newer typers report it
            raise KeyboardInterrupt
    except _MISUSE as error:
        code = _complain(error.format_message(), code=error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = _complain("Interrupted. The same command goes on from here.", code=_INTERRUPTED)
    except Exception as error:  # noqa: BLE001  (the outermost border: a person wants a sentence)
        code = _complain(error)
    sys.exit(code)


@app.command()
def edit(
    video: Annotated[str, typer.Argument(metavar="IN.mp4", help="The source clip: a file or an fsspec URL.")],
    prompt: Annotated[str, typer.Option(help="What the edited clip shows.")] = "",
    source_prompt: Annotated[str, typer.Option(help="What the source clip shows.")] = "",
    negative_prompt: Annotated[str | None, typer.Option(help="What the edited clip must not look like.")] = None,
    model: Annotated[str, typer.Option(help="'embedded', a folder in the diffusers layout, or a hub id.")] = "embedded",
    controlnet: Annotated[str, typer.Option(help="'none', 'auto' (the model's own), a folder, or a hub id.")] = "none",
    flow: Annotated[str, typer.Option(help="Optical flow: dis or raft.")] = "dis",
    keyframe_interval: Annotated[int, typer.Option(help="Frames from one keyframe to the next.")] = 8,
    steps: Annotated[int, typer.Option(help="DDIM steps.")] = 50,
    seed: Annotated[int, typer.Option(help="Seed of the shuffles and the patch search.")] = 0,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Working size; by default the model's own.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="By default the model's advice, else 12.5.")] = None,
    injection: Annotated[float | None, typer.Option(help="Part of the steps that inject source features.")] = None,
    full_resolution: Annotated[
        bool, typer.Option("--full-resolution", help="Let the source's own detail guide the edit to the source's size.")
    ] = False,
    flow_weights: Annotated[str | None, typer.Option(help="RAFT's safetensors file (WAVE_FLOW_WEIGHTS).")] = None,
    workspace: Workspace = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="OUT.mp4", help="Copy the result here.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and what of it is there already.")] = False,
    verbose: Verbose = False,
) -> None:
    """Edit a clip by text."""
    from flows.cli.output import check_output, deliver
    from tasks.planning.input_video import check_video
    from tasks.planning.request import edit_request, parse_size

    request = edit_request(
        video=video,
        prompt=prompt,
        source_prompt=source_prompt,
        negative_prompt=negative_prompt,
        model=model,
        controlnet=controlnet,
        flow=flow,
        keyframe_interval=keyframe_interval,
        steps=steps,
        seed=seed,
        size=None if size is None else parse_size(size),
        guidance_scale=guidance_scale,
        injection=injection,
        full_resolution=full_resolution,
    )
    check_video(request.video)
    check_output(output, video=request.video)
    settings = _settings(workspace=workspace, flow_weights=flow_weights)
    plan = _plan(request, settings)
    if dry_run:
        from flows.cli.progress import plan_table

        _STDOUT.print(plan_table(plan))
        _say(f"The workspace is {plan.execution.workspace}")
        return
    _run_edit(plan, request, settings, verbose=verbose)
    _say(f"The edited clip is {deliver(plan, output)}")


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="The folder to fill.")] = Path("demo"),
    workspace: Workspace = None,
    verbose: Verbose = False,
) -> None:
    """Draw a scene and edit it with the embedded model."""
    from flows.cli.demo import collect_demo, demo_request, draw_demo

    settings = _settings(workspace=workspace or str(output / "workspace"))
    with _STDERR.status("Drawing a scene"):
        request = demo_request(draw_demo(output))
    _STDERR.print(f"Source: {request.source_prompt}\nPrompt: {request.prompt}")
    plan = _plan(request, settings)
    _run_edit(plan, request, settings, verbose=verbose)
    _say(f"The demo is in {collect_demo(plan, output)}")


@app.command()
def doctor(workspace: Workspace = None) -> None:
    """Check versions, devices, models, flow weights and the workspace."""
    from flows.cli.doctor import examine

    with _STDERR.status("Looking around"):
        findings = examine(_settings(workspace=workspace))
    for finding in findings:
        mark = "[green]ok[/]  " if finding.fine else "[yellow]note[/]" if finding.optional else "[red]fail[/]"
        _STDOUT.print(f"{mark} {finding.what}: ", end="")
        _STDOUT.print(finding.text, markup=False, soft_wrap=True)
    if not all(finding.fine or finding.optional for finding in findings):
        raise typer.Exit(1)


@app.command()
def train_embedded(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="The model's folder.")] = Path(
        "embedded-model"
    ),
    work: Annotated[Path, typer.Option(metavar="DIR", help="Frames, latents, checkpoints; resumed from.")] = Path(
        "embedded-work"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything that is drawn.")] = 0,
    minutes: Annotated[float | None, typer.Option(help="Time for all of it; by default until it is done.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each operation.")] = 1,
    verbose: Verbose = False,
) -> None:
    """Train the small model that is shipped, from nothing."""
    _connect(verbose=verbose)
    from flows.train_embedded import TrainSettings, train_embedded

    folder = train_embedded(
        TrainSettings(output=str(output), work_folder=str(work), seed=seed, minutes=minutes, threads=threads)
    )
    _say(f"The model is in {folder}")


@app.command()
def evaluate(
    comparison: Annotated[
        str | None, typer.Argument(help="What to compare; without it the comparisons are listed.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The few methods and clips that matter most.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per figure and nothing else.")] = False,
    method: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only these methods; may be repeated, * stands for any.")
    ] = None,
    manifest: Annotated[str | None, typer.Option(metavar="FILE", help="Real clips: a .csv, .json or .parquet.")] = None,
    clips: Annotated[int | None, typer.Option(metavar="N", help="How many clips.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the scenes and the methods.")] = 0,
    model: Annotated[str, typer.Option(help="'embedded', a folder in the diffusers layout, or a hub id.")] = "embedded",
    controlnet: Annotated[str, typer.Option(help="'none', 'auto' (the model's own), a folder, or a hub id.")] = "auto",
    flow: Annotated[str, typer.Option(help="Optical flow: dis or raft.")] = "dis",
    flow_weights: Annotated[str | None, typer.Option(help="RAFT's safetensors file (WAVE_FLOW_WEIGHTS).")] = None,
    lpips: Annotated[str | None, typer.Option(metavar="FILE", help="LPIPS weights; else LPIPS is left out.")] = None,
    clip: Annotated[str | None, typer.Option(metavar="SPEC", help="CLIP's folder or hub id; else left out.")] = None,
    workspace: Workspace = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="DIR", help="For tables and report.")] = None,
    verbose: Verbose = False,
) -> None:
    """Compare methods on the same clips: a table, a report with films, and figures for machines."""
    from tasks.evaluation.request import evaluation_request

    if comparison is None:
        from flows.cli.evaluate import list_comparisons

        list_comparisons(_STDOUT)
        return
    request = evaluation_request(
        comparison=comparison,
        quick=quick,
        method=tuple(method or ()),
        manifest=manifest,
        clips=clips,
        seed=seed,
        model=model,
        controlnet=controlnet,
        flow=flow,
        lpips=lpips,
        clip=clip,
    )
    settings = _settings(workspace=workspace, flow_weights=flow_weights)
    folder = output or Path("evaluation", comparison)
    _connect(verbose=verbose)
    from flows.cli.evaluate import run_evaluation

    run_evaluation(request, settings, folder=folder, as_json=as_json, consoles=(_STDOUT, _STDERR))


@app.command()
def bench(
    name: Annotated[str, typer.Argument(metavar="BENCH", help="What to measure: propagation.")],
    reference: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Pairs that EbSynth was run on; else pairs are drawn.")
    ] = None,
    clip: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A video to measure as well; may be repeated.")
    ] = None,
    sheets: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Leave contact sheets of the clips, or of a drawn scene, here.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes, to see that it runs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per figure and nothing else.")] = False,
    verbose: Tracebacks = False,
) -> None:
    """Measure speed, memory and exactness against what is asked of them."""
    with _STDERR.status("Loading"):
        from flows.cli.bench import run_bench
        from tasks.evaluation.bench.figures import BenchRequest

    request = BenchRequest(reference=reference, quick=quick, clips=tuple(clip or ()), sheets=sheets)
    run_bench(name, request, as_json=as_json, consoles=(_STDOUT, _STDERR))


@app.callback(invoke_without_command=True)
def wave(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Edit videos by text."""
    if version:
        _say(f"wave {_version()}")
        raise typer.Exit


def _version() -> str:
    try:
        return metadata.version("wave-edit")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _settings(**overrides: str | None) -> WaveSettings:
    from flows.settings import load_settings

    return load_settings(**{name: value for name, value in overrides.items() if value is not None})


def _plan(request: EditRequest, settings: WaveSettings) -> EditPlan:
    with _STDERR.status("Planning"):
        from flows.planning import plan_edit_request

        return plan_edit_request(request, settings)


def _run_edit(plan: EditPlan, request: EditRequest, settings: WaveSettings, *, verbose: bool) -> None:
    """Run the flow, with a bar per stage."""
    _connect(verbose=verbose)
    from flows.cli.progress import stage_bars
    from flows.edit_video import edit_video

    with stage_bars(plan, console=_STDERR):
        edit_video(request, settings)


def _connect(*, verbose: bool) -> None:
    """Find Prefect's server; before anything else imports Prefect."""
    from flows.cli.server import connect_server

    with _STDERR.status("Looking for a Prefect server"):
        server = connect_server(verbose=verbose)
    _STDERR.print(f"Prefect: {server or 'a server of its own, which takes up to a minute to start'}")


def _is_ours(error: Exception) -> bool:
    """Tell errors raised on purpose by their base's module: importing it would cost every command seconds."""
    return any(base.__module__ in {f"{name}.errors" for name in _PACKAGES} for base in type(error).__mro__)


def _say(text: str) -> None:
    _STDOUT.print(text, markup=False, soft_wrap=True)


def _complain(error: Exception | str, *, code: int = 1) -> int:
    """Print one sentence; the whole story only for who asked for it."""
    if isinstance(error, Exception) and "--verbose" in sys.argv:
        _STDERR.print_exception()
    lines = str(error).strip().splitlines() or [""]
    text = lines[0][:1].upper() + lines[0][1:]
    if isinstance(error, Exception) and not _is_ours(error):
        text = f"Unexpected {type(error).__name__}: {lines[0]} (--verbose shows where)"
    _STDERR.print(f"wave: {text}", style="red", markup=False, soft_wrap=True)
    return code


if __name__ == "__main__":
    main()
