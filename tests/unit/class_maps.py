"""Maps of classes that several tests need: as the workflow exports them, written here without the package."""

from pathlib import Path

import numpy as np
import rasterio

NAMES = ["water", "trees", "bare soil"]
CRS = "EPSG:32633"


def write_map(
    path: Path, labels: np.ndarray, names=NAMES, crs=CRS, side=10.0, unknown=False
) -> Path:
    """A class map whose upper left corner is (300000, 5800000), with names in its tags.

    With `unknown`, the last of the names are the pixels without a class.
    """
    place = {"crs": crs, "transform": rasterio.Affine(side, 0, 300000, 0, -side, 5800000)}
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=labels.shape[0], width=labels.shape[1],
        dtype="uint8", nodata=0, **(place if crs else {}),
    ) as raster:  # fmt: skip
        raster.write(labels.astype(np.uint8), 1)
        raster.update_tags(**{f"CLASS_{i}": name for i, name in enumerate(names, 1)})
        if unknown:
            raster.update_tags(UNKNOWN=str(len(names)))
    return path


def some_labels(height=40, width=60, seed=0) -> np.ndarray:
    """Three classes of unequal sizes in stripes, some noise, and no data at the left."""
    generator = np.random.default_rng(seed)
    labels = np.repeat([1, 2, 2, 3, 3, 3], width // 6)[None].repeat(height, 0)
    noisy = generator.random(labels.shape) < 0.1
    labels[noisy] = generator.integers(1, 4, noisy.sum())
    labels[:, :3] = 0
    return labels.astype(np.uint8)
