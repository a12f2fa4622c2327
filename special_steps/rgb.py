"""Spectral interpolation: the RGB image that CLIP sees, from the cube's bands."""

from pathlib import Path

import numpy as np

from special_steps.core.cli import run
from special_steps.core.spectral import check_coverage, interpolate, joint_percentiles, stretch
from special_steps.core.store import (
    array_of,
    grid_of,
    new_store,
    open_store,
    read_array,
    tile_rows,
    write_array,
)


def rgb(*, cube: Path, out: Path, wavelengths: list[float], percentiles: list[float]) -> None:
    """Make the RGB image of a scene.

    Args:
        cube: store made by ingest.
        out: store to write, `rgb` (band, y, x) in [0, 1].
        wavelengths: wavelengths in nm of red, green and blue.
        percentiles: percentiles over all three bands that become 0 and 1.
    """
    store = open_store(cube, reflectance=("band", "y", "x"), nodata=("y", "x"))
    reflectance, nodata = array_of(store, "reflectance"), read_array(store, "nodata")
    good = np.flatnonzero(read_array(store, "good_band"))
    centres = read_array(store, "band")[good]
    check_coverage(centres, wavelengths, str(cube))

    image = np.empty((3, *nodata.shape), np.float32)
    for rows in tile_rows(len(nodata)):
        bands = np.asarray(reflectance[:, rows])[good]
        image[:, rows] = interpolate(bands, centres, wavelengths)
    stretch(image, joint_percentiles(lambda: (plane[~nodata] for plane in image), percentiles))
    image[:, nodata] = 0

    with new_store(
        out,
        step="rgb",
        settings={"wavelengths": wavelengths, "percentiles": percentiles},
        inputs=[cube],
        grid=grid_of(store),
    ) as group:
        write_array(group, "rgb", image, ("band", "y", "x"))
        write_array(group, "band", np.array(wavelengths, float), ("band",))
        write_array(group, "nodata", nodata, ("y", "x"))


if __name__ == "__main__":
    run(rgb)
