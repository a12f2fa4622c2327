"""The spectra nearest to each class's pixels."""

import numpy as np
import pytest

from special_steps.materials import nearest as module
from special_steps.materials.nearest import nearest

FLAT, RISING, FALLING = np.array([[1, 1, 1, 1], [0, 1, 2, 3], [3, 2, 1, 0]], "f4")


def test_materials_shares_and_angles_by_hand():
    pixels = np.array([2 * FLAT, 5 * FLAT, RISING, 7 * FALLING], "f4")
    library = [np.stack([FLAT, RISING]), np.stack([FLAT])]
    grey, fall = nearest(pixels, np.array([0, 0, 0, 1]), library, [["road", "soil"], ["snow"]])
    assert grey.share == 0.75 and fall.share == 0.25
    assert grey.materials == pytest.approx({"road": 2 / 3, "soil": 1 / 3})
    assert list(grey.materials) == ["road", "soil"]
    assert grey.angle == pytest.approx(0, abs=0.1)
    np.testing.assert_allclose(grey.mean, (7 * FLAT + RISING) / 3, rtol=1e-6)
    assert grey.material == "road"
    np.testing.assert_allclose(grey.spectrum, FLAT * grey.mean.mean(), rtol=1e-6)
    assert fall.materials == {"snow": 1}
    assert fall.angle == pytest.approx(np.degrees(np.arccos(6 / np.sqrt(14 * 4))), abs=0.01)


def test_brightness_does_not_matter():
    pixels = np.random.default_rng(0).random((50, 4), np.float32) + 0.1
    library, labels = [np.stack([FLAT, RISING + 1])], np.zeros(50, int)
    (once,) = nearest(pixels, labels, library, [["a", "b"]])
    (again,) = nearest(10_000 * pixels, labels, library, [["a", "b"]])
    assert once.materials == again.materials
    assert once.angle == pytest.approx(again.angle, abs=0.01)
    np.testing.assert_allclose(again.spectrum, 10_000 * once.spectrum, rtol=1e-4)


def test_classes_without_spectra_and_without_pixels():
    found = nearest(np.stack([FLAT, FLAT]), np.zeros(2, int), [None, FLAT[None]], [[], ["snow"]])
    car, snow = found
    assert (car.share, car.angle, car.materials, car.spectrum) == (1, None, {}, None)
    np.testing.assert_array_equal(car.mean, FLAT)
    assert (snow.share, snow.angle, snow.materials, snow.mean) == (0, None, {}, None)


def test_blocks_are_the_whole(monkeypatch):
    rng = np.random.default_rng(1)
    pixels, known = rng.random((100, 4), np.float32), rng.random((9, 4), np.float32)
    given = (pixels, rng.integers(0, 2, 100), [known, known[:3]], [list("abcabcabc"), list("abc")])
    whole = nearest(*given)
    monkeypatch.setattr(module, "BLOCK", 7)
    for one, other in zip(whole, nearest(*given), strict=True):
        assert one.materials == other.materials
        assert one.angle == pytest.approx(other.angle, abs=1e-4)
