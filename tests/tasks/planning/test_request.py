from __future__ import annotations

from typing import Any

import pytest

from tasks.errors import TaskInputError
from tasks.planning.dataset import dataset_request
from tasks.planning.request import edit_request, parse_size


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": ""}, "prompt is missing"),
        ({"prompt": "  "}, "prompt is missing"),
        ({"prompt": None}, "prompt cannot be None"),
        ({"video": ""}, "video is missing"),
        ({"steps": 0}, "steps cannot be 0"),
        ({"steps": 1001}, "steps cannot be 1001"),
        ({"keyframe_interval": 0}, "keyframe interval cannot be 0"),
        ({"seed": -1}, "seed cannot be -1"),
        ({"seed": 2**31}, "seed cannot be"),
        ({"flow": "gmflow"}, "flow cannot be 'gmflow'"),
        ({"guidance_scale": -1}, "guidance scale cannot be -1"),
        ({"injection": 1.5}, "injection cannot be 1.5"),
        ({"size": (0, 64)}, "size cannot be 0"),
        ({"colour": "red"}, "colour cannot be 'red'"),
    ],
)
def test_a_wrong_field_is_refused_with_one_sentence(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(TaskInputError) as caught:
        edit_request(**{"video": "clip.mp4", "prompt": "a star", **fields})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"keyframe_interval": 0}, "(--keyframe-interval)."),
        ({"size": "big"}, "(--size)."),
        ({"prompt": " "}, "(--prompt)."),
        ({"set": ("inversion.window=late",)}, "(--set)."),
        ({"set": ("inversion.seed=3",)}, "--seed (--set)."),
    ],
)
def test_the_error_of_an_option_names_it(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(TaskInputError) as caught:
        edit_request(**{"video": "clip.mp4", "prompt": "a star", **fields})
    assert str(caught.value).endswith(words)


@pytest.mark.parametrize("field", ["video", "source", "output"])
def test_a_url_with_a_password_is_no_request(field: str) -> None:
    url = "s3://key:secret@bucket/a.mp4"
    make: Any = edit_request if field == "video" else dataset_request
    with pytest.raises(TaskInputError, match="contains a password") as caught:
        make(**({"video": url, "prompt": "a star"} if field == "video" else {"source": "set.csv", field: url}))
    assert "secret" not in str(caught.value)


def test_a_wrong_value_is_shown_in_part_where_it_is_long() -> None:
    with pytest.raises(TaskInputError) as caught:
        edit_request(video="clip.mp4", prompt="a star", flow="x" * 10_000)
    assert len(str(caught.value)) < 400


def test_prompts_are_trimmed_and_the_request_is_frozen() -> None:
    request = edit_request(video="clip.mp4", prompt=" a star \n")
    assert request.prompt == "a star"
    with pytest.raises(ValueError, match="frozen"):
        request.prompt = "a circle"


def test_sizes_are_read_as_width_by_height() -> None:
    assert parse_size("512x288") == (288, 512)
    assert parse_size("64X128") == (128, 64)


@pytest.mark.parametrize("text", ["", "512", "512x", "x512", "512x288x3", "-1x8", "5.5x8", "٣x8"])
def test_a_size_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(TaskInputError, match="WxH"):
        parse_size(text)
