"""Whether a model that learned from one scene can read another: the same units, and values of about the same size."""

import logging
from typing import NamedTuple

import numpy as np

from special_steps.core.errors import UserError
from special_steps.core.matched import Bands
from special_steps.materials.units import what_units

log = logging.getLogger("special")

DOUBTFUL, WRONG = (
    3.0,
    30.0,
)  # times as bright: light and land may do the first, a factor of 100 is another scale


class Sample(NamedTuple):
    """Some pixels of a scene, at the bands of the model."""

    scene: str  # its name
    units: str  # what the config says of its values: auto, reflectance or radiance
    spectra: np.ndarray  # (pixel, band) float32, values as they are in its cube


def check_alike(known: Sample, other: Sample, bands: Bands) -> None:
    """Compare a scene with the one that the model knows.

    Args:
        known: of the scene that was learned from.
        other: of the scene to map.
        bands: of both.

    Raises:
        UserError: where one is reflectance and the other is not, or where scales differ.
    """
    kinds = {}
    for one in (known, other):
        kinds[one.scene] = what_units(one.units, bands.nm, bands.fwhm, one.spectra)
    (first, why), (second, why_other) = kinds[known.scene], kinds[other.scene]
    if first != second:
        raise UserError(
            f"{other.scene}: its values are {second} ({why_other}), those of {known.scene}, which the model learned"
            f" from, {first} ({why}); give both as {first}, or, where that is wrong, set scenes.{other.scene}.units:"
            f" {first}"
        )
    bright, brighter = (float(np.median(s.spectra.mean(1))) for s in (known, other))
    ratio = max(brighter, 1e-12) / max(bright, 1e-12)
    if not 1 / WRONG < ratio < WRONG:
        raise UserError(
            f"{other.scene}: its values are {_times(ratio)} as those of {known.scene}, which the model learned from"
            f" (medians {brighter:.4g} and {bright:.4g}); bring them to one scale with scenes.{other.scene}.cube.scale"
        )
    if not 1 / DOUBTFUL < ratio < DOUBTFUL:
        log.warning(
            "the scene is %s as %s, which the model learned from (medians %.4g and %.4g): look whether the map can be"
            " right; if scales differ, set scenes.<name>.cube.scale",
            _times(ratio), known.scene, brighter, bright,
        )  # fmt: skip


def _times(ratio: float) -> str:
    """How bright one is, compared with the other."""
    return f"{ratio:.3g} times as bright" if ratio > 1 else f"1/{1 / ratio:.3g} as bright"
