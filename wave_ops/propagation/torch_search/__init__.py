"""Guided patch synthesis in torch: all pixels of a batch of frames at once, on a GPU or the CPU.

The number of kernels depends on the size of the images only through the number of pyramid levels. Both directions of
an interval are one batch, so K frames from keyframe to keyframe take at most (K - 1) x levels x rounds rounds, each of
one pass per sweep of the settings. A round of one sweep is about 90 kernels, and the rest of a frame about 2500: at
most 55 thousand for 8 frames of 512 x 512 pixels. Levels end early where nothing is left to improve.
"""

from __future__ import annotations

from wave_ops.propagation.torch_search.synthesis import Exemplars, synthesise

__all__ = ["Exemplars", "synthesise"]
