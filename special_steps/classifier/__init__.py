"""The spectral classifier and its training."""
