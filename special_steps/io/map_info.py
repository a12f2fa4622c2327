"""ENVI's `map info`: where a grid lies, as ENVI defines it.

GDAL's ENVI driver (3.10) departs from the definition where the image is turned: it does not turn the way from a
reference pixel other than (1, 1) to the corner, takes the width of pixels that are not square for their height, and
reads a turn by 180 degrees as rows that run north. Source: "ENVI Header Files" of ENVI's documentation, `map info`; the
direction of the turn as in ORNL DAAC, "Understanding AVIRIS-NG data in ENVI format with rotated grid".
"""

import math
from collections.abc import Sequence


def corners_transform(fields: Sequence[str]) -> tuple[float, ...]:
    """Affine map from (x, y) index, of corners, to coordinates.

    The reference pixel is counted from 1 at the upper left corner of the image's first pixel (its centre is 1.5, 1.5).
    A rotation turns the image's axes anticlockwise around it, in degrees: at 0 columns run east and rows south, at 90
    columns run north and rows east. It is "rotation=...", or, in NEON's files, a bare number after "units=...".

    GDAL writes images whose rows run north as "rotation=180" without "units=...", which is read so here too.

    Args:
        fields: of `map info`: projection, reference pixel x and y, its east and north, pixel width and height, ...

    Returns:
        6 numbers: x = a * column + b * row + c, y = d * column + e * row + f.

    Raises:
        ValueError: for fields that are missing or no numbers, and pixels without size.
    """
    words = ["".join(f.split()) for f in fields]
    if len(words) < 7:
        raise ValueError("fewer than 7 fields")
    x, y, east, north, width, height = (float(w) for w in words[1:7])
    if not all(math.isfinite(v) for v in (x, y, east, north)) or not width or not height:
        raise ValueError("a position that is not finite, or pixels of size 0")
    degrees = _rotation(words[7:])
    if degrees % 180 == 0:  # as exact as the file
        cos, sin = (1.0 if degrees % 360 == 0 else -1.0), 0.0
    else:
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    a, b, d, e = width * cos, height * sin, width * sin, -height * cos
    if "rotation=180" in words and not any(w.lower().startswith("units=") for w in words):
        a, e = width, height
    return a, b, east - a * (x - 1) - b * (y - 1), d, e, north - d * (x - 1) - e * (y - 1)


def _rotation(words: Sequence[str]) -> float:
    """Degrees; 0 where none is stated."""
    for i, word in enumerate(words):
        name, equals, value = word.lower().partition("=")
        if name == "rotation" and equals:
            return float(value)
        if i and not equals and words[i - 1].lower().startswith("units="):
            return float(word)
    return 0.0
