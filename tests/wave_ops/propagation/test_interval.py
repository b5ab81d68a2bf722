from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from wave_ops.errors import WaveOpsError
from wave_ops.propagation import PropagationSettings, fuse_candidates, paint_candidates, propagate_interval

FAST = PropagationSettings(rounds=3)


def invert(frame: np.ndarray) -> np.ndarray:
    """An edit with a known result for every frame."""
    return 255 - frame


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-9))


def run(frames, to_prev, to_cur, *, edit=invert, settings=FAST, **more):
    return propagate_interval(
        frames,
        first=edit(frames[0]),
        last=edit(frames[-1]),
        flows_to_prev=to_prev,
        flows_to_cur=to_cur,
        settings=settings,
        **more,
    )


@pytest.mark.parametrize("size", [(64, 64), (48, 85), (33, 50)])
def test_an_edit_is_propagated_to_every_frame_and_the_keyframes_are_bit_identical(make_pan, size, device):
    frames, to_prev, to_cur = make_pan(5, *size)
    output = run(frames, to_prev, to_cur, device=device)
    assert output.shape == frames.shape
    assert output.dtype == np.uint8
    for index in (0, -1):
        np.testing.assert_array_equal(output[index], invert(frames[index]))
    for got, frame in zip(output, frames, strict=True):
        assert psnr(got, invert(frame)) > 35


def test_a_sliding_square_leaves_no_ghost(make_square, device):
    frames, to_prev, to_cur = make_square(7, 64, 80)
    output = run(frames, to_prev, to_cur, device=device)
    for got, frame in zip(output, frames, strict=True):
        assert psnr(got, invert(frame)) > 30
        assert np.quantile(np.abs(got.astype(int) - invert(frame)), 0.99) < 30


def test_an_edit_that_changes_nothing_returns_the_source_exactly(make_square, device):
    frames, to_prev, to_cur = make_square(5, 48, 64)
    np.testing.assert_array_equal(run(frames, to_prev, to_cur, edit=lambda frame: frame, device=device), frames)


def test_synthesis_itself_returns_nearly_the_source_of_an_unedited_clip(make_square):
    frames, to_prev, to_cur = make_square(5, 48, 64)
    flows = {"flows_to_prev": to_prev, "flows_to_cur": to_cur, "settings": FAST}
    pairs = paint_candidates(frames, first=frames[0], last=frames[-1], **flows)
    for got, frame in zip(fuse_candidates(pairs, **flows), frames[1:-1], strict=True):
        assert psnr(got, frame) > 35


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (200, 30, 90), (3, 250, 1)])
def test_a_constant_edit_returns_the_constant(make_square, colour, device):
    frames, to_prev, to_cur = make_square(4, 40, 64)
    flat = np.broadcast_to(np.array(colour, np.uint8), frames.shape[1:])
    assert (run(frames, to_prev, to_cur, edit=lambda _: flat, device=device) == np.array(colour)).all()


def test_each_patch_error_belongs_to_its_own_frame(make_pan):
    """The further a frame is from a keyframe, the less of it that keyframe shows."""
    frames, to_prev, to_cur = make_pan(7, 40, 64, step=5)
    pairs = paint_candidates(
        frames,
        first=invert(frames[0]),
        last=invert(frames[-1]),
        flows_to_prev=to_prev,
        flows_to_cur=to_cur,
        settings=FAST,
    )
    assert len(pairs) == 5
    early, late = ([candidate.error.mean() for candidate in side] for side in zip(*pairs, strict=True))
    assert all(near < far for near, far in pairwise(early))
    assert all(far > near for far, near in pairwise(late))
    for pair, frame in zip(pairs, frames[1:-1], strict=True):
        for candidate in pair:
            away = [np.abs(invert(other) - candidate.image.movedim(0, -1).numpy()).mean() for other in frames]
            np.testing.assert_array_equal(invert(frame), invert(frames[int(np.argmin(away))]))


def test_a_region_that_only_one_keyframe_shows_is_taken_from_it(make_pan, device):
    frames, to_prev, to_cur = make_pan(7, 40, 64, step=5)
    output = run(frames, to_prev, to_cur, device=device)
    forward = propagate_interval(
        frames, first=invert(frames[0]), last=None, flows_to_prev=to_prev, flows_to_cur=to_cur, settings=FAST
    )
    for i in range(2, 6):
        entered = np.s_[:, -5 * i + 3 :]
        truth = invert(frames[i])[entered]
        assert psnr(output[i][entered], truth) > psnr(forward[i][entered], truth) + 6


def test_a_reversed_clip_is_propagated_to_nearly_the_reversed_frames(make_pan, device):
    frames, to_prev, to_cur = make_pan(6, 40, 64)
    output = run(frames, to_prev, to_cur, device=device)
    reverse = run(frames[::-1], to_cur[::-1], to_prev[::-1], device=device)[::-1]
    assert np.abs(output.astype(int) - reverse).mean() < 1.5


def test_one_seed_gives_identical_bytes(make_square, device):
    clip = make_square(4, 40, 64)
    assert run(*clip, device=device).tobytes() == run(*clip, device=device).tobytes()


