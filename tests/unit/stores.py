"""Stores that several tests need, small and filled by hand."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from special_steps.core.prediction import write_prediction, write_prediction_strips
from special_steps.core.store import (
    UNKNOWN,
    Grid,
    _chunk_files,
    create_array,
    grid_of,
    new_store,
    read_array,
    write_array,
)

DIMS = {
    "reflectance": ("band", "y", "x"),
    "rgb": ("band", "y", "x"),
    "features": ("band", "y", "x"),
    "probabilities": ("class", "y", "x"),
    "nodata": ("y", "x"),
    "band": ("band",),
    "good_band": ("band",),
}


def make_store(path: Path, grid: Grid = UNKNOWN, **arrays: Any) -> Path:
    """A complete store of the arrays, whose dimensions follow from their names."""
    with new_store(path, step="test", settings={}, inputs=[], grid=grid) as group:
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
    return make_store(
        path,
        reflectance=reflectance.astype("f4"),
        band=np.array(wavelengths, float),
        good_band=np.ones(bands, bool) if good_bands is None else np.array(good_bands, bool),
        nodata=np.zeros((height, width), bool) if nodata is None else nodata,
    )


def make_rgb(path: Path, nodata: np.ndarray, image: np.ndarray | None = None) -> Path:
    """An RGB store without georeference."""
    image = np.full((3, *nodata.shape), 0.5, "f4") if image is None else image
    return make_store(path, rgb=image, band=np.array([655.0, 553, 451]), nodata=nodata)


def make_prediction(
    path: Path,
    probabilities: np.ndarray,
    class_names: list[str],
    nodata: np.ndarray | None = None,
    crs: str | None = None,
    transform: list[float] | None = None,
    witnesses: np.ndarray | None = None,
) -> Path:
    """Probabilities, labels and margin as fuse, warmup and refine write them."""
    nodata = np.zeros(probabilities.shape[1:], bool) if nodata is None else nodata
    write_prediction(
        path,
        probabilities,
        nodata,
        step="test",
        settings={},
        inputs=[],
        class_names=class_names,
        grid=Grid(crs, None if transform is None else tuple(transform)),
        witnesses=witnesses,
    )
    return path


def make_calibrated(
    path: Path,
    probabilities: np.ndarray,
    class_names: list[str],
    nodata: np.ndarray | None = None,
    confidence: float = 0.9,
    transform: list[float] | None = None,
) -> Path:
    """The same as cotrain writes it, everywhere as sure."""
    shape = probabilities.shape[1:]
    write_prediction_strips(
        path,
        [(probabilities, np.zeros(shape, bool) if nodata is None else nodata)],
        shape,
        step="test",
        settings={"known": {"witnesses": 2, "kappa": 0.5}},
        inputs=[],
        class_names=class_names,
        grid=Grid(None, None if transform is None else tuple(transform)),
        confidence=lambda part, rows: np.full(part.shape[1:], confidence, np.float32),
    )
    return path


def add_confidence(path: Path, confidence: Any) -> Path:
    """Give a finished prediction a calibrated confidence (y, x), or one for all pixels."""
    store = zarr.open_group(path)
    shape = store["labels"].shape
    create_array(store, "confidence", shape, ("y", "x"))[:] = confidence
    store.attrs["files"] = _chunk_files(path)  # open_store counts them: what was added is told
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of consolidated metadata, which Zarr's own format lacks
        zarr.consolidate_metadata(path)
    return path


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """(class, y, x) float32 probabilities whose argmax is `labels` (from 1)."""
    return (np.arange(1, classes + 1)[:, None, None] == labels).astype("f4")


def described(cube: zarr.Group) -> dict[str, Any]:
    """What a cube says of its bands, its place, and how it was made."""
    crs, transform = grid_of(cube)
    return {
        "wavelengths": read_array(cube, "band").tolist(),
        "good_bands": read_array(cube, "good_band").tolist(),
        "fwhm": read_array(cube, "fwhm").tolist() if "fwhm" in cube else None,
        "crs": crs,
        "transform": None if transform is None else list(transform),
        "provenance": cube.attrs["provenance"],
    }
