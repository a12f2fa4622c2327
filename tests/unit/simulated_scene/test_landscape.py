"""The landscape: the same for a seed, of all classes, with heights that fit what stands there."""

import numpy as np
import pytest

from special_steps.simulated_scene.landscape import (
    ASPHALT,
    CLASSES,
    FINE,
    GRASS,
    HEIGHT,
    ROOF,
    TREES,
    WATER,
    WIDTH,
    draw_landscape,
    label_pixels,
    smooth_noise,
)


@pytest.fixture(scope="module")
def drawn():
    return draw_landscape(np.random.default_rng(0))


def test_heights_and_objects_are_those_of_trees_and_houses(drawn):
    land, bank = drawn
    assert land.kind.shape == bank.shape == (HEIGHT * FINE, WIDTH * FINE)
    assert set(np.unique(land.kind)) == set(range(len(CLASSES)))
    for kind in (TREES, ROOF):
        assert (land.height[(land.kind == kind) & (land.item >= 0)] > 2).all()
    for kind in (WATER, ASPHALT, GRASS):
        assert (land.height[land.kind == kind] == 0).all()
        assert (land.item[land.kind == kind] == -1).all()
    assert land.item.max() < land.items
    assert (bank[land.kind == WATER] > 0).all()


def test_a_pixel_has_the_label_of_most_of_its_cells():
    kind = np.full((HEIGHT * FINE, WIDTH * FINE), GRASS)
    kind[:FINE, : 3 * FINE // 4] = WATER  # three quarters of the first pixel
    kind[:FINE, FINE : FINE + FINE // 4] = ROOF  # one quarter of the second
    labels = label_pixels(kind)
    assert labels.dtype == np.uint8 and labels.shape == (HEIGHT, WIDTH)
    assert labels[0, :2].tolist() == [WATER + 1, GRASS + 1] and (labels[1:] == GRASS + 1).all()


def test_noise_has_mean_0_and_deviation_1_and_wide_blobs():
    fine, coarse = (smooth_noise(np.random.default_rng(0), (200, 200), m) for m in (1, 10))
    for noise in (fine, coarse):
        assert noise.mean() == pytest.approx(0, abs=1e-3)
        assert noise.std() == pytest.approx(1, abs=1e-3)
    assert np.diff(coarse).std() < 0.3 * np.diff(fine).std()
