"""Tiles of an image: pieces that overlap, cover it, and are small enough to look at one at a time."""

Tile = tuple[slice, slice]  # rows and columns, with start and stop


def tile_starts(size: int, side: int, step: int) -> list[int]:
    """First pixels of the tiles along one side of an image; the last tile is shifted back to fit.

    Args:
        size: pixels of the image along this side.
        side: pixels of a tile; an image that is smaller has one tile.
        step: pixels from a tile to the next; no more than `side`, else there are gaps.
    """
    last = max(size - side, 0)
    return [min(start, last) for start in range(0, last + step, step)]
