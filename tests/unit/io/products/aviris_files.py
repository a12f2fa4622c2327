"""Small synthetic AVIRIS deliveries: ENVI files whose data file has no suffix and whose map grid is rotated.

Names and headers as in AVIRIS-NG's L2 (ORNL DAAC, "Understanding AVIRIS-NG data in ENVI format with rotated grid", and
doi 10.3334/ORNLDAAC/1569) and AVIRIS classic's orthorectified radiance (JPL, "AVIRIS Distribution Document").
"""

import cmath
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

SHAPE = (6, 9, 5)  # band, y, x
NM = np.array([376.86, 500.07, 650.33, 900.7, 1600.1, 2500.55])
WIDTHS = np.array([5.57, 5.58, 5.6, 5.61, 5.7, 5.9])


class Delivery(NamedTuple):
    data: Path
    header: Path
    values: (
        np.ndarray
    )  # band, y, x; NaN for no data; of classic radiance, in microwatts / (cm2 nm sr)
    stored: np.ndarray  # band, y, x
    gains: np.ndarray | None  # classic: values = stored / gain
    epsg: int
    transform: tuple[float, ...]  # of corners


def rotated(
    east: float,
    north: float,
    width: float,
    height: float,
    degrees: float,
    reference: tuple[float, float] = (1, 1),
) -> tuple[float, ...]:
    """Corners' transform by ENVI's definition of `map info`.

    The reference pixel (x, y), counted from 1 at the image's upper left corner, lies at (east, north); the image is
    turned anticlockwise around it: at 0 columns run east and rows south, at 90 columns run north and rows east.
    """
    turn = cmath.exp(1j * math.radians(degrees))  # of the plane east + i north
    along_x, along_y = width * turn, -1j * height * turn
    origin = complex(east, north) - (reference[0] - 1) * along_x - (reference[1] - 1) * along_y
    return (along_x.real, along_y.real, origin.real, along_x.imag, along_y.imag, origin.imag)


def write_ng(
    folder: Path,
    *,
    degrees: float = 42,
    reference: tuple[float, float] = (1, 1),
    size: tuple[float, float] = (5.2, 5.2),
    cube: np.ndarray | None = None,
    nm: np.ndarray = NM,
) -> Delivery:
    """Write AVIRIS-NG reflectance: ang*_rfl_v*/ang*_corr_v*_img, float32 by line, -9999 outside the swath.

    Args:
        folder: where the delivery's own folder is made.
        degrees: see `rotated`.
        reference: the same.
        size: of a pixel, m.
        cube: (band, y, x) reflectance, NaN outside the swath; None: different values everywhere.
        nm: the bands' wavelengths.
    """
    folder = folder / "ang20170714t213741_rfl_v2p9"
    folder.mkdir(parents=True)
    data = folder / "ang20170714t213741_corr_v2p9_img"
    if cube is None:
        order = np.random.default_rng(3).permutation(math.prod(SHAPE)).reshape(SHAPE)
        stored = (order / 1000 - 0.01).astype("<f4")
        empty = np.add.outer(np.arange(SHAPE[1]), np.arange(SHAPE[2])) > 10
    else:
        stored, empty = cube.astype("<f4"), np.isnan(cube).all(0)
    stored[:, empty] = -9999
    data.write_bytes(stored.transpose(1, 0, 2).tobytes())
    place = (581226.666764, 7916192.56364)
    header = _header(
        data,
        f"data type = 4\ninterleave = bil\nbyte order = 0\ndata ignore value = -9999\n"
        f"{_map_info(reference, place, size, 4, degrees)}",
        stored.shape,
        nm,
    )
    right = np.where(empty, np.nan, stored.astype(np.float64))
    return Delivery(
        data, header, right, stored, None, 32604, rotated(*place, *size, degrees, reference)
    )


def write_classic(folder: Path, *, degrees: float = -86) -> Delivery:
    """Write AVIRIS classic radiance: f*_sc01_ort_img, big-endian int16 by pixel, scaled by the numbers in f*.gain."""
    folder = folder / "f110719t01p00r09rdn_b"
    folder.mkdir(parents=True)
    data = folder / "f110719t01p00r09rdn_b_sc01_ort_img"
    stored = (np.random.default_rng(4).permutation(math.prod(SHAPE)) * 37 + 11).reshape(SHAPE)
    empty = np.add.outer(np.arange(SHAPE[1]), np.arange(SHAPE[2])) < 3
    stored[:, empty] = -50
    data.write_bytes(stored.transpose(1, 2, 0).astype(">i2").tobytes())
    gains = np.array([300.0, 300, 300, 600, 600, 1200])
    lines = [f"{gain:10.4f} {band:5d}\n" for band, gain in enumerate(gains, 1)]
    (folder / "f110719t01p00r09rdn_b.gain").write_text("".join(lines))
    (folder / "f110719t01p00r09rdn_b.spc").write_text(
        "".join(
            f"{nm:.3f} {width:.3f} 0.1 0.1 {b}\n"
            for b, (nm, width) in enumerate(zip(NM, WIDTHS, strict=True), 1)
        )
    )
    place, size = (691415.705, 5974743.844), (15.6, 15.6)
    header = _header(
        data,
        f"data type = 2\ninterleave = bip\nbyte order = 1\n{_map_info((1, 1), place, size, 11, degrees)}",
    )
    right = np.where(empty, np.nan, stored / gains[:, None, None])
    return Delivery(
        data, header, right, stored.astype("i2"), gains, 32611, rotated(*place, *size, degrees)
    )


def _map_info(
    reference: tuple[float, float],
    place: tuple[float, float],
    size: tuple[float, float],
    zone: int,
    degrees: float,
) -> str:
    return (
        f"map info = {{ UTM , {reference[0]:.3f} , {reference[1]:.3f} , {place[0]:.6f} , {place[1]:.6f} ,"
        f" {size[0]:.10e} , {size[1]:.10e} , {zone} , North , WGS-84 , units=Meters ,"
        f" rotation={degrees:.8f} }}\n"
    )


def _header(data: Path, fields: str, shape: tuple[int, ...] = SHAPE, nm: np.ndarray = NM) -> Path:
    header = data.with_name(data.name + ".hdr")
    bands, lines, samples = shape
    widths = np.interp(nm, NM, WIDTHS)
    header.write_text(
        "ENVI\ndescription = {\n  AVIRIS orthocorrected}\n"
        f"samples = {samples}\nlines = {lines}\nbands = {bands}\nheader offset = 0\n"
        f"file type = ENVI Standard\n{fields}wavelength units = Nanometers\n"
        f"wavelength = {{ {' , '.join(f'{v:.6f}' for v in nm)} }}\n"
        f"fwhm = {{ {' , '.join(f'{v:.6f}' for v in widths)} }}\n"
    )
    return header
