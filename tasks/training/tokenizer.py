"""Tokenizer of the embedded model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from prefect import task
from prefect.cache_policies import NO_CACHE
from transformers import CLIPTokenizer

from tasks.training.files import write_text
from wave_ops.training.vocabulary import WORDS, byte_pair_vocabulary

__all__ = ["build_tokenizer", "load_tokenizer"]

_LENGTH: Final = 32
_SPECIAL: Final = {
    "bos": "<|startoftext|>",
    "eos": "<|endoftext|>",
    "pad": "<|endoftext|>",
    "unk": "<|endoftext|>",
}


@task(name="Build the tokenizer", cache_policy=NO_CACHE, persist_result=False)
def build_tokenizer(work_folder: str) -> str:
    """Write a CLIPTokenizer that encodes every word of a caption as one token; return its folder."""
    vocabulary, merges = byte_pair_vocabulary(WORDS)
    folder = Path(work_folder) / "tokenizer"
    special = {f"{name}_token": token for name, token in _SPECIAL.items()}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": _LENGTH, "do_lower_case": True, **special}
    # The layout of Stable Diffusion's checkpoints, which every version of transformers reads
    write_text(folder / "vocab.json", json.dumps(vocabulary, ensure_ascii=False))
    write_text(folder / "merges.txt", "\n".join(["#version: 0.2", *(" ".join(merge) for merge in merges), ""]))
    write_text(folder / "special_tokens_map.json", json.dumps(special, indent=2))
    write_text(folder / "tokenizer_config.json", json.dumps(config, indent=2))
    return str(folder)


def load_tokenizer(folder: str) -> Any:
    """Load the CLIPTokenizer of a folder."""
    return CLIPTokenizer.from_pretrained(folder)
