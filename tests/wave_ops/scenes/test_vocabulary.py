"""Words of scenes, and captions."""

from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np
import pytest

from wave_ops.scenes.vocabulary import COLOURS, PALETTE, caption_of, with_article, without_plain


@pytest.mark.parametrize(("words", "expected"), [("red star", "a red star"), ("orange ring", "an orange ring")])
def test_the_article_fits_the_first_letter(words: str, expected: str) -> None:
    assert with_article(words) == expected


def test_a_caption_names_the_objects_in_order_and_then_the_background() -> None:
    caption = caption_of(
        [("red", "star"), ("green", "circle")], background_colour="orange", background_texture="checked"
    )
    assert caption == "a red star and a green circle over an orange checked background"


def test_plain_comes_before_the_colour_of_a_background() -> None:
    caption = caption_of([("blue", "ring")], background_colour="orange", background_texture="plain")
    assert caption == "a blue ring over a plain orange background"


def test_without_plain_the_article_fits_the_colour() -> None:
    assert without_plain("a blue ring over a plain orange background") == "a blue ring over an orange background"


def test_a_caption_without_plain_is_not_changed() -> None:
    caption = "a red star over a blue checked background"
    assert without_plain(caption) == caption


def test_any_two_colours_are_far_apart_in_lab() -> None:
    known = np.array([[PALETTE[colour] for colour in COLOURS]], np.float32) / 255
    lab = cv2.cvtColor(known, cv2.COLOR_RGB2LAB)[0]
    assert min(float(np.linalg.norm(a - b)) for a, b in combinations(lab, 2)) > 28
