"""Numerics of training the embedded model: losses, schedules, averages, its tokenizer and its modules."""
