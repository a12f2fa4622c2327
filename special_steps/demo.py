"""Demo: a simulated airborne scene of a small landscape, so that the workflow runs without a download."""

import logging
from pathlib import Path

import numpy as np

from special_steps.core.atomic import atomic_write
from special_steps.core.cli import run
from special_steps.io.envi_header import envi_list, write_envi
from special_steps.simulated_scene.landscape import (
    CLASSES,
    HEIGHT,
    PIXEL,
    WIDTH,
    draw_landscape,
    label_pixels,
)
from special_steps.simulated_scene.sensor import (
    WAVELENGTHS,
    add_noise,
    bad_bands,
    simulate_reflectance,
)

log = logging.getLogger("special")

SCALE, NODATA = 10_000, -9999
EAST, NORTH, EPSG = 372_000.0, 5_807_000.0, 32633  # upper left corner, UTM 33N
CRS = (
    'PROJCS["WGS_1984_UTM_Zone_33N",GEOGCS["GCS_WGS_1984",DATUM["D_WGS_1984",'
    'SPHEROID["WGS_1984",6378137.0,298.257223563]],PRIMEM["Greenwich",0.0],'
    'UNIT["Degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],'
    'PARAMETER["False_Easting",500000.0],PARAMETER["False_Northing",0.0],'
    'PARAMETER["Central_Meridian",15.0],PARAMETER["Scale_Factor",0.9996],'
    'PARAMETER["Latitude_Of_Origin",0.0],UNIT["Meter",1.0]]'
)


def simulate(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Simulate the scene as its files store it.

    Returns:
        Values (band, y, x) int16, reflectance x SCALE or NODATA; labels (y, x) uint8, from 1 by position in CLASSES,
        0 where no data.
    """
    rng = np.random.default_rng(seed)
    land, bank = draw_landscape(rng)
    cube = add_noise(rng, simulate_reflectance(rng, land, bank), bad_bands())
    stored = np.clip(np.round(cube * SCALE), -5000, 20_000).astype(np.int16)
    labels = label_pixels(land.kind)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    outside = 0.5 * x + y < 36  # the swath ends askew
    stored[:, outside], labels[outside] = NODATA, 0
    return stored, labels


def header_fields() -> dict[str, object]:
    """What the ENVI header says of values, place and bands."""
    place = f"{EAST}, {NORTH}, {PIXEL}, {PIXEL}"
    return {
        "reflectance scale factor": SCALE,
        "data ignore value": NODATA,
        "map info": f"{{UTM, 1, 1, {place}, 33, North, WGS-84, units=Meters}}",
        "coordinate system string": f"{{{CRS}}}",
        "wavelength units": "Nanometers",
        "wavelength": envi_list(WAVELENGTHS, ".1f"),
        "fwhm": envi_list(np.full(len(WAVELENGTHS), 15.0), ".1f"),
        "bbl": envi_list((~bad_bands()).astype(int), "d"),
    }


def write_labels(path: Path, labels: np.ndarray) -> None:
    """Write labels (y, x) uint8 as a GeoTIFF whose tags name the classes."""
    import rasterio

    with (
        atomic_write(path) as temporary,
        rasterio.open(
            temporary,
            "w",
            driver="GTiff",
            height=HEIGHT,
            width=WIDTH,
            count=1,
            dtype="uint8",
            nodata=0,
            compress="deflate",
            crs=f"EPSG:{EPSG}",
            transform=rasterio.Affine(PIXEL, 0, EAST, 0, -PIXEL, NORTH),
        ) as raster,
    ):
        raster.write(labels, 1)
        raster.update_tags(1, **{f"class_{i}": name for i, name in enumerate(CLASSES, 1)})


def demo(*, out: Path, seed: int) -> None:
    """Simulate the demo scene: scene.img with scene.hdr (ENVI), and ground_truth.tif with its labels.

    Args:
        out: folder to write the three files to
        seed: another seed is another landscape of the same kind
    """
    stored, labels = simulate(seed)
    write_labels(out / "ground_truth.tif", labels)
    description = "SPECIAL demo scene, simulated from the earthlib spectral library"
    write_envi(out / "scene.hdr", stored, description, header_fields())
    shares = np.bincount(labels.ravel(), minlength=len(CLASSES) + 1) / labels.size
    parts = zip(("no data", *CLASSES), shares, strict=True)
    log.info("demo scene: %s", ", ".join(f"{name} {100 * s:.1f} %" for name, s in parts))


if __name__ == "__main__":
    run(demo)
