from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wave_ops.errors import WaveOpsError
from wave_ops.shuffle import reachable_pairs, step_order

counts, seeds, steps = st.integers(1, 23), st.integers(0, 2**32), st.integers(1, 1000)
modes = st.sampled_from(["group", "natural", "permutation"])


@given(counts, seeds, steps, modes)
def test_an_order_contains_every_keyframe_once(count, seed, step, mode):
    assert sorted(step_order(count, seed=seed, step_index=step, mode=mode)) == list(range(count))


@given(counts, seeds, steps, modes)
def test_neighbours_of_any_order_are_among_the_reachable_pairs(count, seed, step, mode):
    order = step_order(count, seed=seed, step_index=step, mode=mode)
    assert {tuple(sorted(pair)) for pair in pairwise(order)} <= set(reachable_pairs(count, mode=mode))


@given(counts, seeds, steps)
def test_group_neighbours_are_at_most_three_apart(count, seed, step):
    assert all(abs(a - b) <= 3 for a, b in pairwise(step_order(count, seed=seed, step_index=step)))


@pytest.mark.parametrize("count", range(1, 8))
def test_every_reachable_pair_occurs_in_some_order(count):
    drawn = [step_order(count, seed=seed, step_index=1) for seed in range(400)]
    assert {tuple(sorted(pair)) for order in drawn for pair in pairwise(order)} == set(reachable_pairs(count))


def test_six_keyframes_need_eleven_pairs():
    assert len(reachable_pairs(6)) == 11


def test_one_seed_and_step_always_draw_the_same_order_and_other_steps_draw_others():
    orders = [step_order(8, seed=3, step_index=j) for j in range(1, 51)]
    assert orders == [step_order(8, seed=3, step_index=j) for j in range(1, 51)]
    assert len(set(orders)) > 20


def test_both_directions_and_both_places_of_the_group_of_one_are_drawn():
    orders = {step_order(3, seed=seed, step_index=1) for seed in range(200)}
    assert orders == {(0, 1, 2), (1, 0, 2), (0, 2, 1), (2, 1, 0), (1, 2, 0), (2, 0, 1)}


def test_bad_counts_seeds_and_modes_are_refused():
    for bad in ({"count": 0}, {"seed": -1}, {"mode": "spiral"}):
        arguments = {"count": 4, "seed": 0, "step_index": 1} | bad
        with pytest.raises(WaveOpsError):
            step_order(arguments.pop("count"), **arguments)
