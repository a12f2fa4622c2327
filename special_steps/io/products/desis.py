"""DESIS L2A (surface reflectance) and L1C (radiance at the sensor), orthorectified.

Sources: DESIS product specification (PAV-DLR-ICD-003), DLR's list of DESIS data products, and the public readers of the
EnMAP-Box (importdesisl2aalgorithm), HyTools, ACOLITE and hyperproc.

- Bands: `specific/bandCharacterisation/band`: bandNumber (from 1), wavelengthCenterOfBand and wavelengthWidthOfBand in
  nm; gainOfBand and offsetOfBand, value = stored * gain + offset. There are `band` elements of another meaning in
  `interiorOrientation`. 235 bands of 401 to 1000 nm, or 118, 79, 60 where bands were binned. One detector: no overlap.
  L2A: int16, gain 0.0001, so reflectances are 0 to 1. L1C: a gain and an offset of each band, mW/cm2/sr/um.
- No data: -32768 (`backgroundValue`).
- QL_QUALITY-2, L2A only, a band each: shadow, land, snow, haze over land, haze over water, cloud over land, cloud over
  water, water, then aerosol optical thickness and water vapour. QL_QUALITY (of each band) is not read.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from special_steps.core.errors import UserError
from special_steps.io.products import dlr
from special_steps.io.record import Source, Window

_QUALITY = "QL_QUALITY-2"
_FLAGS = {  # Source.quality's name: bands of QL_QUALITY-2, from 0, one of which is above 0
    "cloud_shadow": (0,),
    "snow": (2,),
    "haze": (3, 4),
    "cloud": (5, 6),
    "water": (7,),
}
_BACKGROUND = -32768.0


def files_of(path: Path) -> list[Path]:
    """All files of the DESIS product that a folder, an image or a METADATA.xml belongs to; [] for anything else."""
    return [f for p in dlr.products_at(path, "DESIS", (_QUALITY,)) for f in p.files]


def open_product(path: Path) -> Source:
    """Open a DESIS L2A or L1C product.

    Args:
        path: the folder, the image or the METADATA.xml.

    Raises:
        UserError: when a file is missing, damaged or does not fit the others; for L1B, which has no map grid.
    """
    product, image_path, metadata = dlr.the_product(path, "DESIS", (_QUALITY,))
    root = dlr.read_metadata(metadata)
    level = dlr.level_in(product.name)
    if level is None:
        raise UserError(
            f"{image_path}: its name does not say L1C or L2A; give the files the names they were"
            " delivered with, such as DESIS-HSI-L2A-DT...-SPECTRAL_IMAGE.tif"
        )
    bands = dlr.bands_of(
        root, "band", lambda b: b.findtext("bandNumber", "0"), "bandNumber", metadata
    )
    image = dlr.open_image(image_path)
    wavelengths, fwhm = dlr.wavelengths_of(
        bands,
        ("wavelengthCenterOfBand", "wavelengthWidthOfBand"),
        image.shape[0],
        (image_path, metadata),
    )
    scale, offset = dlr.scaling(bands, ("gainOfBand", "offsetOfBand"), level, metadata)
    radiance = (
        f"{image_path}: DESIS L1C holds radiances at the sensor (mW/cm2/sr/um), not reflectances;"
        " for reflectances give the L2A product",
    )
    return replace(
        image,
        files=list(dict.fromkeys([*image.files, *product.files])),
        wavelengths=wavelengths,
        fwhm=fwhm,
        good_bands=wavelengths > 0,
        scale=scale,
        offset=offset,
        nodata=dlr.fill_values(image, root, _BACKGROUND, metadata),
        quality=_quality(product, image),
        doubts={},
        notes=image.notes if level == "L2A" else (*image.notes, *radiance),
        photometric="",
        kind=f"DESIS {level}",
    )


def _quality(product: dlr.Product, image: Source) -> dict[str, Window]:
    if _QUALITY not in product.layers:
        return {}

    def any_of(bands: tuple[int, ...]) -> Window:
        return dlr.layer(
            product.layers[_QUALITY],
            image,
            lambda v: np.asarray((v[list(bands)] > 0).any(axis=0)),
            least=8,
        )

    return {key: any_of(bands) for key, bands in _FLAGS.items()}
