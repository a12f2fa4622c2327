"""Dense CLIP: models, windows, features of patches, upsampling to pixels."""
