"""Materials that class names stand for, and their reflectance spectra."""