def test_the_result_does_not_depend_on_the_number_of_threads(make_square, device):
    clip = make_square(4, 40, 64)
    alone = run(*clip, device=device).tobytes()
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(run, *clip, device=device) for _ in range(4)]
    assert {future.result().tobytes() for future in futures} == {alone}


def test_the_published_selection_weight_changes_the_result(make_square, device):
    clip = make_square(5, 40, 64)
    published = run(*clip, settings=PropagationSettings(rounds=3, selection_weight="published"), device=device)
    assert not np.array_equal(published, run(*clip, device=device))


def test_restored_detail_brings_a_recoloured_clip_with_subpixel_motion_nearer_to_its_truth(make_pan, device):
    frames, to_prev, to_cur = make_pan(5, 40, 64, step=1.5)
    without, restored = (
        np.mean([psnr(got, invert(frame)) for got, frame in zip(output[1:-1], frames[1:-1], strict=True)])
        for output in (
            run(frames, to_prev, to_cur, settings=replace(FAST, restore_detail=switch), device=device)
            for switch in (False, True)
        )
    )
    assert restored > without + 3


@pytest.mark.parametrize("count", [1, 2, 3])
def test_short_intervals_keep_their_length_and_keyframes(make_pan, count, device):
    frames, to_prev, to_cur = make_pan(count, 40, 48)
    output = run(frames, to_prev, to_cur, device=device)
    for index in (0, -1):
        np.testing.assert_array_equal(output[index], invert(frames[index]))
    assert len(output) == count


@pytest.mark.parametrize("count", [1, 4])
def test_a_clip_without_a_later_keyframe_is_painted_from_the_earlier_one(make_pan, count, device):
    frames, to_prev, to_cur = make_pan(count, 40, 64)
    output = propagate_interval(
        frames,
        first=invert(frames[0]),
        last=None,
        flows_to_prev=to_prev,
        flows_to_cur=to_cur,
        settings=FAST,
        device=device,
    )
    np.testing.assert_array_equal(output[0], invert(frames[0]))
    for got, frame in zip(output, frames, strict=True):
        assert psnr(got[:, :-8], invert(frame)[:, :-8]) > 30


def test_the_arguments_are_not_changed(make_square, device):
    clip = make_square(4, 40, 64)
    kept = [array.copy() for array in clip]
    run(*clip, device=device)
    for array, copy in zip(clip, kept, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("count", [2, 5])
def test_progress_counts_up_to_its_total(make_pan, count, device):
    frames, to_prev, to_cur = make_pan(count, 40, 48)
    calls: list[tuple[int, int]] = []
    run(frames, to_prev, to_cur, callback=lambda done, total: calls.append((done, total)), device=device)
    total = 3 * (count - 2)
    assert calls == [(done, total) for done in range(1, total + 1)]


def test_invalid_input_is_an_error_of_one_sentence(make_pan, unchecked):
    frames, to_prev, to_cur = make_pan(4, 40, 48)
    good = {"first": invert(frames[0]), "last": invert(frames[-1]), "flows_to_prev": to_prev, "flows_to_cur": to_cur}
    holed = to_prev.copy()
    holed[1, 0, 5, 5] = np.nan
    cases = [
        (frames, {"flows_to_prev": holed}, "flows_to_prev contains numbers that are not finite"),
        (frames, {"flows_to_cur": to_cur[:-1]}, "expected flows_to_cur of shape"),
        (frames, {"flows_to_prev": to_prev[..., :-1]}, "expected flows_to_prev of shape"),
        (frames, {"first": good["first"][:20]}, "expected edited keyframes of the frames' size"),
        (frames, {"last": good["last"].astype(np.float32)}, "expected edited keyframes"),
        (frames.astype(np.float32), {}, "expected uint8 frames"),
        (frames[:0], {}, "expected uint8 frames"),
        (frames[:1], {"flows_to_prev": to_prev[:0], "flows_to_cur": to_cur[:0]}, "one keyframe, got two"),
    ]
    for clip, change, words in cases:
        with pytest.raises(WaveOpsError, match=words):
            propagate_interval(clip, **(good | change))


def test_painting_and_fusing_in_two_steps_is_propagation(make_square):
    frames, to_prev, to_cur = make_square(5, 40, 64)
    flows = {"flows_to_prev": to_prev, "flows_to_cur": to_cur, "settings": FAST}
    painted = paint_candidates(frames, first=invert(frames[0]), last=invert(frames[-1]), **flows)
    np.testing.assert_array_equal(list(fuse_candidates(painted, **flows)), run(frames, to_prev, to_cur)[1:-1])


def test_painting_from_one_keyframe_after_the_other_is_painting_from_both_at_once(make_square, monkeypatch):
    clip = make_square(5, 40, 64)
    concurrent = run(*clip)
    monkeypatch.setattr("wave_ops.propagation.interval._ONE_THREAD_ABOVE", 0)
    np.testing.assert_array_equal(run(*clip), concurrent)


def test_read_only_and_reversed_arrays_are_accepted(make_square, device):
    clip = make_square(4, 40, 64)
    frames, to_prev, to_cur = (np.ascontiguousarray(array[::-1])[::-1] for array in clip)
    for array in (frames, to_prev, to_cur):
        array.setflags(write=False)
    np.testing.assert_array_equal(run(frames, to_prev, to_cur, device=device), run(*clip, device=device))
