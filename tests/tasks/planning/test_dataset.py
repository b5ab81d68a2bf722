from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from flows.cli.options import request_options
from tasks.errors import TaskInputError
from tasks.planning.dataset import DatasetRequest, dataset_request, load_dataset_settings, parse_shard
from tasks.planning.request import EditRequest


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"source": ""}, "source is missing"),
        ({"source": " "}, "source is missing"),
        ({"limit": 0}, "limit cannot be 0"),
        ({"sample": -1}, "sample cannot be -1"),
        ({"attempts": 0}, "attempts cannot be 0"),
        ({"variants": 0}, "variants cannot be 0"),
        ({"shard": "0/4"}, "shard '0/4' is not of the form I/N"),
        ({"shard": "5/4"}, "shard '5/4' is not of the form I/N"),
        ({"shard": "half"}, "shard 'half' is not of the form I/N"),
        ({"only": "done"}, "only cannot be 'done'"),
        ({"layout": "webdataset", "output": "s3://bucket"}, "webdataset needs a local output folder, not s3://bucket"),
        ({"layout": "webdataset", "output": "out", "only": "failed"}, "webdataset needs all rows"),
        ({"layout": "heap"}, "layout cannot be 'heap'"),
        ({"keep": "none"}, "keep cannot be 'none'"),
        ({"max_failures": "many"}, "max failures 'many' are not"),
        ({"max_failures": "101%"}, "max failures '101%' are not"),
        ({"max_failures": -1}, "max failures '-1' are not"),
        ({"where": "steps >"}, "filter has its end at position 8"),
        ({"defaults": {"step": 20}}, "no setting of an edit step: near it is steps"),
        ({"defaults": {"video": "clip.mp4"}}, "no setting of an edit video"),
        ({"defaults": {"prompt": "a star"}}, "no setting of an edit prompt"),
        ({"defaults": {"steps": 0}}, "steps cannot be 0"),
        ({"defaults": {"size": "big"}}, "size 'big' is not of the form WxH"),
        ({"defaults": 3}, "defaults cannot be 3"),
        ({"sauce": "clips"}, "no setting of a data set sauce: near it is source"),
        ({"steps": 20}, "no setting of a data set steps: it belongs in defaults"),
    ],
)
def test_a_wrong_field_is_refused_with_one_sentence(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(TaskInputError, match=words) as caught:
        dataset_request(**{"source": "clips", **fields})
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_an_error_in_a_setting_of_all_rows_names_the_option_of_that_setting_alone() -> None:
    with pytest.raises(TaskInputError) as caught:
        dataset_request(source="clips", defaults={"size": "big"})
    assert str(caught.value) == "The size 'big' is not of the form WxH, for example 512x288 (--size)."


def test_a_source_is_needed() -> None:
    with pytest.raises(TaskInputError, match="The source is missing"):
        dataset_request(prompt="a star")


def test_every_field_has_a_description() -> None:
    assert [name for name, field in DatasetRequest.model_fields.items() if not field.description] == []


def test_defaults_are_validated_like_an_edit_and_only_those_given_are_kept() -> None:
    request = dataset_request(source="clips", defaults={"size": "512x288", "steps": "20"})
    assert request.defaults == {"size": (288, 512), "steps": 20}


def test_a_form_shows_one_field_for_each_setting_of_an_edit() -> None:
    schema = DatasetRequest.model_json_schema()["properties"]["defaults"]
    assert set(schema["properties"]) == set(EditRequest.model_fields) - {"video", "prompt"}
    assert schema["properties"]["steps"]["description"] == "DDIM steps in either direction."
    assert schema["additionalProperties"] is False


def test_a_request_survives_its_json() -> None:
    request = dataset_request(source="clips", where="a = 'b'", shard="1/2", defaults={"size": "512x288"})
    assert DatasetRequest.model_validate_json(request.model_dump_json()) == request


@pytest.mark.parametrize(
    ("given", "allowed"), [(None, None), ("0", 0), (7, 7), ("5%", 10), ("2.5%", 5), ("0.4%", 0), ("100%", 200)]
)
def test_failures_are_limited_by_number_or_percentage_of_the_rows(given: str | int | None, allowed: int | None) -> None:
    assert dataset_request(source="clips", max_failures=given).allowed_failures(200) == allowed


def test_a_shard_is_a_number_from_1_of_several() -> None:
    assert parse_shard("1/1") == (1, 1)
    assert parse_shard("3/12") == (3, 12)


SETTINGS = {"source": "clips", "limit": 3, "shard": "1/4", "max_failures": 5, "defaults": {"steps": 20}}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.toml", 'source = "clips"\nlimit = 3\nshard = "1/4"\nmax_failures = 5\n[defaults]\nsteps = 20\n'),
        ("a.yaml", "source: clips\nlimit: 3\nshard: 1/4\nmax_failures: 5\ndefaults:\n  steps: 20\n"),
        ("a.YML", "{source: clips, limit: 3, shard: 1/4, max_failures: 5, defaults: {steps: 20}}"),
    ],
)
def test_settings_are_read_from_toml_and_yaml_alike(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert load_dataset_settings(tmp_path / name) == SETTINGS
    assert dataset_request(**SETTINGS).max_failures == "5"


def test_an_empty_settings_file_sets_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("# nothing\n")
    assert load_dataset_settings(tmp_path / "a.yaml") == {}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", "{}", "must end with one of .toml, .yaml, .yml"),
        ("gone.toml", None, "There is no settings file"),
        ("a.toml", "source = ", "cannot be read"),
        ("a.toml", b"\xff", "cannot be read"),
        ("a.yaml", "source: [", "cannot be read"),
        ("a.yaml", "- source", "must be a table"),
        ("a.yaml", "sauce: clips", "no setting of a data set sauce: near it is source"),
        ("a.yaml", "3: clips", "no setting of a data set 3"),
        ("a.yaml", "steps: 20", "no setting of a data set steps: it belongs in defaults"),
        ("a.toml", "[defaults]\nstep = 20", "no setting of an edit step: near it is steps"),
        ("a.yaml", "source: !!python/object/apply:os.getcwd []", "cannot be read"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_in_one_sentence(
    name: str, text: str | bytes | None, words: str, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(TaskInputError, match=words) as caught:
        load_dataset_settings(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_every_field_but_the_defaults_can_be_an_option_of_a_command() -> None:
    asked: list[dict[str, Any]] = []
    application = typer.Typer()
    names = [name for name in DatasetRequest.model_fields if name != "defaults"]

    @application.command()
    @request_options(DatasetRequest, only=names)
    def dataset(**fields: Any) -> None:
        asked.append({name: value for name, value in fields.items() if value is not None})

    given: dict[str, Any] = {
        "source": "clips",
        "prompt": "a star",
        "output": "edits",
        "overwrite": True,
        "where": "a = 'b'",
        "limit": 3,
        "sample": 7,
        "shard": "1/4",
        "only": "missing",
        "variants": 2,
        "attempts": 4,
        "max_failures": "5%",
        "layout": "flat",
        "keep": "edits",
    }
    assert list(given) == names
    words = {name: [] if value is True else [str(value)] for name, value in given.items()}
    options = [word for name, value in words.items() for word in (f"--{name.replace('_', '-')}", *value)]
    runner = CliRunner()
    assert runner.invoke(application, options).exit_code == 0
    assert runner.invoke(application, ["--source", "clips"]).exit_code == 0
    assert dataset_request(**asked[0]) == dataset_request(**given)
    assert dataset_request(**asked[1]) == dataset_request(source="clips")


def test_settings_of_the_method_are_given_by_their_names_for_all_rows() -> None:
    defaults = {"steps": 20, "mask.relative": 0.02, "editing.keep": False, "set": "mask.squared=true"}
    request = dataset_request(source="m.csv", defaults=defaults)
    assert request.defaults == {
        "steps": 20,
        "set": ("mask.squared=true", "mask.relative=0.02", "editing.keep=False"),
    }
    with pytest.raises(TaskInputError, match=r"Unknown setting mask\.relativ: did you mean mask\.relative\?"):
        dataset_request(source="m.csv", defaults={"mask.relativ": 1})
