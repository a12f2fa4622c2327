"""File formats: scenes, ground truth, pseudo-labels and spectral libraries, read by rows where the format allows it."""
