"""Metrics of images, videos, flows and masks, each with its source and range."""

from __future__ import annotations

from wave_ops.metrics.clip import embed_frames, embed_text, frame_accuracy, temporal_consistency, text_alignment
from wave_ops.metrics.image import psnr, ssim
from wave_ops.metrics.optical_flow import flow_endpoint_error, mask_precision_recall
from wave_ops.metrics.perceptual import Lpips
from wave_ops.metrics.scenes import (
    attribute_fractions,
    attribute_hits,
    mixed_frames,
    object_overlap,
    outside_objects,
    preservation,
    true_warp_error,
)
from wave_ops.metrics.temporal import warp_error
from wave_ops.metrics.video import colour_drift, keyframe_pulse
from wave_ops.metrics.videos import SourceMotion, source_motion, video_consistency, video_warp_error

__all__ = [
    "Lpips",
    "SourceMotion",
    "attribute_fractions",
    "attribute_hits",
    "colour_drift",
    "embed_frames",
    "embed_text",
    "flow_endpoint_error",
    "frame_accuracy",
    "keyframe_pulse",
    "mask_precision_recall",
    "mixed_frames",
    "object_overlap",
    "outside_objects",
    "preservation",
    "psnr",
    "source_motion",
    "ssim",
    "temporal_consistency",
    "text_alignment",
    "true_warp_error",
    "video_consistency",
    "video_warp_error",
    "warp_error",
]
