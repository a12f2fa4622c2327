"""Stores that several tests need, small and filled by hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from special_steps.core.prediction import write_prediction
from special_steps.core.store import new_store, write_array

DIMS = {
    "reflectance": ("band", "y", "x"),
    "rgb": ("band", "y", "x"),
    "probabilities": ("class", "y", "x"),
    "nodata": ("y", "x"),
}


def make_store(path: Path, attributes: Mapping[str, Any] | None = None, **arrays: Any) -> Path:
    """A complete store of the arrays, whose dimensions follow from their names."""
    with new_store(path, step="test", settings={}, inputs=[], attributes=attributes) as group:
        for name, data in arrays.items():
            write_array(group, name, data, DIMS[name])
    return path


def make_cube(
    path: Path,
    reflectance: np.ndarray,
    wavelengths: Any,
    good_bands: Any = None,
    nodata: np.ndarray | None = None,
) -> Path:
    """A cube as ingest writes it."""
    bands, height, width = reflectance.shape
    attributes = {
        "wavelengths": [float(w) for w in wavelengths],
        "good_bands": [True] * bands if good_bands is None else [bool(g) for g in good_bands],
        "crs": None,
        "transform": None,
    }
    nodata = np.zeros((height, width), bool) if nodata is None else nodata
    return make_store(path, attributes, reflectance=reflectance.astype("f4"), nodata=nodata)


def make_rgb(path: Path, nodata: np.ndarray, image: np.ndarray | None = None) -> Path:
    """An RGB store without georeference."""
    image = np.full((3, *nodata.shape), 0.5, "f4") if image is None else image
    return make_store(path, {"crs": None, "transform": None}, rgb=image, nodata=nodata)


def make_prediction(
    path: Path,
    probabilities: np.ndarray,
    class_names: list[str],
    nodata: np.ndarray | None = None,
    crs: str | None = None,
    transform: list[float] | None = None,
) -> Path:
    """Probabilities, labels and margin as fuse, warmup and refine write them."""
    nodata = np.zeros(probabilities.shape[1:], bool) if nodata is None else nodata
    attributes = {"class_names": class_names, "crs": crs, "transform": transform}
    write_prediction(
        path, probabilities, nodata, step="test", settings={}, inputs=[], attributes=attributes
    )
    return path


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """(class, y, x) float32 probabilities whose argmax is `labels` (from 1)."""
    return (np.arange(1, classes + 1)[:, None, None] == labels).astype("f4")
