"""What a scene's values are, and the rough correction of radiance."""

import sys
from pathlib import Path

import numpy as np
import pytest

from special_steps.materials.library import material_spectra
from special_steps.materials.units import learn_correction, recognised, units_of

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from at_sensor import AIRS, at_sensor, digital_numbers

SENSORS = {
    "full": np.arange(405, 2446, 10.0),
    "visible and near infrared": np.arange(420, 1001, 6.0),
    "coarse": np.arange(420, 1001, 15.0),
}
LANDS = {
    "mixed": ["soil", "grass_canopy", "tree_canopy", "road", "tile", "clear_water"],
    "plants": ["grass_canopy", "tree_canopy", "crop_canopy"],
    "desert": ["soil", "sand", "gravel"],
    "sea": ["clear_water", "turbid_water", "algal_water"],
    "winter": ["snow", "ice", "tree_canopy"],
}


def ground(land: str, nm: np.ndarray) -> np.ndarray:
    """Reflectance (band, pixel) of mixed pixels with noise."""
    made = material_spectra(LANDS[land], nm, None)
    rng = np.random.default_rng(0)
    spectra = np.concatenate([made[m][rng.integers(len(made[m]), size=200)] for m in LANDS[land]])
    known = np.array([np.interp(nm, nm[(k := np.isfinite(s))], s[k]) for s in spectra])
    mixed = 0.7 * known + 0.3 * rng.permutation(known)
    return (mixed + 0.002 * rng.standard_normal(mixed.shape)).T.astype("f4")


@pytest.mark.parametrize("nm", SENSORS.values(), ids=SENSORS)
@pytest.mark.parametrize("land", LANDS)
def test_reflectance_is_never_taken_for_radiance(land, nm):
    for scale in (1, 100, 1e4, 1e-3):
        kind, why = recognised(nm, None, scale * ground(land, nm).T)
        assert kind == "reflectance", why


@pytest.mark.parametrize("air", AIRS)
@pytest.mark.parametrize("land", ["mixed", "plants", "desert"])
@pytest.mark.parametrize("nm", SENSORS.values(), ids=SENSORS)
def test_radiance_and_digital_numbers_are_recognised(land, nm, air):
    radiance = at_sensor(ground(land, nm), nm, None, AIRS[air])
    for values in (radiance, digital_numbers(radiance, nm)):
        kind, why = recognised(nm, None, values.T)
        assert kind == "radiance", why


@pytest.mark.parametrize("nm", [np.array([650.0, 550, 450][::-1]), np.array([560.0])])
def test_few_bands_are_reflectance(nm):
    assert recognised(nm, None, np.full((9, len(nm)), 0.2))[0] == "reflectance"


def test_bands_that_show_oxygen_alone():
    """Cameras that end before the first vapour band."""
    nm = np.arange(450, 801, 10.0)
    assert recognised(nm, None, ground("mixed", nm).T)[0] == "reflectance"


def test_corrected_radiance_has_the_grounds_shapes():
    nm = SENSORS["full"]
    bands = np.isfinite(material_spectra(["soil"], nm, None)["soil"]).all(0)
    reflectance = ground("mixed", nm)[bands]
    radiance = at_sensor(reflectance, nm[bands], np.full(bands.sum(), 10.0), AIRS["orbit"])
    correction = learn_correction(nm[bands], None, radiance.T)

    def angle(a: np.ndarray, b: np.ndarray) -> float:
        cosine = (a * b).sum(0) / np.linalg.norm(a, axis=0) / np.linalg.norm(b, axis=0)
        return float(np.degrees(np.median(np.arccos(cosine.clip(-1, 1)))))

    assert angle(radiance, reflectance) > 30
    assert angle(correction(radiance.T).T, reflectance) < 12


def test_radiance_is_compared_where_the_user_says_so_only():
    nm = SENSORS["full"]
    radiance = at_sensor(ground("mixed", nm), nm, None, AIRS["aircraft"])
    good = np.isfinite(material_spectra(["soil"], nm, None)["soil"]).all(0)

    def ask(units: str):
        return units_of(units, nm, None, radiance, good | True, good)

    correction, said, reason = ask("auto")
    assert (correction, said["kind"]) == (None, "radiance")
    assert "radiance" in reason
    assert "units: reflectance" in reason
    correction, said, reason = ask("radiance")
    assert (said["correction"], reason) == ("quac", None)
    assert correction is not None
    assert ask("reflectance")[0] is None
    assert ask("reflectance")[2] is None


def test_dark_scenes_have_no_say():
    nm = SENSORS["full"]
    noise = np.random.default_rng(0).normal(0, 0.01, (len(nm), 500))
    reason = units_of("auto", nm, None, noise, np.ones(len(nm), bool), np.ones(len(nm), bool))[2]
    assert reason == "all its pixels are dark, and what is left is noise"
