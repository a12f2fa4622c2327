"""Light and sensor: shadows, averages, noise. What they make of the whole scene is in test_demo.py."""

import numpy as np
import pytest

from special_steps.simulated_scene.landscape import FINE, HEIGHT, WIDTH
from special_steps.simulated_scene.sensor import (
    WAVELENGTHS,
    add_noise,
    bad_bands,
    illumination,
    to_pixels,
)


def test_open_ground_is_lit_and_a_wall_throws_a_shadow_away_from_the_sun():
    height = np.zeros((100, 100))
    np.testing.assert_allclose(illumination(height), 1, atol=1e-6)
    height[45:55, 45:55] = 8
    light = illumination(height)
    assert light[42, 38] < 0.2  # the sun stands in the south-east
    assert light[80, 80] == pytest.approx(1, abs=1e-6)


def test_pixels_keep_the_mean():
    cells = np.random.default_rng(0).random((HEIGHT * FINE, WIDTH * FINE))
    pixels = to_pixels(cells)
    assert pixels.shape == (HEIGHT, WIDTH)
    assert pixels.mean() == pytest.approx(cells.mean(), abs=1e-3)
    np.testing.assert_allclose(to_pixels(np.full_like(cells, 0.3)), 0.3)


def test_bad_bands_hold_nothing_but_noise():
    bad = bad_bands()
    assert bad.shape == WAVELENGTHS.shape and 8 < bad.sum() < 20
    cube = np.full((len(bad), HEIGHT, WIDTH), 0.4)
    noisy = add_noise(np.random.default_rng(0), cube, bad)
    assert (noisy[bad].std((1, 2)) > 0.2).all()
    assert (noisy[~bad].std((1, 2)) < 0.05).all()
    assert (cube == 0.4).all(), "the input is left alone"
