"""Settings of full-video propagation."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import isfinite
from typing import Final, Literal, get_args

from wave_ops.errors import WaveOpsError

__all__ = [
    "PUBLISHED_GUIDES",
    "PUBLISHED_PROPAGATION",
    "Blend",
    "BlendWeight",
    "PropagationSettings",
    "Schedule",
    "SelectionWeight",
]

SelectionWeight = Literal["published", "symmetric"]
Blend = Literal["mix", "contrast"]
BlendWeight = Literal["published", "error"]
Schedule = Literal["published", "settling"]

_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "selection_weight": get_args(SelectionWeight),
    "blend": get_args(Blend),
    "blend_weight": get_args(BlendWeight),
    "schedule": get_args(Schedule),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PropagationSettings:
    """The constants of full-video propagation.

    Source: the constants that WAVE's authors ran (ECCV 2024) on EbSynth's patch synthesis. Deviates in the search:
    theirs ran 12 rounds of 6 sweeps from random matches; ours starts from the flow and settles, so that 8 rounds of one
    sweep suffice. Deviates in two weights: the source's colours count twice as much, the frame before half as much
    (`PUBLISHED_GUIDES` has theirs). Deviates in the blend, which is a plain mix. `PUBLISHED_PROPAGATION` is theirs.

    Raises:
        WaveOpsError: a value is out of range.
    """

    colour_weight: float = 12.0
    """Weight of the source frames' colours; like every weight it is divided by the guide's three channels."""
    edge_weight: float = 0.5
    """Weight of the source frames' Laplacian."""
    temporal_weight: float = 0.25
    """Weight of the frame synthesised before, warped by the flow."""
    position_weight: float = 2.0
    """Weight of the position in the keyframe, warped by the flow."""
    style_weight: float = 1.0
    """Weight of the edited image itself; above 0."""
    uniformity: float = 3500.0
    """Penalty on a source patch used with average frequency (EbSynth's uniformity), in units of patch error; see
    `schedule`."""
    coarsest_side: int = 11
    """The pyramid ends before a side gets shorter than this, pixels; at least 5, the size of a patch."""
    schedule: Schedule = "settling"
    """How rounds differ. "published": not at all. "settling": the penalty falls from `uniformity` in the first round to
    0 in the last, and the widest window of the random search from the whole image to a few pixels."""
    rounds: int = 8
    """Search-and-vote rounds at each level of the pyramid."""
    sweeps: int = 1
    """Sweeps over the image in each round."""
    search_above: float = 1000.0
    """Matches with a patch error above this are searched for at random too."""
    restore_detail: bool = True
    """Whether source detail that the patches lack is restored, mapped by the edit (not in WAVE)."""
    selection_weight: SelectionWeight = "symmetric"
    """Weight of the later keyframe at frame i of K: "symmetric" i/K, or "published" (i - 1)/(K - 1)."""
    blend_weight: BlendWeight = "error"
    """How the two candidates are mixed: "published" by time alone, "error" also by the patch errors at each pixel."""
    blend: Blend = "mix"
    """"mix" is the weighted mean of the candidates in Lab; "contrast", as published, gives the whole frame the contrast
    of the image selected by error, which drives colours apart where the candidates disagree."""
    fuse_gradients: bool = False
    """Whether the blend is fused with the gradients of the selected candidates (not in WAVE)."""
    keep_switched: bool = False
    """Whether pixels that switched to the later keyframe stay so where the flow has no match, as WAVE's authors ran."""
    gradient_weights: tuple[float, float, float] = (2.5, 0.5, 0.5)
    """Weight of the gradients against the values in the fusion, for L, a and b."""
    seed: int = 0
    """Seed of the random search, 0 to 2^31 - 1."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            numbers = value if isinstance(value, tuple) else (value,)
            if not isinstance(value, str) and not all(isfinite(n) and n >= 0 for n in numbers):
                raise WaveOpsError(f"propagation needs a finite {field.name} of at least 0, got {value}")
        if self.style_weight == 0:
            raise WaveOpsError("propagation needs a style_weight above 0: the other weights are relative to it")
        if self.coarsest_side < 5 or self.rounds < 1 or self.sweeps < 1:
            raise WaveOpsError(
                "propagation needs a coarsest_side of at least 5 and rounds and sweeps of at least 1, got "
                f"{self.coarsest_side}, {self.rounds} and {self.sweeps}"
            )
        if len(list(self.gradient_weights)) != 3 or self.seed >= 2**31:
            raise WaveOpsError(
                "propagation needs three gradient_weights and a seed below 2^31, got "
                f"{self.gradient_weights} and {self.seed}"
            )
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise WaveOpsError(f"unknown {name} {getattr(self, name)!r}: expected {' or '.join(known)}")


PUBLISHED_GUIDES: Final = PropagationSettings(colour_weight=6.0, temporal_weight=0.5)
"""The defaults, with the guide weights that WAVE's authors ran."""
PUBLISHED_PROPAGATION: Final = replace(
    PUBLISHED_GUIDES,
    schedule="published",
    rounds=12,
    sweeps=6,
    search_above=0.0,
    restore_detail=False,
    selection_weight="published",
    blend_weight="published",
    blend="contrast",
    keep_switched=True,
)
"""The propagation that WAVE's authors ran."""
