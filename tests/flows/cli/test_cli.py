from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from flows.cli import main
from tasks.planning.plan import EditPlan
from tasks.planning.request import EditRequest
from tasks.record import record_run
from tests._stages import run_stages


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("WAVE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


def run(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["wave", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def plan_of_nothing() -> None:
    """End a command where it would plan."""
    raise KeyboardInterrupt


def text_file(folder: Path) -> Path:
    path = folder / "notes.mp4"
    path.write_text("no video")
    return path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["CLIP"], "prompt is missing"),
        (["CLIP", "--prompt", " "], "prompt is missing"),
        (["nothing.mp4", "--prompt", "x"], "no file nothing.mp4"),
        (["FOLDER", "--prompt", "x"], "is a folder without pictures"),
        (["CLIP", "--prompt", "x", "--rate", "9"], "rate is for pictures"),
        (["TEXT", "--prompt", "x"], "not a video"),
        (["CLIP", "--prompt", "x", "--model", "nothing"], "Unknown model 'nothing'"),
        (["CLIP", "--prompt", "x", "--model", "MODEL", "--size", "100x64"], "multiples of 64"),
        (["CLIP", "--prompt", "x", "--size", "big"], "WxH"),
        (["CLIP", "--prompt", "x", "--steps", "0"], "steps cannot be 0"),
        (["CLIP", "--prompt", "x", "--steps", "many"], "valid integer"),
        (["CLIP", "--prompt", "x", "--keyframe-interval", "0"], "keyframe interval cannot be 0"),
        (["CLIP", "--prompt", "x", "--flow", "gmflow"], "flow cannot be 'gmflow'"),
        (["CLIP", "--prompt", "x", "--model", "MODEL", "--controlnet", "nothing"], "Unknown ControlNet"),
        (
            ["CLIP", "--prompt", "x", "--model", "MODEL", "--flow", "raft", "--flow-weights", "no.safetensors"],
            "weights",
        ),
        (["CLIP", "--prompt", "x", "--start", "9"], "leave none of them"),
        (["CLIP", "--prompt", "x", "--end", "1:2:3:4"], "neither seconds nor H:MM:SS"),
        (["CLIP", "--prompt", "x", "-o", "out.avi"], "must end in .mp4, .m4v, .mov, .mkv, .webm, .gif, .zip, or in /"),
        (["CLIP", "--prompt", "x", "-o", "out.mov", "--format", "mp4"], "a file of mov, but the format mp4 was chosen"),
        (["CLIP", "--prompt", "x", "-o", "FOLDER"], "is a folder: end it with / for a folder of pictures"),
        (["CLIP", "--prompt", "x", "-o", "out.webm", "--codec", "h264"], "webm cannot contain h264"),
        (["CLIP", "--prompt", "x", "-o", "CLIP"], "is the source clip itself"),
        (["CLIP", "--prompt", "x", "--model", "MODEL", "--workspace", "TEXT/below"], "workspace"),
        (["CLIP", "--prompt", "x", "--nonsense"], "--nonsense"),
        ([], "Missing"),
    ],
)
def test_bad_input_gets_one_sentence_and_a_failing_exit(
    arguments: list[str],
    words: str,
    clip: Path,
    sd15: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    places = {"CLIP": clip, "MODEL": sd15, "FOLDER": tmp_path, "TEXT": text_file(tmp_path)}
    for name, path in places.items():
        arguments = [argument.replace(name, str(path)) for argument in arguments]
    assert run("edit", *arguments, monkeypatch=monkeypatch) != 0
    said = capfd.readouterr().err.strip()
    assert words in said
    assert said.startswith("wave: ")
    assert "\n" not in said


def test_an_error_that_begins_with_the_name_of_a_file_leaves_the_name_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.mp4").touch()
    assert run("edit", "empty.mp4", "--prompt", "x", monkeypatch=monkeypatch) == 1
    assert capfd.readouterr().err.startswith("wave: empty.mp4 is not a video")


def test_a_dry_run_prints_the_plan_and_computes_nothing(
    clip: Path, sd15: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flows.cli.edit.run", lambda *_, **__: pytest.fail("a dry run runs nothing"))
    workspace = tmp_path / "workspace"
    options = ("--prompt", "a star", "--model", sd15, "--workspace", workspace, "--dry-run", "--keyframe-interval", 3)
    assert run("edit", clip, *options, monkeypatch=monkeypatch) == 0
    said = capfd.readouterr().out
    for words in (
        "7 frames, 64x48",
        "3 pairs of keyframes",
        "3 keyframes, 64x64, 50 steps",
        "2 intervals",
        str(workspace),
    ):
        assert words in said
    assert not workspace.exists()


_DRY_RUN = """
import sys
from tasks.models import devices
devices._has_driver = lambda: False  # as on a machine without a GPU
from flows.cli import main
try:
    main()
finally:
    slow = {"aiohttp", "cv2", "dask", "diffusers", "distributed", "httpx", "jinja2", "matplotlib", "numba", "prefect"}
    slow |= {"scipy", "sqlalchemy", "torch", "torchvision", "transformers"}
    print("imported:", *sorted(slow & set(sys.modules)))
"""


@pytest.mark.parametrize("subcommand", ["edit", "dataset"])
def test_a_dry_run_imports_no_networks_no_prefect_and_nothing_else_that_takes_long(
    subcommand: str, clip: Path, sd15: Path, tmp_path: Path
) -> None:
    manifest = tmp_path / "set.csv"
    manifest.write_text(f"id,source,prompt\na,{clip},a star\n")
    options = ["--workspace", str(tmp_path / "workspace"), "--dry-run"]
    if subcommand == "edit":
        options += [str(clip), "--prompt", "a star", "--model", str(sd15)]
    else:
        options += [str(manifest), "--set", f"model={sd15}"]
    command = [sys.executable, "-c", _DRY_RUN, subcommand, *options]
    path = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONPATH": path, "WAVE_SOURCE_ROOTS": str(clip.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "encode" in done.stdout
    assert done.stdout.splitlines()[-1].strip() == "imported:"


@pytest.mark.parametrize(
    ("options", "words"), [((), "7 frames, 64x48 "), (("--full-resolution",), "7 frames, 64x48, guided by the source")]
)
def test_a_dry_run_says_whether_the_source_guides_the_edit(
    options: tuple[str, ...],
    words: str,
    clip: Path,
    sd15: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    arguments = ("--prompt", "a star", "--model", sd15, "--workspace", tmp_path / "workspace", "--dry-run", *options)
    assert run("edit", clip, *arguments, monkeypatch=monkeypatch) == 0
    assert words in next(line for line in capfd.readouterr().out.splitlines() if "encode" in line)


def test_what_an_edit_lost_is_printed_and_logged(
    sd15: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def run_without_prefect(planned: EditPlan, *_: object, **__: object) -> None:
        record_run.fn(run_stages(planned))

    monkeypatch.setattr("flows.cli.edit.run", run_without_prefect)
    monkeypatch.setattr("tasks.record.create_markdown_artifact", lambda *_, **__: None)
    monkeypatch.setattr("tasks.record.create_link_artifact", lambda *_, **__: None)
    Image.new("RGBA", (64, 48), (90, 120, 30, 99)).save(tmp_path / "still.png")
    options = ("--prompt", "a star", "--model", sd15, "--workspace", tmp_path / "workspace", "--steps", 1)
    assert run("edit", tmp_path / "still.png", *options, monkeypatch=monkeypatch) == 0
    note = "Transparency is not kept: the colours below it are shown."
    assert f"Note: {note}" in capfd.readouterr().out.splitlines()
    assert f"still.png: {note}" in caplog.messages


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("out.mp4", "mp4"),
        ("out.M4V", "mp4"),
        ("out.mov", "mov"),
        ("out.webm", "webm"),
        ("out.gif", "gif"),
        ("out/", "png"),
        ("out.zip", "png"),
    ],
)
def test_the_outputs_ending_chooses_the_format(
    output: str, expected: str, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[EditRequest] = []
    monkeypatch.setattr("flows.cli.edit.plan", lambda request, _: asked.append(request) or plan_of_nothing())
    run("edit", clip, "--prompt", "a star", "-o", output, monkeypatch=monkeypatch)
    assert [request.format for request in asked] == [expected]


def test_the_commands_defaults_are_the_requests(
    clip: Path, sd15: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[EditRequest] = []
    monkeypatch.setattr("flows.cli.edit.plan", lambda request, _: asked.append(request) or plan_of_nothing())
    run("edit", clip, "--prompt", "a star", monkeypatch=monkeypatch)
    assert asked == [EditRequest(video=str(clip), prompt="a star")]


def test_every_field_of_the_request_is_an_option(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "prompt": "a star",
        "source_prompt": "a ring",
        "negative_prompt": "grey",
        "model": "embedded",
        "vae": "some/vae",
        "flow": "raft",
        "keyframe_interval": 4,
        "steps": 7,
        "seed": 3,
        "size": "128x64",
        "guidance_scale": 2.5,
        "injection": 0.25,
        "preset": "paper",
        "hdr": "refuse",
        "interlaced": "keep",
        "rate": "12",
        "start": 0.5,
        "end": 2.5,
        "frames": "1:9",
        "format": "mkv",
        "codec": "hevc",
        "pixel_format": "yuv444p",
        "crf": 30,
        "gop": 12,
    }
    assert set(given) | {"video", "full_resolution", "like_source", "set", "lora", "controlnet", "control"} == set(
        EditRequest.model_fields
    )
    asked: list[EditRequest] = []
    monkeypatch.setattr("flows.cli.edit.plan", lambda request, _: asked.append(request) or plan_of_nothing())
    monkeypatch.setattr("tasks.planning.input_video.check_video", lambda *_, **__: None)  # a video has no --rate
    options = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value)]
    run("edit", clip, *options, "--full-resolution", monkeypatch=monkeypatch)
    assert asked == [EditRequest(video=str(clip), full_resolution=True, **{**given, "size": (64, 128)})]


@pytest.mark.parametrize(
    ("error", "words", "code"),
    [
        (KeyboardInterrupt(), "Interrupted. The same command resumes from here.", 130),
        (ZeroDivisionError("one\ntwo"), "Unexpected ZeroDivisionError: one (--verbose", 1),
    ],
)
def test_interrupts_and_accidents_end_without_a_traceback(
    error: BaseException,
    words: str,
    code: int,
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("flows.cli.edit.read_settings", fail)
    assert run("edit", clip, "--prompt", "x", monkeypatch=monkeypatch) == code
    said = capfd.readouterr().err.strip()
    assert words in said
    assert "\n" not in said


def test_only_commands_that_resume_say_so(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.cli.doctor.find_server", fail)
    assert run("doctor", monkeypatch=monkeypatch) == 130
    assert capfd.readouterr().err.strip().endswith("Interrupted.")


def test_the_version_and_the_doctor_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("--version", monkeypatch=monkeypatch) == 0
    monkeypatch.setattr("flows.cli.doctor.find_server", lambda: "http://somewhere/api")
    run("doctor", "--workspace", tmp_path / "workspace", monkeypatch=monkeypatch)
    said = capfd.readouterr().out
    for words in ("wave ", "torch ", "CPU cores", "libx264", "is writable", "http://somewhere/api"):
        assert words in said
