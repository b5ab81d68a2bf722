"""Numerics of training the embedded model: modules, batches, losses, schedules, optimiser, loop, tokenizer."""
