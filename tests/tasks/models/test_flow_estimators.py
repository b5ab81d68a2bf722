from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tasks.errors import TaskInputError
from tasks.models.flow_estimators import load_flow, resolve_flow
from wave_ops.flow import build_raft


@pytest.fixture
def raft(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "raft_small.safetensors"
    save_file(build_raft("small").state_dict(), path)
    return path


def test_dis_needs_no_weights() -> None:
    identity = resolve_flow("dis", weights="/nowhere")
    assert (identity.location, identity.digest) == ("", "")
    still = np.full((32, 48, 3), 7, np.uint8)
    to_prev, to_cur = load_flow(identity, device="cpu")(still, still)
    assert to_prev.shape == to_cur.shape == (2, 32, 48)


def test_raft_is_loaded_from_a_file_or_its_folder(raft: Path) -> None:
    identity = resolve_flow("raft", weights=str(raft))
    assert identity == resolve_flow("raft", weights=str(raft.parent))
    frames = np.random.default_rng(0).integers(0, 256, (2, 128, 136, 3), np.uint8)
    to_prev, _ = load_flow(identity, device="cpu")(frames[0], frames[1])
    assert to_prev.shape == (2, 128, 136)


def test_the_large_network_is_chosen_from_a_folder_with_both(raft: Path) -> None:
    large = raft.with_name("raft_large.safetensors")
    large.write_bytes(b"large")
    assert resolve_flow("raft", weights=str(raft.parent)).location == str(large)


@pytest.mark.parametrize(
    ("name", "words"),
    [("", "no raft"), ("nothing.safetensors", "no flow weights at"), ("raft.pth", "not a safetensors file")],
)
def test_missing_and_pickled_weights_are_refused(tmp_path: Path, name: str, words: str) -> None:
    if name.endswith(".pth"):
        (tmp_path / name).write_bytes(b"pickle")
    with pytest.raises(TaskInputError, match=words):
        resolve_flow("raft", weights=str(tmp_path / name))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "raft.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(TaskInputError, match="does not contain the weights"):
        load_flow(resolve_flow("raft", weights=str(path)), device="cpu")


def test_weights_that_cannot_be_downloaded_are_reported_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(TaskInputError, match="hub cannot be reached"):
        resolve_flow("raft")
