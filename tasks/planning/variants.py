r"""Draws that depend on nothing but a row's seed, its id and the number of the variant.

Convention: SHA-256 of the UTF-8 text "PURPOSE\0SEED\0VARIANT\0ID", its first eight bytes as a big-endian integer.
Another order of the rows, another machine or other rows in the manifest change nothing.
"""

from __future__ import annotations

from hashlib import sha256

__all__ = ["draw", "variant_seed"]

_SEEDS = 2**31  # as EditRequest limits them


def draw(purpose: str, *, seed: int, row_id: str, variant: int) -> int:
    """Return an integer from 0 to 2**64 - 1; draws for different purposes are independent."""
    text = f"{purpose}\0{seed}\0{variant}\0{row_id}"
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big")


def variant_seed(seed: int, *, row_id: str, variant: int) -> int:
    """Return the seed of a variant's edit, from 0 to 2**31 - 1.

    Variant 0 keeps the row's own seed, so that rows of one source and one seed share its inversion, and so that
    more variants of a row leave its first result as it is.
    """
    return draw("seed", seed=seed, row_id=row_id, variant=variant) % _SEEDS if variant else seed
