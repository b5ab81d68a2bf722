"""The numerics of video editing: warping, inversion, editing, propagation; tensors in, tensors out."""
