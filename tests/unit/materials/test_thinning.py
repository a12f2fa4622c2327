"""Thinning: what is dropped lies near what is kept, whatever the order."""

import numpy as np
import pytest

from special_steps.io.spectral_library import read_library
from special_steps.materials.library import material_spectra
from special_steps.materials.thinning import shapes, spread, thinned

NM = np.arange(420.0, 1001, 10)


def nearest(points, others):
    squares = ((points[:, None] - others[None]) ** 2).sum(2)
    return np.sqrt(squares.min(1))


@pytest.mark.parametrize(("space", "tolerance"), [("angle", 0.03), ("log", 0.05)])
def test_every_dropped_spectrum_lies_within_the_tolerance_of_a_kept_one(space, tolerance):
    spectra = material_spectra(["soil"], NM, None)["soil"]
    kept = thinned(spectra, tolerance, space)
    assert 10 < len(kept) < 0.7 * len(spectra)
    assert {s.tobytes() for s in kept} <= {s.tobytes() for s in spectra}
    whole, few = shapes(spectra, space), shapes(kept, space)
    assert nearest(whole, few).max() <= tolerance + 1e-7
    apart = nearest(few, few[:1])  # and those kept are apart: none is superfluous
    assert (np.sort(apart)[1:] > 0).all()
    squares = ((few[:, None] - few[None]) ** 2).sum(2) + np.eye(len(few))
    assert np.sqrt(squares.min()) > tolerance


@pytest.mark.parametrize(("space", "tolerance"), [("angle", 0.03), ("log", 0.05)])
def test_distances_of_other_spectra_grow_by_less_than_the_tolerance(space, tolerance):
    spectra = material_spectra(["soil", "road"], NM, None)
    library_nm, drawn, _ = read_library("simulation")
    pixels = shapes([np.interp(NM, library_nm, s) for s in drawn[::8]], space)
    for known in spectra.values():
        before = nearest(pixels, shapes(known, space))
        growth = nearest(pixels, shapes(thinned(known, tolerance, space), space)) - before
        assert growth.min() > -1e-6 and growth.max() <= tolerance + 1e-6
        assert growth.mean() < tolerance / 4


def test_the_order_of_the_spectra_does_not_matter():
    spectra = material_spectra(["road"], NM, None)["road"]
    shuffled = spectra[np.random.default_rng(0).permutation(len(spectra))]
    assert (thinned(spectra, 0.02) == thinned(shuffled, 0.02)).all()
    assert (spectra[spread(spectra, number=7)] == shuffled[spread(shuffled, number=7)]).all()


def test_equal_shapes_are_one_and_brightness_is_no_shape():
    one = np.linspace(0.1, 0.4, 20)
    for space in ("angle", "log"):
        assert len(thinned(np.array([one, 2 * one, 0.3 * one, one[::-1]]), 0.001, space)) == 2
        assert np.allclose(shapes(one[None], space), shapes(3 * one[None], space))


def test_few_and_none():
    spectra = np.array([[0.1, 0.2], [0.2, 0.1]])
    assert len(spread(spectra, number=0)) == 0 and len(spread(spectra[:0], number=3)) == 0
    assert len(thinned(spectra[:1], 0.1)) == 1
    with pytest.raises(ValueError, match="not finite"):
        thinned(np.array([[0.1, np.nan]]), 0.1)
