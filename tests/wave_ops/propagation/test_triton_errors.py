"""Patch errors of candidate matches: by torch, by the Triton kernel in Triton's interpreter, and on a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests._operations import Operations
from tests._patch_errors import make_matching, plain_errors_below, some_candidates, some_limits
from tests._propagation import make_case, paint
from wave_ops.propagation import PropagationSettings, torch_search
from wave_ops.propagation.patch_match import PATCH
from wave_ops.propagation.torch_search import Matching

CUDA = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
CANDIDATES = 2
SIZES = [(13, 10), (8, 8), (5, 1)]  # three parts of 64 pixels, the last one not whole; a whole one; less than one


def cases(m: Matching) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return candidates and their limits: some compared, none, only one, and no candidates at all."""
    candidates = some_candidates(m.grid, CANDIDATES)
    none = torch.full(candidates.shape, -1.0, device=candidates.device)
    one = none.clone()
    one[1, 1, -1] = torch.inf
    return {
        "some": (candidates, some_limits(candidates)),
        "none": (candidates, none),
        "one": (candidates, one),
        "no candidates": (candidates[:, :0], none[:, :0]),
    }


def expected_errors(m: Matching, candidates: torch.Tensor, limit: torch.Tensor) -> torch.Tensor:
    return plain_errors_below(
        m.source, m.target, candidates, limit, own_place=m.grid.own_place, patch=PATCH, row_fraction=0.5
    )


@pytest.mark.parametrize("size", SIZES)
def test_only_candidates_that_may_be_below_their_limit_have_errors(size, torch_device):
    m = make_matching(size, device=torch_device)
    for candidates, limit in cases(m).values():
        torch.testing.assert_close(
            torch_search.errors_below(m, candidates, limit), expected_errors(m, candidates, limit)
        )


def test_the_cases_drop_candidates_before_and_after_their_middle_row():
    m = make_matching(SIZES[0])
    candidates, limit = cases(m)["some"]
    finite = expected_errors(m, candidates, limit).isfinite()
    assert finite.any()
    assert (~finite & (limit > 0)).any()
    assert (limit <= 0).any()


INTERPRETED = """
import sys
import numpy as np
import torch
from wave_ops.propagation.triton_errors import errors_below

found = {}
with np.load(sys.argv[1]) as file:
    for case in sorted({name.partition(":")[0] for name in file.files}):
        source, target, own_place, candidates, limit = (
            torch.from_numpy(file[f"{case}:{name}"])
            for name in ("source", "target", "own_place", "candidates", "limit")
        )
        found[case] = errors_below(
            source, target, candidates, limit, own_place=own_place, patch=int(sys.argv[3]), row_fraction=0.5
        ).numpy()
np.savez(sys.argv[2], **found)
"""


def test_the_kernel_returns_them_in_the_interpreter(tmp_path):
    """In a process of its own: Triton decides when it is imported whether to interpret."""
    pytest.importorskip("triton", reason="needs Triton")
    arrays, expected = {}, {}
    for size in SIZES:
        m = make_matching(size)
        some = cases(m) if size == SIZES[0] else {"some": cases(m)["some"]}
        for name, (candidates, limit) in some.items():
            case = f"{name} of {size}"
            tensors = {"source": m.source, "target": m.target, "own_place": m.grid.own_place}
            tensors |= {"candidates": candidates, "limit": limit}
            arrays |= {f"{case}:{key}": value.numpy() for key, value in tensors.items()}
            expected[case] = expected_errors(m, candidates, limit)
    np.savez(tmp_path / "cases.npz", **arrays)
    command = [sys.executable, "-c", INTERPRETED, tmp_path / "cases.npz", tmp_path / "found.npz", str(PATCH)]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, timeout=240, env=environment, cwd=Path(__file__).parents[3])
    with np.load(tmp_path / "found.npz") as found:
        assert set(found.files) == set(expected)
        for case, errors in expected.items():
            torch.testing.assert_close(
                torch.from_numpy(found[case]), errors, msg=lambda text, case=case: f"{case}: {text}"
            )


def test_a_search_by_a_kernel_is_the_same(make_texture, monkeypatch):
    frame, style, target = (make_texture(17, 23, seed=seed).astype(np.uint8) for seed in (0, 2, 1))
    case = make_case(frame, style, target)
    expected = paint(*case, device="cpu")
    monkeypatch.setattr(torch_search, "_kernel", lambda device: plain_errors_below)
    found = paint(*case, device="cpu")
    assert torch.equal(found.matches, expected.matches)
    torch.testing.assert_close(found.error, expected.error)
    torch.testing.assert_close(found.image, expected.image)


