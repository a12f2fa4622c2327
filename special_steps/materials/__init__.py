"""What ground is made of: spectra of materials, and the words that mean them."""
