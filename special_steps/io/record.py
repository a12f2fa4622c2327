"""What every reader returns: a raster as its file states it, before any of its values is read."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from special_steps.core.errors import UserError


@dataclass(frozen=True)
class Source:
    """A raster; `read(start, stop)` gives its rows as (band, row, x), in the stored dtype.

    A value in the file's units is `stored / scale + offset`. None stands for "the file does not say".
    """

    files: list[Path]
    shape: tuple[int, int, int]  # band, y, x
    read: Callable[[int, int], np.ndarray]
    wavelengths: np.ndarray | None = None  # (band,) nm
    fwhm: np.ndarray | None = None  # (band,) nm
    good_bands: np.ndarray | None = None  # (band,) bool
    scale: float | np.ndarray = 1.0  # one number or (band,)
    offset: float | np.ndarray = 0.0  # one number or (band,)
    nodata: float | None = None  # a stored value
    crs: str | None = None  # WKT
    transform: tuple[float, ...] | None = None  # affine map from (x, y) index to CRS, 6 numbers
    variables: dict[str, tuple[int, ...]] = field(default_factory=dict)  # shape of each, by name


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a format's library raises about a damaged file into one UserError naming it."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # SciPy, h5py, GDAL and zipfile each raise kinds of their own
        raise UserError(
            f"{path}: cannot be read, the file seems damaged or of another format"
            f" ({type(error).__name__}: {' '.join(str(error).split())[:200]}); get it again"
        ) from error