def test_errors_of_other_pixels_stay_as_they_are(monkeypatch):
    m = make_matching(SIZES[0])
    expected, where = m.error.clone(), torch.zeros_like(m.error, dtype=torch.bool)
    where[..., ::3] = True
    m.error.fill_(7)
    monkeypatch.setattr(torch_search, "_kernel", lambda device: plain_errors_below)
    torch_search.match_errors(m, where)
    torch.testing.assert_close(m.error, expected.where(where, 7.0))


def test_a_round_is_sixty_operations_and_the_kernel(make_texture, monkeypatch):
    """The kernel's own are not counted; what a GPU computes in a round is what limits small levels."""
    operations = Operations()

    def kernel(*args: torch.Tensor, **kwargs: object) -> torch.Tensor:
        operations.on = False
        errors = plain_errors_below(*args, **kwargs)
        operations.on = True
        return errors

    monkeypatch.setattr(torch_search, "_kernel", lambda device: kernel)
    case = make_case(*(make_texture(17, 23, seed=seed).astype(np.uint8) for seed in (0, 2, 1)))
    counts = []
    for rounds in (2, 6):
        # The published schedule has the same penalty and windows in every round.
        settings = PropagationSettings(rounds=rounds, schedule="published", search_above=0)
        operations.by_name.clear()
        with operations:
            paint(*case, settings=settings, device="cpu")
        counts.append(operations.by_name.total())
    assert 40 < (counts[1] - counts[0]) / 4 <= 60


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Failed to find C compiler"),
        subprocess.CalledProcessError(1, "cc"),
        PermissionError("no folder to write to"),
    ],
)
def test_where_the_kernel_cannot_be_compiled_a_warning_says_so(error, monkeypatch, caplog):
    triton_errors = pytest.importorskip("wave_ops.propagation.triton_errors", reason="needs Triton")
    monkeypatch.setattr(triton_errors, "_kernel", Failing(error))
    assert not triton_errors.works.__wrapped__(torch.device("cpu"))
    assert str(error) in caplog.text


def test_memory_that_runs_out_is_not_taken_for_a_kernel_that_cannot_be_compiled(monkeypatch):
    triton_errors = pytest.importorskip("wave_ops.propagation.triton_errors", reason="needs Triton")
    monkeypatch.setattr(triton_errors, "_kernel", Failing(torch.OutOfMemoryError("out of memory")))
    with pytest.raises(torch.OutOfMemoryError):
        triton_errors.works.__wrapped__(torch.device("cpu"))


class Failing:
    """A kernel that fails when it is launched."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getitem__(self, grid: tuple[int, int]) -> object:
        raise self.error


def test_no_kernel_is_used_on_the_cpu():
    assert torch_search._kernel(torch.device("cpu")) is None


@pytest.mark.parametrize("size", [pytest.param(size, marks=CUDA) for size in [*SIZES, (64, 67)]])
def test_the_kernel_returns_them_on_a_gpu(size):
    m = make_matching(size, device="cuda")
    kernel = torch_search._kernel(m.grid.device)
    assert kernel is not None, "the log says why"
    for candidates, limit in cases(m).values():
        found = kernel(m.source, m.target, candidates, limit, own_place=m.grid.own_place, patch=PATCH, row_fraction=0.5)
        torch.testing.assert_close(found, expected_errors(m, candidates, limit))


@pytest.mark.parametrize("side", [pytest.param(11600, marks=CUDA)])
def test_places_times_channels_may_exceed_32_bits(side):
    if torch.cuda.mem_get_info()[0] < 12e9:
        pytest.skip("needs 12 GB of free GPU memory")
    image = torch.zeros(1, side, side, 16, device="cuda")
    image[0, -6:] = torch.rand(6, side, 16, device="cuda")
    own_place = ((side - 3) * side + torch.arange(2, 102, device="cuda", dtype=torch.int32)).view(1, 1, -1)
    candidates = own_place + side - 200
    assert int(candidates.min()) * 16 > 2**31
    arguments = {"own_place": own_place, "patch": PATCH, "row_fraction": 0.5}
    limit = torch.full(candidates.shape, torch.inf, device="cuda")
    kernel = torch_search._kernel(image.device)
    assert kernel is not None, "the log says why"
    torch.testing.assert_close(
        kernel(image, image, candidates, limit, **arguments),
        plain_errors_below(image, image, candidates, limit, **arguments),
    )
