"""Vocabulary of the embedded model's tokenizer: byte pairs as CLIP's, with merges that make each word one token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

from wave_ops.scenes.vocabulary import COLOURS, SHAPES, TEXTURES

__all__ = ["WORDS", "byte_pair_vocabulary", "byte_symbols"]

_WORD_END: Final = "</w>"
_OTHER_WORDS: Final = (
    "a an the and over on with of in at is to background photo picture video image clip drawing shape object "
    "moving turning large small bright dark black grey pink brown two one "
    "ugly blurry low res unrealistic unaesthetic quality bad distorted"
)
WORDS: Final[tuple[str, ...]] = (*COLOURS, *SHAPES, *TEXTURES, *_OTHER_WORDS.split())


def byte_symbols() -> tuple[str, ...]:
    """Return the printable character for each byte 0 to 255 in byte-level pair encoding (GPT-2's table)."""
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)}
    others = (code for code in range(256) if code not in printable)
    substitutes = {code: 256 + index for index, code in enumerate(others)}
    return tuple(chr(substitutes.get(code, code)) for code in range(256))


def byte_pair_vocabulary(words: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Build the vocabulary of a byte-pair tokenizer that encodes every given word as one token.

    Args:
        words: in the order of their merges.

    Returns:
        Token ids (all bytes, all bytes that end a word, the merged pieces, CLIP's two special tokens), and merges by
        rank. Each word is encoded with the merges so far, and merges of its remaining pieces are appended; so a later
        word never changes how an earlier one is encoded.
    """
    singles = byte_symbols()
    tokens = [*singles, *(symbol + _WORD_END for symbol in singles)]
    merges: dict[tuple[str, str], int] = {}
    for word in words:
        letters = [*word[:-1], word[-1] + _WORD_END]
        while len(pieces := _merged(letters, merges)) > 1:
            merges[pieces[0], pieces[1]] = len(merges)
    tokens += dict.fromkeys(left + right for left, right in merges)
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: index for index, token in enumerate(tokens)}, list(merges)


def _merged(pieces: list[str], ranks: Mapping[tuple[str, str], int]) -> list[str]:
    """Apply every merge that fits, the lowest rank first, and return the pieces that remain."""
    while ranked := [(ranks[pair], at) for at, pair in enumerate(pairwise(pieces)) if pair in ranks]:
        _, at = min(ranked)
        pieces = [*pieces[:at], pieces[at] + pieces[at + 1], *pieces[at + 2 :]]
    return pieces
