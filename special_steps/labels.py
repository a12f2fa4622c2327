"""Labels that people give of some pixels, from the file that they drew to the scene's grid."""

import logging
from pathlib import Path

import numpy as np

from special_steps.core.cli import run
from special_steps.core.notes import gathered
from special_steps.core.store import (
    grid_of,
    new_store,
    open_store,
    read_array,
    write_array,
    write_names,
)
from special_steps.io.given_labels import read_given_labels

log = logging.getLogger("special")


def labels(*, cube: Path, file: Path, class_names: list[str], out: Path) -> None:
    """Bring labels that people give as points and polygons to the scene's grid.

    Args:
        cube: store made by ingest: grid and no-data mask.
        file: GeoPackage, GeoJSON or CSV with a column `class`.
        class_names: the scene's classes, in order.
        out: store to write: `labels`, 1..K where a label was given, else 0; what reading warns of in its attributes.
    """
    scene = open_store(cube, nodata=("y", "x"))
    nodata, grid = read_array(scene, "nodata"), grid_of(scene)
    with gathered() as told:
        shape = (nodata.shape[0], nodata.shape[1])
        found = read_given_labels(file, class_names, grid, shape, nodata)
    settings = {"class_names": class_names}
    with new_store(out, step="labels", settings=settings, inputs=[cube, file], grid=grid) as group:
        write_names(group, class_names)
        write_array(group, "labels", found, ("y", "x"))
        group.attrs["warnings"] = told
    counts = np.bincount(found.ravel(), minlength=len(class_names) + 1)[1:]
    each = ", ".join(f"{n} {name}" for name, n in zip(class_names, counts, strict=True) if n)
    log.info("labels of %d pixels: %s", counts.sum(), each)


if __name__ == "__main__":
    run(labels)
