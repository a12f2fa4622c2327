"""Flight lines cut from the demo scene, as of one sensor or two."""

from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine

from special_steps.demo import header_fields
from special_steps.io.envi_header import envi_list, write_envi
from special_steps.simulated_scene.sensor import WAVELENGTHS, bad_bands

LABELS = {"water": 1, "trees": 2, "grass": 3, "bare soil": 4, "asphalt": 5, "roof": 6}
PIXEL = 2  # m


def cut_line(demo: Path, out: Path, rows: slice, nm: np.ndarray | None = None) -> None:
    """Write some rows of the demo scene as out.hdr and out.img, and their labels as out.tif.

    Args:
        demo: folder that the step demo wrote.
        out: path without suffix.
        rows: from top to bottom.
        nm: centres of another sensor's bands, all good; None for the demo's own.
    """
    with rasterio.open(demo / "scene.img") as raster:
        cube = raster.read()[:, rows]
    with rasterio.open(demo / "ground_truth.tif") as raster:
        place = raster.transform @ Affine.translation(0, rows.start)
        profile = raster.profile | {"height": cube.shape[1], "transform": place}
        labels = raster.read(1)[rows]
    with rasterio.open(out.with_suffix(".tif"), "w", **profile) as raster:
        raster.write(labels, 1)
    fields = dict(header_fields())
    fields["map info"] = f"{{UTM, 1, 1, {place.c}, {place.f}, {PIXEL}, {PIXEL}, 33, North, WGS-84}}"
    if nm is not None:
        own, cube = WAVELENGTHS[~bad_bands()], cube[~bad_bands()]
        empty = (cube == -9999).any(0)
        place = np.interp(nm, own, np.arange(len(own)))
        first = np.minimum(place.astype(int), len(own) - 2)
        share = (place - first)[:, None, None]
        between = (1 - share) * cube[first] + share * cube[first + 1]
        cube = np.where(empty, -9999, np.rint(between)).astype("i2")
        fields |= {
            "wavelength": envi_list(nm, ".1f"),
            "fwhm": envi_list(np.full(len(nm), 15.0), ".1f"),
        }
        del fields["bbl"]
    write_envi(out.with_suffix(".hdr"), cube, "a line of the demo scene", fields)


def line(name: str, **settings) -> dict:
    """A scene of the config for such a line, with ground truth."""
    truth = {"path": f"{name}.tif", "labels": LABELS}
    return {"cube": {"path": f"{name}.hdr"}, "ground_truth": truth} | settings


def cut_campaign(demo: Path, folder: Path) -> None:
    """The lines of the config CAMPAIGN: they overlap, the last is another sensor's."""
    own = WAVELENGTHS[~bad_bands()]
    between = (own[:-1] + own[1:])[np.diff(own) < 20] / 2
    folder.mkdir(parents=True, exist_ok=True)
    cut_line(demo, folder / "line1", slice(100, 160))
    cut_line(demo, folder / "line2", slice(50, 110))
    cut_line(demo, folder / "line3", slice(0, 60), between)
