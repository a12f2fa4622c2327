"""How the bundled CLIP was trained and is evaluated; not needed to use it."""
