"""Bands of one sensor from those of another. (Interpolation, percentiles and stretch: test_rgb, test_features.)"""

import numpy as np
import pytest

from special_steps.core.errors import UserError
from special_steps.core.spectral import band_weights, weighted_bands

NM = np.arange(450.0, 851, 10)


def weights(given, wanted=NM, **widths):
    return band_weights(wanted, np.asarray(given, float), source="line2", **widths)


def test_the_same_bands_are_taken_as_they_are():
    found = weights(np.r_[400, NM + 0.3, 900])
    assert (found.argmax(1) == np.arange(len(NM)) + 1).all()
    bands = np.random.default_rng(0).random((len(NM) + 2, 3, 4), np.float32)
    np.testing.assert_array_equal(weighted_bands(bands, found), bands[1:-1])


def test_other_bands_are_interpolated():
    given = np.arange(443.0, 860, 7)
    line = (0.1 + 0.002 * given).astype("f4")
    found = weighted_bands(line[:, None], weights(given))
    np.testing.assert_allclose(found[:, 0], 0.1 + 0.002 * NM, atol=1e-5)


def test_much_finer_bands_are_averaged_to_the_width():
    """A narrow line is as deep as the broad band sees it."""
    given = np.arange(430.0, 871, 2)
    spectrum = (1 - np.exp(-4 * np.log(2) * ((given - 650) / 4) ** 2)).astype("f4")
    width = {"wanted_fwhm": np.full(len(NM), 10.0), "given_fwhm": np.full(len(given), 2.0)}
    found = weighted_bands(spectrum[:, None], weights(given, **width))[:, 0]
    seen = 4 / np.hypot(4, np.sqrt(10**2 - 2**2))  # of a Gaussian line by a Gaussian band
    assert 1 - found[20] == pytest.approx(seen, abs=0.01)
    np.testing.assert_allclose(weights(given, **width).sum(1), 1, atol=1e-6)


def test_unknown_widths_touch_their_neighbours():
    given = np.arange(430.0, 871, 2)
    known = weights(given, wanted_fwhm=np.full(len(NM), 10.0), given_fwhm=np.full(len(given), 2.0))
    unknown = {"wanted_fwhm": np.full(len(NM), np.nan), "given_fwhm": None}
    np.testing.assert_allclose(weights(given, **unknown), known, atol=1e-6)


def test_a_few_dead_bands_do_no_harm():
    given = NM[np.arange(len(NM)) % 9 < 6]
    assert weights(given)[:-3].sum(1) == pytest.approx(1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (NM[:30], r"around 750 nm, and 11 of the 41 bands .* \[\[750, 850\]\]"),
        (NM[5:], r"around 450 nm, and 5 of the 41 .* \[\[450, 490\]\]"),
        (np.r_[NM[:10], NM[16:]], r"around 550 nm, and 6 of .* \[\[550, 600\]\]"),
        (np.r_[NM[4:10], NM[16:]], r"\[\[450, 480\], \[550, 600\]\]"),
        ([650.0], "around 450 nm"),
    ],
)
def test_what_is_missing_is_named(given, words):
    with pytest.raises(UserError, match=f"line2: no good bands .*{words}"):
        weights(given)


def test_half_a_band_beside_a_range_is_its_last():
    given = np.r_[455:546:10, 605:900:10]
    found = weights(given, NM[(NM <= 550) | (NM >= 600)])
    assert found.sum(1) == pytest.approx(1)
