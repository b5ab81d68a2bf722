"""Benches: figures of speed, memory and exactness, each held against what is asked of it."""
