"""Procedural clips with exact flow, occlusion, object masks and captions, and a classifier of their frames."""
