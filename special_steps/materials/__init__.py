"""What class names are made of: words to materials, and the materials' reflectance spectra, measured and modelled."""
