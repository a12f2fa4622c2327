"""What every reader returns: a raster as its file states it, before any of its values is read."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from special_steps.core.errors import UserError

Window = Callable[[slice, slice], np.ndarray]  # rows, columns -> values there


@dataclass(frozen=True)
class Source:
    """A raster; `read(rows, columns)` gives a window of it as (band, row, column), in the stored dtype.

    A value in the file's units is `stored / scale + offset`. None stands for "the file does not say". What the file
    states in a way that cannot be used is None too, and `doubts` says why: whoever needs it and was not told by the
    user raises that. What a user must know in any case is in `notes`.
    """

    files: list[Path]  # all that it is read from, headers and sidecars too
    shape: tuple[int, int, int]  # band, y, x
    read: Window
    wavelengths: np.ndarray | None = None  # (band,) nm
    fwhm: np.ndarray | None = None  # (band,) nm
    good_bands: np.ndarray | None = None  # (band,) bool
    scale: float | np.ndarray = 1.0  # one number or (band,)
    offset: float | np.ndarray = 0.0  # one number or (band,)
    nodata: tuple[float, ...] = ()  # stored values that mean no data
    masked: Window | None = None  # (row, column) bool: no data there, besides what `nodata` says
    quality: Mapping[str, Window] = field(
        default_factory=dict
    )  # name: (row, column) bool, such as cloud
    crs: str | None = None  # WKT2
    transform: tuple[float, ...] | None = (
        None  # affine map from (x, y) index to CRS, 6 numbers; of corners
    )
    variables: dict[str, tuple[int, ...]] = field(default_factory=dict)  # shape of each, by name
    doubts: Mapping[str, str] = field(
        default_factory=dict
    )  # a field's name: why the file's cannot be used
    notes: tuple[str, ...] = ()  # one line each
    kind: str = ""  # what the file is, such as "EnMAP L2A"
    photometric: str = ""  # of a raster: rgb, palette or grey where its file says so
    colours: Mapping[int, tuple[int, int, int, int]] | None = (
        None  # palette: red, green, blue, alpha
    )

    def whole(self) -> np.ndarray:
        """All of it, (band, y, x)."""
        return self.read(slice(0, self.shape[1]), slice(0, self.shape[2]))


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


def small_file(path: Path, most: int = 64 << 20) -> Path:
    """The path of a text that is read as a whole, such as a product's metadata, once it is known to be one.

    Raises:
        UserError: for a folder, a device or pipe, and for more than `most` bytes.
    """
    if not path.is_file():
        raise UserError(f"{path}: no file (a folder, device or pipe), or none there; give a file")
    if path.stat().st_size > most:
        raise UserError(
            f"{path}: {path.stat().st_size} bytes are too many for such a file, {most} at most; get it again"
        )
    return path
