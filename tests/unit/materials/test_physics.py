"""Physics: waters, snow, wet soil and shadow that behave as theirs do."""

import numpy as np
import pytest

from special_steps.materials.physics import (
    algae_absorption,
    ice_absorption,
    shaded,
    skylight,
    snow_reflectance,
    water_absorption,
    water_reflectance,
    wetted,
)

NM = np.arange(400.0, 2451, 10)
BOTTOM = 0.1 + 0.0002 * (NM - 400)


def at(spectrum, nm):
    return spectrum[np.searchsorted(NM, nm)]


def water(**changes):
    clear = {"depth": np.inf, "bottom": BOTTOM, "chlorophyll": 1, "sediment": 1, "dissolved": 0.1}
    return water_reflectance(NM, **(clear | {"glint": 0.0} | changes))


def test_absorption_of_water_and_ice_at_known_places():
    """Pope and Fry: least at 418 nm; both have bands near 1450 and 1940 (ice: 1500 and 2000) nm."""
    water_, ice = water_absorption(NM), ice_absorption(NM)
    assert NM[water_.argmin()] == 420 and at(water_, 550) == pytest.approx(0.0565)
    assert at(water_, 660) == pytest.approx(0.41) and 1900 <= NM[water_.argmax()] <= 1940
    near = (NM > 1300) & (NM < 1700)
    assert abs(NM[near][water_[near].argmax()] - 1450) <= 10
    assert abs(NM[near][ice[near].argmax()] - 1500) <= 10
    assert at(ice, 1030) > at(ice, 1080) and at(water_, 970) > at(water_, 1070)


def test_water_is_darker_in_the_near_infrared_than_in_green_but_by_its_glint():
    for case in ({}, {"sediment": 50}, {"chlorophyll": 100}, {"depth": 2}):
        made = water(**case)
        assert at(made, 860) < 0.7 * at(made, 560)
        assert made[NM > 1400].max() < 0.001
        assert np.allclose(water(**case, glint=0.03) - made, 0.03)


def test_sediment_brightens_and_reddens_dissolved_matter_darkens_blue():
    clear, turbid, brown = water(), water(sediment=100), water(dissolved=2)
    assert (turbid > clear)[NM < 900].all()
    assert NM[turbid.argmax()] > NM[clear.argmax()] + 50
    assert at(brown, 440) < 0.5 * at(clear, 440) and at(brown, 650) > 0.8 * at(clear, 650)


def test_algae_absorb_at_675_and_peak_near_705():
    bloom = water(chlorophyll=100, sediment=5)
    assert at(bloom, 670) < at(bloom, 650) and at(bloom, 670) < 0.8 * at(bloom, 700)
    assert at(bloom, 560) > at(bloom, 440)
    assert at(algae_absorption(10, NM), 440) == pytest.approx(0.06 * 10**0.65)


def test_shallow_water_shows_its_bottom_and_deep_water_does_not():
    assert np.allclose(water(depth=40), water(depth=np.inf), rtol=0.05, atol=1e-4)
    none = water(depth=1e-9)
    assert np.allclose(none, BOTTOM * 0.5 / (1 - 1.5 / np.pi * BOTTOM), rtol=1e-3)
    assert at(water(depth=0.5), 550) > 2 * at(water(), 550)
    assert at(water(depth=2), 800) < 0.01  # the infrared does not come back from 2 m


def test_snow_is_bright_in_the_visible_and_dark_from_1500_to_2000_nm():
    for grain in (0.1, 1, 3):
        snow = snow_reflectance(NM, grain=grain, dust=0)
        assert snow[NM < 650].min() > 0.88
        assert at(snow, 1500) < 0.08 and at(snow, 2000) < 0.08
        assert at(snow, 1030) < at(snow, 1090)  # ice's band
    fine, coarse = (snow_reflectance(NM, grain=g, dust=0) for g in (0.1, 1))
    assert (fine >= coarse).all() and at(fine, 1030) - at(coarse, 1030) > 0.2
    dusty = snow_reflectance(NM, grain=0.5, dust=10)
    assert at(dusty, 450) < at(dusty, 650)  # dust takes blue first


def test_wet_soil_is_darker_at_every_band_and_most_in_water_bands():
    for dry in (0.03 + 0 * NM, BOTTOM, 0.2 + 0.0002 * (NM - 400)):
        damp, wet, flooded = (
            wetted(dry, NM, cover=c, film=f) for c, f in ((0.5, 0.1), (1, 0.1), (1, 2))
        )
        assert (damp < dry).all() and (wet < damp).all() and (flooded <= wet).all()
        assert (flooded > 0).all()
        assert at(wet / dry, 1940) < at(wet / dry, 1660)
    typical = wetted(np.array([0.3]), np.array([650.0]), cover=1, film=0.1)[0]
    assert 0.12 < typical < 0.22  # about a third to a half is lost (Lekner and Dorf 1988, figure 3)
    assert (wetted(BOTTOM, NM, cover=0, film=0.3) == BOTTOM).all()


def test_skylight_is_blue_and_more_in_haze_and_under_a_low_sun():
    clear, hazy, low = (
        skylight(NM, turbidity=0.1),
        skylight(NM, turbidity=0.4),
        skylight(NM, turbidity=0.1, height=20),
    )
    assert (np.diff(clear) < 0).all() and (hazy > clear).all() and (low > clear).all()
    assert 0.2 < at(clear, 450) < 0.35 and 0.02 < at(clear, 860) < 0.1


def test_shadow_is_darker_and_bluer_than_sunlight():
    dark = shaded(BOTTOM, NM, turbidity=0.2)
    assert (dark < BOTTOM).all()
    assert at(dark, 450) / at(dark, 650) > 1.3 * at(BOTTOM, 450) / at(BOTTOM, 650)
    assert np.allclose(shaded(BOTTOM, NM, turbidity=0.2, light=1), BOTTOM)


def test_leaves_let_infrared_into_their_shadow():
    leaf = np.where(NM < 700, 0.05, 0.45)
    share = shaded(leaf, NM, turbidity=0.2, through=1) / leaf
    without = shaded(leaf, NM, turbidity=0.2) / leaf
    assert at(share - without, 850) > 5 * at(share - without, 650)
