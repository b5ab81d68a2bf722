"""Comparisons of methods on the same clips: what is run, what is measured."""
