"""Full-video propagation on a torch device: the same steps as beside it, whole images at a time, in plain torch.

What is launched depends on the size of the images by the number of pyramid levels only. Both directions of an interval
are one batch, so K frames from keyframe to keyframe take at most (K - 1) x levels x rounds rounds, each of one pass for
every sweep of the settings. A round of one sweep is about 90 operations, and the rest of a frame some 2500: 55 thousand
at most for 8 frames of 512 x 512 pixels. Levels end early where nothing is left to improve.
"""

from __future__ import annotations

from wave_ops.propagation.on_device.interval import propagate_on_device

__all__ = ["propagate_on_device"]
