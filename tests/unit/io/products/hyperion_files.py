"""A small EO-1 Hyperion L1T product as USGS' README (January 2013) has it, and what is right of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

SCENE = "EO1H0380332014325110PZ"
EPSG = 32612
TRANSFORM = (30.0, 0.0, 332385.0, 0.0, -30.0, 4321815.0)
SHAPE = (8, 5)
CENTRES = {  # nm, a few of USGS' table
    1: 355.59, 8: 426.82, 20: 548.92, 56: 915.23, 57: 925.41, 58: 935.58, 70: 1057.68, 71: 851.92,
    77: 912.45, 78: 922.54, 79: 932.64, 150: 1648.90, 224: 2395.50, 242: 2577.08,
}  # fmt: skip
WIDTHS = {8: 11.3871, 20: 11.0245, 57: 11.2754, 79: 11.0457, 150: 11.5133, 224: 10.4077}


class Product(NamedTuple):
    folder: Path
    metadata: Path
    numbers: list[int]  # of the calibrated bands there
    values: np.ndarray  # (band, y, x) radiance, W/m2/sr/um
    good: np.ndarray
    masked: np.ndarray


def write(
    folder: Path, numbers: Sequence[int] = tuple(CENTRES), level: str = "L1T", scene: str = SCENE
) -> Product:
    """Write the bands of these numbers and the metadata into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    outside = np.zeros(SHAPE, bool)
    outside[:, 0] = outside[:3, 1] = True
    cubes, kept = [], []
    for number in numbers:
        stored = (number * 50 + np.arange(SHAPE[0] * SHAPE[1])).reshape(SHAPE)
        stored[outside] = 0
        stored[5, 3] = 0 if number in (77, 150) else -4  # real values
        calibrated = 8 <= number <= 57 or 77 <= number <= 224
        if calibrated:
            kept.append(number)
            cubes.append(stored / (40 if number <= 70 else 80))
        _tiff(folder / f"{scene}_B{number:03d}_{level}.TIF", stored * calibrated)
    metadata = folder / f"{scene}_MTL_{level}.TXT"
    metadata.write_text(_text(scene, level))
    (folder / "README.txt").write_text("USGS EARTH OBSERVING-1 (EO-1)\n")
    return Product(folder, metadata, kept, np.array(cubes), ~np.isin(kept, (77, 78)), outside)


def _tiff(path: Path, band: np.ndarray) -> None:
    import rasterio

    sizes = {"count": 1, "height": SHAPE[0], "width": SHAPE[1], "dtype": "int16"}
    place = {"crs": f"EPSG:{EPSG}", "transform": rasterio.Affine(*TRANSFORM)}
    with rasterio.open(path, "w", driver="GTiff", **sizes, **place) as raster:
        raster.update_tags(
            AREA_OR_POINT="Point"
        )  # as USGS writes it; corners are meant all the same
        raster.write(band.astype(np.int16), 1)


def _text(scene: str, level: str) -> str:
    return f"""GROUP = L1_METADATA_FILE
  GROUP = PRODUCT_METADATA
    PRODUCT_TYPE = "{level}"
    SPACECRAFT_ID = "EO1"
    SENSOR_ID = "HYPERION"
    ACQUISITION_DATE = 2014-11-21
    BAND1_FILE_NAME = "{scene}_B001_{level}.TIF"
  END_GROUP = PRODUCT_METADATA
  GROUP = RADIANCE_SCALING
    SCALING_FACTOR_VNIR = 40.000000
    SCALING_FACTOR_SWIR = 80.000000
  END_GROUP = RADIANCE_SCALING
END_GROUP = L1_METADATA_FILE
END
"""
