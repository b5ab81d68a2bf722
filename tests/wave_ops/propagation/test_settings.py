from __future__ import annotations

import pytest

from wave_ops.errors import WaveOpsError
from wave_ops.propagation import PropagationSettings


@pytest.mark.parametrize(
    "wrong",
    [
        {"colour_weight": -1.0},
        {"uniformity": float("nan")},
        {"style_weight": 0.0},
        {"rounds": 0},
        {"coarsest_side": 3},
        {"gradient_weights": (1.0, 1.0)},
        {"gradient_weights": (1.0, -1.0, 1.0)},
        {"seed": -1},
        {"seed": 2**31},
        {"selection_weight": "lopsided"},
        {"blend_weight": "none"},
        {"blend": "sum"},
        {"schedule": "hurried"},
    ],
)
def test_a_value_out_of_range_is_refused_by_name(wrong):
    with pytest.raises(WaveOpsError, match=next(iter(wrong))):
        PropagationSettings(**wrong)
