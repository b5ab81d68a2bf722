"""Words for scenes, the RGB values of their colours, and captions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal, get_args

__all__ = [
    "COLOURS",
    "HELD_OUT_PAIRS",
    "PALETTE",
    "SHAPES",
    "TEXTURES",
    "Colour",
    "Shape",
    "Texture",
    "caption_of",
    "names_held_out_pair",
    "with_article",
    "without_plain",
]

Shape = Literal["circle", "square", "triangle", "star", "ring"]
Colour = Literal["red", "orange", "yellow", "green", "cyan", "blue", "purple", "white"]
Texture = Literal["plain", "striped", "checked", "dotted"]

SHAPES: Final[tuple[Shape, ...]] = get_args(Shape)
COLOURS: Final[tuple[Colour, ...]] = get_args(Colour)
TEXTURES: Final[tuple[Texture, ...]] = get_args(Texture)

# Hues are at least 23 degrees apart; white alone has none
PALETTE: Final[dict[Colour, tuple[int, int, int]]] = {
    "red": (226, 44, 52),
    "orange": (250, 132, 22),
    "yellow": (250, 222, 50),
    "green": (48, 176, 66),
    "cyan": (50, 204, 214),
    "blue": (48, 96, 232),
    "purple": (146, 62, 206),
    "white": (244, 244, 240),
}

HELD_OUT_PAIRS: Final[tuple[tuple[Colour, Shape], ...]] = (
    ("green", "star"),
    ("purple", "ring"),
    ("orange", "triangle"),
)
"""Colours of objects that no training sees in these shapes, though it sees each colour and each shape."""


def with_article(words: str) -> str:
    """Prefix words with their indefinite article, a or an."""
    return f"{'an' if words[:1] in 'aeiou' else 'a'} {words}"


def caption_of(
    objects: Sequence[tuple[Colour, Shape]], *, background_colour: Colour, background_texture: Texture
) -> str:
    """Compose a scene's caption, such as "a red star over a blue checked background", without textures of objects."""
    named = " and ".join(with_article(f"{colour} {shape}") for colour, shape in objects)
    plain = background_texture == "plain"
    ground = f"plain {background_colour}" if plain else f"{background_colour} {background_texture}"
    return f"{named} over {with_article(ground)} background"


def names_held_out_pair(caption: str) -> bool:
    """Return whether a caption names an object with a colour and shape that are held out of the training."""
    return any(f"{colour} {shape}" in caption for colour, shape in HELD_OUT_PAIRS)


def without_plain(caption: str) -> str:
    """Drop the word for plain backgrounds from a caption: "a red star over a blue background"."""
    return re.sub(r"\ban? plain (\w+)", lambda found: with_article(found[1]), caption)
