"""Resolution scaling, second half: the scales' probabilities become pseudo-labels with margins."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.core.prediction import write_prediction
from special_steps.core.store import open_store


def fused(maps: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of the scales' class probabilities, normalised over classes.

    Args:
        maps: (class, y, x) float32 each, all of one shape, non-negative.

    Returns:
        (class, y, x) float32; rows that are zero everywhere become uniform.
    """
    total = maps[0].astype(np.float32, copy=True)
    for other in maps[1:]:
        total += other
    sums = total.sum(0)
    total[:, sums == 0] = 1 / len(total)
    return np.divide(total, sums, out=total, where=sums > 0)


def read_map(path: Path, class_names: list[str], nodata: np.ndarray) -> np.ndarray:
    """Read a map of class probabilities, ours or a user's.

    Args:
        path: store made by clip_scale; or .npz with `probs` (y, x, class); or a raster with one
            band per class, in the order of the config's classes.
        class_names: the scene's classes.
        nodata: (y, x) bool; the map's values there do not matter.

    Returns:
        (class, y, x) float32, 0 where no data.

    Raises:
        UserError: for another shape or number of classes, or values that are no probabilities.
    """
    if path.suffix == ".zarr":
        data = open_store(path, probabilities=("class", "y", "x"))["probabilities"][:]
    elif not path.is_file():
        raise UserError(f"{path}: no such file; set pseudo_labels to an existing one")
    elif path.suffix == ".npz":
        data = _read_npz(path)
    else:
        data = _read_raster(path)
    if data.shape != (len(class_names), *nodata.shape):
        raise UserError(
            f"{path}: {data.shape[0]} classes of {data.shape[1:]} pixels (y, x), but the scene has"
            f" {len(class_names)} classes ({', '.join(class_names)}) of {nodata.shape} pixels"
        )
    if data.dtype.kind not in "buif":
        raise UserError(f"{path}: holds {data.dtype} values; probabilities are numbers")
    data = np.where(nodata, np.float32(0), data.astype(np.float32))
    if not np.isfinite(data).all() or data.min() < 0:
        raise UserError(
            f"{path}: probabilities must be finite and not negative where the scene has data"
        )
    return data


def _read_npz(path: Path) -> np.ndarray:
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path}: not an .npz file, or cut short; write it with numpy.savez")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if "probs" not in arrays:
                held = ", ".join(arrays) or "nothing"
                raise UserError(f"{path}: no array 'probs' (y, x, class); it holds {held}")
            data = arrays["probs"]
    except (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: cannot be read as .npz ({error})") from error
    if data.ndim != 3:
        raise UserError(f"{path}: 'probs' has shape {data.shape}; it must be (y, x, class)")
    return data.transpose(2, 0, 1)


def _read_raster(path: Path) -> np.ndarray:
    import rasterio

    try:
        with rasterio.open(path) as raster:
            return raster.read()
    except rasterio.errors.RasterioError as error:
        raise UserError(f"{path}: cannot be read as a raster ({error})") from error


def fuse(*, maps: list[Path], rgb: Path, out: Path, class_names: list[str]) -> None:
    """Fuse maps of class probabilities into pseudo-labels.

    Args:
        maps: the scales' stores, or one file of your own.
        rgb: the scene's RGB store: its size, no-data mask and georeference.
        out: store to write.
        class_names: the scene's classes, in order.
    """
    scene = open_store(rgb, nodata=("y", "x"))
    nodata = scene["nodata"][:]
    loaded = [read_map(path, class_names, nodata) for path in maps]
    write_prediction(
        out,
        fused(loaded),
        nodata,
        step="fuse",
        settings={"class_names": class_names},
        inputs=[*maps, rgb],
        attributes={
            "class_names": class_names,
            "crs": scene.attrs["crs"],
            "transform": scene.attrs["transform"],
        },
    )


if __name__ == "__main__":
    run(fuse)
