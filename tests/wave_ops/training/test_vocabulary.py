"""The vocabulary of the tokenizer."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from wave_ops.scenes.specs import random_scene
from wave_ops.training.vocabulary import WORDS, byte_pair_vocabulary, byte_symbols

words = st.lists(st.text("abc", min_size=1, max_size=6), max_size=12)


def encode(word: str, merges: list[tuple[str, str]]) -> list[str]:
    """Encode by the definition of byte-pair encoding: for each merge in turn, join every such pair."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    for merge in merges:
        while merge in list(pairwise(pieces)):
            at = list(pairwise(pieces)).index(merge)
            pieces[at : at + 2] = ["".join(merge)]
    return pieces


@given(words=words)
def test_every_given_word_becomes_one_token(words: list[str]) -> None:
    vocabulary, merges = byte_pair_vocabulary(words)
    for word in words:
        assert encode(word, merges) == [word + "</w>"]
        assert word + "</w>" in vocabulary


@given(words=words)
def test_ids_count_up_from_zero_and_end_with_the_special_tokens(words: list[str]) -> None:
    vocabulary, _ = byte_pair_vocabulary(words)
    assert list(vocabulary.values()) == list(range(len(vocabulary)))
    assert list(vocabulary)[-2:] == ["<|startoftext|>", "<|endoftext|>"]


def test_every_byte_has_its_own_printable_symbol() -> None:
    symbols = byte_symbols()
    assert len(set(symbols)) == 256
    assert all(symbol.isprintable() and not symbol.isspace() for symbol in symbols)
    assert symbols[ord("a")] == "a"


def test_every_word_of_a_caption_is_in_the_vocabulary() -> None:
    for seed in range(200):
        assert set(random_scene(seed, objects=1 + seed % 2).caption.split()) <= set(WORDS)
