"""What everything rests on: errors, settings, digests, stores, arithmetic on spectra."""
