"""The small CLIP that ships with the package: weights, config, and the code that trained them."""
