from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.models.loading import _tokenizer
from tasks.prompt_notes import prompt_notes
from wave_ops.diffusion import unread_words


@pytest.fixture(scope="module")
def model(sd15: Path) -> Any:
    """Return a model of which only the tokenizer is there; it reads few tokens."""
    return SimpleNamespace(tokenizer=_tokenizer(sd15 / "tokenizer"))


def test_the_words_after_the_last_token_that_is_read_are_returned(model: Any) -> None:
    tokens = model.tokenizer("a", truncation=False).input_ids
    room = model.tokenizer.model_max_length - len(tokens) + 1
    whole = " ".join("a" * room)
    assert unread_words(model.tokenizer, whole) == ""
    assert unread_words(model.tokenizer, f"{whole} a") == "a"
    assert unread_words(model.tokenizer, f"{whole} a a a") == "a a a"


def test_a_prompt_that_is_cut_is_noted_with_what_is_not_read(model: Any) -> None:
    length = model.tokenizer.model_max_length - 2
    long = " ".join("a" * 900)
    (note,) = prompt_notes(model, {"prompt": long, "negative prompt": "a"})
    assert note.startswith(f"The prompt is read up to {length} tokens, without 'a a a")
    assert note.endswith("...'.")
    assert len(note) < 300
