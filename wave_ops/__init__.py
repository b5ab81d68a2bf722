"""The numerics: warping, inversion, editing, propagation; tensors in, tensors out."""
