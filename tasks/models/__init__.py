"""Models: checkpoints and networks found, checked, identified and loaded."""
