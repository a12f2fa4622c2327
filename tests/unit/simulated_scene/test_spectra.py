"""Spectra: reflectances of the right materials, and water that behaves like water."""

import numpy as np
import pytest

from special_steps.simulated_scene.landscape import CLASSES, TREES, WATER
from special_steps.simulated_scene.spectra import pick_spectra, water_reflectance

NM = np.arange(420, 2451, 15.0)


def test_water_darkens_with_depth_and_brightens_with_sediment():
    bottom = np.full(len(NM), 0.2)
    deep, shallow = (water_reflectance(d, 0.05, bottom, NM) for d in (5, 0.1))
    assert (deep < shallow + 1e-9).all() and deep[-1] == pytest.approx(0.012, abs=0.002)
    clear, turbid = (water_reflectance(5, s, bottom, NM) for s in (0.01, 0.1))
    assert (turbid >= clear).all()


def test_spectra_are_reflectances():
    found = pick_spectra(np.random.default_rng(0), NM)
    assert found.keys() == set(range(len(CLASSES))) - {WATER}
    for spectra in found.values():
        assert spectra.shape[0] >= 4 and spectra.shape[1] == len(NM)
        assert spectra.min() >= 0 and spectra.max() < 1


def test_spectra_are_given_at_the_bands_that_are_asked_for():
    red, infrared = pick_spectra(np.random.default_rng(0), np.array([660.0, 860]))[TREES].T
    assert (infrared > 3 * red).all()
