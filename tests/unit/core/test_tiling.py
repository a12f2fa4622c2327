"""Where tiles begin."""

import pytest

from special_steps.core.tiling import tile_starts


@pytest.mark.parametrize(
    ("size", "side", "step", "starts"),
    [
        (224, 224, 112, [0]),
        (100, 224, 112, [0]),
        (225, 224, 112, [0, 1]),
        (448, 224, 112, [0, 112, 224]),
        (449, 224, 112, [0, 112, 224, 225]),
        (60, 32, 24, [0, 24, 28]),
    ],
)
def test_the_last_tile_is_shifted_back_to_fit(size, side, step, starts):
    assert tile_starts(size, side, step) == starts


@pytest.mark.parametrize("size", [1, 15, 16, 17, 40, 41])
@pytest.mark.parametrize("step", [1, 12, 16])
def test_tiles_cover_every_pixel_and_none_outside(size, step):
    covered = set()
    for start in tile_starts(size, 16, step):
        assert start == 0 or start + 16 <= size
        covered |= set(range(start, start + 16))
    assert covered >= set(range(size))
