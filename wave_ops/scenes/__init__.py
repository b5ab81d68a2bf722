"""Procedural clips with exact flow, occlusion and object masks, captions, and a reader of what a frame shows."""
