"""Notes on prompts that are longer than the text encoder reads."""

from __future__ import annotations

from wave_ops.diffusion import StableDiffusion, unread_words

__all__ = ["prompt_notes"]

_LONGEST = 200  # characters of what is not read that are worth showing


def prompt_notes(model: StableDiffusion, prompts: dict[str, str]) -> list[str]:
    """Return a note for each prompt, by its name, of which the text encoder reads the beginning only."""
    length = model.tokenizer.model_max_length - 2  # without those that begin and end a prompt
    unread = {name: unread_words(model.tokenizer, prompt) for name, prompt in prompts.items()}
    cut = {name: _short(end) for name, end in unread.items() if end}
    return [f"The {name} is read up to {length} tokens, without {end!r}." for name, end in cut.items()]


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
