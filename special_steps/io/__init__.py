"""Files of scenes, labels and spectra, read and written."""
