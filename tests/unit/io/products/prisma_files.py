"""Small PRISMA products, laid out as listings of real files and the readers named in the module have them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

LINES, SAMPLES = 7, 5
EPSG = 32632
UL, LR = (500010.0, 4500000.0), (500010.0 + 30 * (SAMPLES - 1), 4500000.0 - 30 * (LINES - 1))
# not acquired bands are 0: at the head of VNIR, at the end of SWIR
CENTRES = {
    "Vnir": np.array([0, 0, 0, 972.65, 951.38, 929.4, 665.1, 560.2, 402.45], np.float32),
    "Swir": np.array([2496.9, 2202.2, 1606.2, 1017.99, 978.7, 959.5, 942.96, 0, 0], np.float32),
}
WIDTHS = {
    "Vnir": np.array([0, 0, 0, 12.9, 13.5, 12.8, 11.9, 10.1, 11.4], np.float32),
    "Swir": np.array([9.5, 10.2, 13.3, 13.7, 13.9, 14.1, 10.9, 0, 0], np.float32),
}
RANGES = {"Vnir": (0.0, 1.2), "Swir": (-0.1, 0.9)}  # L2Scale...Min, Max
PADDED = [(0, 0), (0, 1), (LINES - 1, SAMPLES - 1)]  # outside of the acquired strip
ZERO = (2, 3)  # in the first SWIR band only: a negative value, no missing pixel
DEFECTIVE, NEGATIVE, SATURATED = (3, 1), (4, 2), (5, 0)  # line, sample


class Product(NamedTuple):
    """Where it is, and what is right, by band in ascending order of wavelength."""

    path: Path
    values: np.ndarray  # (band, y, x) reflectance or radiance
    wavelengths: np.ndarray  # (band,) nm
    fwhm: np.ndarray  # (band,) nm
    good: np.ndarray  # (band,) bool
    missing: np.ndarray  # (y, x) bool
    epsg: int | None
    transform: tuple[float, ...] | None  # of pixel corners
    quality: dict[str, np.ndarray]  # (y, x) bool, by name


def write(
    folder: Path,
    level: str = "2D",
    *,
    name: str | None = None,
    outer_corners: bool = False,
    absent: tuple[str, ...] = (),
    attributes: Mapping[str, Any] | None = None,
    centres: Mapping[str, np.ndarray] = CENTRES,
    cubes: Mapping[str, np.ndarray] | None = None,
) -> Product:
    """Write one file.

    Args:
        folder: is made if need be.
        level: "1", "2B", "2C" or "2D".
        name: of the file; None for the product's own.
        outer_corners: attributes state the outer corners of the corner pixels, not their centres.
        absent: datasets and root attributes to leave out, by last part of their name.
        attributes: other values of root attributes.
        centres: the bands' wavelengths by detector, as stored.
        cubes: reflectance of L2D by detector, (band, y, x), NaN in all bands outside of the acquired strip; no pixel is
            defective then. None: different values everywhere.
    """
    content = _numbers(level) if cubes is None else _content(centres, cubes)
    folder.mkdir(parents=True, exist_ok=True)
    kind = "STD_OFFL" if level == "1" else "STD"
    path = folder / (name or f"PRS_L{level}_{kind}_20200524103704_20200524103708_0001.he5")
    with h5py.File(path, "w") as file:
        root = _root(level, outer_corners, content) | dict(attributes or {})
        for key, value in root.items():
            if key not in absent:
                file.attrs[key] = value
        structure = np.bytes_(b"GROUP=SwathStructure\nEND_GROUP=SwathStructure\n")
        file["HDFEOS INFORMATION/StructMetadata.0"] = structure
        for swath in ("HCO", "HRC") if level == "1" else ("HCO",):
            for key, value in _swath(level, content, shift=int(swath == "HRC")).items():
                if key.rsplit("/", 1)[1] not in absent:
                    file[f"HDFEOS/SWATHS/PRS_L{level}_{swath}/{key}"] = value
        pan = np.arange(36 * content.padded.size).reshape([6 * n for n in content.padded.shape])
        file[f"HDFEOS/SWATHS/PRS_L{level}_PCO/Data Fields/Cube"] = pan.astype(np.uint16)
    return _right(path, level, content)


class _Content(NamedTuple):
    centres: Mapping[str, np.ndarray]
    cubes: Mapping[str, np.ndarray]  # stored values, (line, band, sample)
    padded: np.ndarray  # (line, sample) bool
    flawed: bool  # whether some pixels are defective


def _content(centres: Mapping[str, np.ndarray], cubes: Mapping[str, np.ndarray]) -> _Content:
    """Reflectances (band, y, x) as they are stored."""
    stored = {}
    for n, cube in cubes.items():
        low, high = RANGES[n]
        numbers = np.clip(np.round((cube - low) / (high - low) * 65535), 1, 65535)
        stored[n] = np.nan_to_num(numbers).astype(np.uint16).transpose(1, 0, 2)
    return _Content(centres, stored, np.isnan(cubes["Vnir"]).all(0), False)


def _numbers(level: str) -> _Content:
    """Stored values that are all different."""
    padded = np.zeros((LINES, SAMPLES), bool)
    if level == "2D":
        padded[tuple(np.transpose(PADDED))] = True
    return _Content(CENTRES, {n: _numbers_of(n, level) for n in CENTRES}, padded, True)


def _numbers_of(name: str, level: str) -> np.ndarray:
    """Stored values of a detector, (line, band, sample)."""
    bands, start = len(CENTRES[name]), {"Vnir": 5000, "Swir": 20000}[name]
    cube = start + 7 * np.arange(LINES * bands * SAMPLES).reshape(LINES, bands, SAMPLES)
    cube[:, CENTRES[name] == 0] = 0
    if level == "2D":
        for line, sample in PADDED:
            cube[line, :, sample] = 0
    if name == "Swir":
        cube[ZERO[0], 0, ZERO[1]] = 0
    return cube.astype(np.uint16)


def _root(level: str, outer_corners: bool, content: _Content) -> dict[str, Any]:
    root: dict[str, Any] = {
        "Processing_Level": np.bytes_(level),
        "Product_ID": np.bytes_("PRS_L1_STD" if level == "1" else f"PRS_L{level}_STD"),
        "Product_StartTime": np.bytes_("2020-05-24T10:37:04.140000"),
        "Product_StopTime": np.bytes_("2020-05-24T10:37:08.460000"),
        "Sun_azimuth_angle": np.float32(140.5),
        "Sun_zenith_angle": np.float32(27.25),
    }
    for n, centres in content.centres.items():
        root[f"List_Cw_{n}"] = centres.astype(np.float32)
        root[f"List_Fwhm_{n}"] = _widths(n, centres)
        root[f"List_Cw_{n}_Flags"] = (centres > 0).astype(np.uint8)
        if level == "1":
            root[f"ScaleFactor_{n}"], root[f"Offset_{n}"] = np.float32(100), np.float32(0.5)
        else:
            for end, limit in zip(("Min", "Max"), RANGES[n], strict=True):
                root[f"L2Scale{n}{end}"] = np.float32(limit)
    if level == "2D":
        half = 15.0 if outer_corners else 0.0
        lines, samples = content.padded.shape
        west, north = UL[0] - half, UL[1] + half
        east, south = UL[0] + 30 * (samples - 1) + half, UL[1] - 30 * (lines - 1) - half
        root["Epsg_Code"] = np.uint32(EPSG)
        root["Projection_Id"], root["Projection_Name"] = np.bytes_("UTM"), np.bytes_("UTM32N")
        for corner, (x, y) in {
            "UL": (west, north),
            "UR": (east, north),
            "LL": (west, south),
            "LR": (east, south),
        }.items():
            root[f"Product_{corner}corner_easting"] = np.float32(x)
            root[f"Product_{corner}corner_northing"] = np.float32(y)
    return root


def _widths(detector: str, centres: np.ndarray) -> np.ndarray:
    if centres is CENTRES[detector]:
        return WIDTHS[detector]
    return np.where(centres > 0, 12, 0).astype(np.float32)


def _swath(level: str, content: _Content, shift: int) -> dict[str, np.ndarray]:
    cubes = content.cubes
    fields = {f"Data Fields/{n.upper()}_Cube": np.roll(c, shift, 2) for n, c in cubes.items()}
    matrix = "PIXEL_SAT_ERR_MATRIX" if level == "1" else "PIXEL_L2_ERR_MATRIX"
    for n, cube in cubes.items():
        errors = np.zeros(cube.shape, np.uint8)
        fields[f"Data Fields/{n.upper()}_{matrix}"] = errors
        if not content.flawed:
            continue
        errors[DEFECTIVE[0], :, DEFECTIVE[1]] = 1
        # negative in L2, of lower confidence in L1: no defect
        errors[NEGATIVE[0], :, NEGATIVE[1]] = 3 if level == "1" else 2
        errors[SATURATED[0], :, SATURATED[1]] = 2 if level == "1" else 3
        errors[1, 4, 4] = 1  # in one good band of 11, and one of the overlap: less than a tenth
        errors[2, 5, 4] = 1  # in two good bands, one of each detector
        errors[6, 0 if n == "Vnir" else 8, 0] = 1  # in a band that was not acquired
    y, x = np.mgrid[tuple(slice(n) for n in content.padded.shape)]
    lonlat = {"Latitude": 40.64 - 0.0003 * y, "Longitude": 9.0 + 0.0004 * x}
    if level == "1":
        for key, value in lonlat.items():
            for n in ("VNIR", "SWIR"):
                fields[f"Geolocation Fields/{key}_{n}"] = value.astype(np.float32)
        cover = (y + 2 * x) % 7  # all classes, 0 to 6
        cover[0, 0], cover[1, 1] = 255, 10
        cloud = ((y * x) % 3 == 1).astype(np.uint8)
        cloud[0, 0], cloud[2, 0] = 255, 10
        fields["Data Fields/Cloud_Mask"] = cloud
        fields["Data Fields/LandCover_Mask"] = cover.astype(np.uint8)
        fields["Data Fields/SunGlint_Mask"] = np.zeros(y.shape, np.uint8)
        return fields
    fields |= {f"Geolocation Fields/{k}": v.astype(np.float32) for k, v in lonlat.items()}
    for key in ("Solar_Zenith_Angle", "Observing_Angle", "Rel_Azimuth_Angle"):
        angle = np.where(content.padded, 0, 27)
        fields[f"Geometric Fields/{key}"] = angle.astype(np.float32)
    return fields


def _right(path: Path, level: str, content: _Content) -> Product:
    cubes = content.cubes
    by_detector = [content.centres[n].astype(np.float32) for n in cubes]
    centres = np.concatenate(by_detector).astype(np.float64)
    widths = np.concatenate([_widths(n, content.centres[n]) for n in cubes]).astype(np.float64)
    values = []
    for n, cube in cubes.items():
        low, high = (float(np.float32(v)) for v in RANGES[n])
        stored = cube.transpose(1, 0, 2).astype(np.float64)
        values.append(stored / 100 - 0.5 if level == "1" else low + stored * (high - low) / 65535)
    vnir = np.repeat([True, False], [len(c) for c in by_detector])
    good = ~(vnir & (centres >= centres[~vnir & (centres > 0)].min()))
    order = [i for i in np.argsort(centres) if centres[i] > 0]
    defective = np.zeros(content.padded.shape, bool)
    if content.flawed:
        defective[DEFECTIVE] = defective[SATURATED] = defective[2, 4] = True
    quality = {"defective": defective}
    if level == "1":
        with h5py.File(path) as file:
            fields = file["HDFEOS/SWATHS/PRS_L1_HCO/Data Fields"]
            if "Cloud_Mask" in fields:
                quality["cloud"] = fields["Cloud_Mask"][:] == 1
            if "LandCover_Mask" in fields:
                quality["water"] = fields["LandCover_Mask"][:] == 0
                quality["snow"] = fields["LandCover_Mask"][:] == 1
    return Product(
        path=path,
        values=np.concatenate(values)[order],
        wavelengths=centres[order],
        fwhm=widths[order],
        good=good[order],
        missing=content.padded,
        epsg=EPSG if level == "2D" else None,
        transform=(30.0, 0.0, UL[0] - 15, 0.0, -30.0, UL[1] + 15) if level == "2D" else None,
        quality=quality,
    )
