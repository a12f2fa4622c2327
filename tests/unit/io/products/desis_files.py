"""A small DESIS L2A or L1C product as the specification PAV-DLR-ICD-003 has it, and what is right of it."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

STEM = "DESIS-HSI-{level}-DT0707652640_011-20220404T193259-V0220"
EPSG = 32611
TRANSFORM = (30.0, 0.0, 398115.0, 0.0, -30.0, 3761985.0)
SHAPE = (6, 8)
FILL = -32768


class Product(NamedTuple):
    folder: Path
    image: Path
    metadata: Path
    values: np.ndarray  # (band, y, x) reflectance 0 to 1, or radiance; NaN where no data
    wavelengths: np.ndarray
    fwhm: np.ndarray
    quality: dict[str, np.ndarray]


def write(folder: Path, level: str = "L2A", bands: int = 12) -> Product:
    """Write the product into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = STEM.format(level=level)
    wavelengths = np.round(401.9 + 2.55 * np.arange(bands), 3)
    fwhm = np.round(3.3 + 0.01 * np.arange(bands), 3)
    stored = (7 + 3 * np.arange(bands * SHAPE[0] * SHAPE[1])).reshape(bands, *SHAPE)
    stored[:, :2, 0] = FILL
    gains = np.full(bands, 1e-4) if level == "L2A" else 2e-4 * (1 + np.arange(bands) / 9)
    offsets = np.zeros(bands) if level == "L2A" else 0.02 * np.arange(bands)
    by_band = (slice(None), None, None)
    values = np.where(stored == FILL, np.nan, stored * gains[by_band] + offsets[by_band])
    image = folder / f"{stem}-SPECTRAL_IMAGE.tif"
    _tiff(image, stored.astype(np.int16), FILL, interleave="pixel", compress="deflate")
    flags = np.random.default_rng(3).integers(0, 2, (10, *SHAPE)).astype(np.uint8)
    flags[8:] = 40  # aerosol, water vapour
    quality = {
        "cloud_shadow": flags[0] == 1,
        "snow": flags[2] == 1,
        "haze": (flags[3] | flags[4]) == 1,
        "cloud": (flags[5] | flags[6]) == 1,
        "water": flags[7] == 1,
    }
    if level == "L2A":
        _tiff(folder / f"{stem}-QL_QUALITY-2.tif", flags, None)
    _tiff(folder / f"{stem}-QL_QUALITY.tif", np.zeros((bands, *SHAPE), np.uint8), None)
    _tiff(folder / f"{stem}-QL_IMAGE.tif", np.zeros((3, *SHAPE), np.uint8), None)
    (folder / f"{stem}-HISTORY.xml").write_text("<history/>")
    metadata = folder / f"{stem}-METADATA.xml"
    metadata.write_text(_xml(wavelengths, fwhm, gains, offsets))
    return Product(
        folder, image, metadata, values, wavelengths, fwhm, quality if level == "L2A" else {}
    )


def _tiff(path: Path, cube: np.ndarray, nodata: float | None, **options: str) -> None:
    import rasterio

    count, height, width = cube.shape
    sizes = {"count": count, "height": height, "width": width, "dtype": cube.dtype}
    place = {"crs": f"EPSG:{EPSG}", "transform": rasterio.Affine(*TRANSFORM)}
    form = {"driver": "GTiff", "nodata": nodata, **options}
    with rasterio.open(path, "w", **form, **sizes, **place) as raster:
        raster.write(cube)


def _xml(wavelengths: np.ndarray, fwhm: np.ndarray, gains: np.ndarray, offsets: np.ndarray) -> str:
    described = list(zip(wavelengths, fwhm, gains.tolist(), offsets.tolist(), strict=True))
    bands = "".join(
        f"<band><bandNumber>{i}</bandNumber><wavelengthCenterOfBand>{w}</wavelengthCenterOfBand>"
        f"<wavelengthWidthOfBand>{f}</wavelengthWidthOfBand>"
        f"<response>0.1,1.0,0.1</response><wavelengths>{w - 3},{w},{w + 3}</wavelengths>"
        f"<gainOfBand>{g!r}</gainOfBand><offsetOfBand>{o!r}</offsetOfBand>"
        "<deadPixels>0</deadPixels><suspiciousPixel>1</suspiciousPixel></band>\n"
        for i, (w, f, g, o) in reversed(list(enumerate(described, 1)))
    )
    orientation = "".join(f"<band><bandNumber>{i}</bandNumber></band>" for i in range(1, 4))
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<hsi_doc xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<base><backgroundValue>{FILL}</backgroundValue></base>
<specific>
<interiorOrientation>{orientation}</interiorOrientation>
<bandCharacterisation>
{bands}</bandCharacterisation>
</specific>
</hsi_doc>
"""
