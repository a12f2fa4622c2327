"""Zero-shot land-cover maps from hyperspectral images: one module per step of the workflow."""

__version__ = "0.2.0"
