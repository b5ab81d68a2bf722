"""Comparisons of methods on the same clips.

Folders, from the bottom up: `clips`, `comparisons`, the modules here that plan and run one, `report`, `bench`.
"""
