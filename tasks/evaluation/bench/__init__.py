"""Benchmarks: speed, memory and accuracy, each compared with its target."""
