"""Small synthetic NEON AOP files, as NEON's lessons list their contents."""

import math
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

SHAPE = (12, 9, 7)  # band, y, x
NM = np.array([383.5, 500, 700, 900, 1100, 1339, 1341, 1440, 1600, 1800, 1950, 2512.0])
WIDTHS = np.linspace(5.6, 6.4, 12)
CLASSES = (
    "geocoded background", "shadow", "thin cirrus (water)", "medium cirrus (water)",
    "thick cirrus (water)", "land (clear)", "saturated", "snow/ice", "thin cirrus (land)",
    "medium cirrus (land)", "thick cirrus (land)", "thin haze (land)", "medium haze (land)",
    "thin haze/glint (water)", "med. haze/glint (water)", "cloud (land)", "cloud (water)", "water",
    "cirrus cloud", "cirrus cloud (thick)", "bright", "topogr. shadow", "cloud (building) shadow",
)  # fmt: skip
VALUES = {  # of Haze_Cloud_Water_Map, by quality layer
    "cloud_shadow": (22,), "shadow": (1, 21), "cirrus": (2, 3, 4, 8, 9, 10, 18, 19), "snow": (7,),
    "haze": (11, 12, 13, 14), "cloud": (15, 16), "water": (17,),
}  # fmt: skip
TEXT = h5py.string_dtype("utf-8")


class Neon(NamedTuple):
    path: Path
    reflectance: np.ndarray  # band, y, x; NaN for no data; of a radiance file, radiances
    wavelengths: np.ndarray
    fwhm: np.ndarray
    good: np.ndarray | None
    epsg: int
    transform: tuple[float, ...]
    quality: dict[str, np.ndarray]


def values() -> tuple[np.ndarray, np.ndarray]:
    """Stored values, all different, int16, and where there are none (a corner of the swath)."""
    cube = (np.random.default_rng(7).permutation(np.prod(SHAPE)) + 50).reshape(SHAPE).astype("<i2")
    empty = np.add.outer(np.arange(SHAPE[1]), np.arange(SHAPE[2])) < 3
    return cube, empty


def turned(east: float, north: float, size: float, degrees: float) -> tuple[float, ...]:
    """Corners' transform of an image whose columns run `degrees` anticlockwise from east."""
    unit = complex(math.cos(math.radians(degrees)), math.sin(math.radians(degrees))) * size
    down = unit * complex(0, -1)
    return (unit.real, down.real, east, unit.imag, down.imag, north)


def write(
    folder: Path,
    *,
    name: str = "NEON_D17_SJER_DP3_257000_4112000_reflectance.h5",
    site: str = "SJER",
    rotation: float = 0,
    quality: bool = True,
    class_names: bool = True,
    copied_map: bool = False,
    radiance: bool = False,
    epsg: bool = True,
    lists: bool = False,
) -> Neon:
    """Write DP1.30006 or DP3.30006, or DP1.30008 (`radiance`); `lists`: scalars as arrays of length 1, as in crops."""
    path = folder / name
    cube, empty = values()
    hcw = (np.arange(SHAPE[1] * SHAPE[2]) % 23).reshape(SHAPE[1:]).astype("u1")

    def one(value):
        return np.array([value], object if isinstance(value, str) else None) if lists else value

    product = "Radiance" if radiance else "Reflectance"
    with h5py.File(path, "w") as file:
        main = file.create_group(f"{site}/{product}")
        yxb = np.where(empty, -9999, cube).astype("<i2").transpose(1, 2, 0)
        if radiance:
            whole, part = np.divmod(cube.astype(np.int64) * 1237, 50_000)
            parts = {}
            for key, data, kind, ignored in (
                ("RadianceIntegerPart", whole, "u1", 255),
                ("RadianceDecimalPart", part, "<u2", 65535),
            ):
                stored = np.where(empty, ignored, data).astype(kind).transpose(1, 2, 0)
                parts[key] = main.create_dataset(key, data=stored, chunks=(3, 4, 12))
                parts[key].attrs["Data_Ignore_Value"] = float(ignored)
            parts["RadianceDecimalPart"].attrs["Scale"] = 50_000.0
            right = whole + part / 50_000
        else:
            data = main.create_dataset(
                "Reflectance_Data",
                data=yxb,
                chunks=(3, 4, 5),
                compression="gzip",
                maxshape=yxb.shape,
            )
            data.attrs["Data_Ignore_Value"] = one(-9999.0)
            data.attrs["Scale_Factor"] = one(10000.0)
            data.attrs["Interleave"] = "BSQ"
            data.attrs["Dimension_Labels"] = "Line, Sample, Wavelength"
            data.attrs["Units"] = "Unitless."
            main.attrs["Band_Window_1_Nanometers"] = np.array([1340, 1445], "<i4")
            main.attrs["Band_Window_2_Nanometers"] = np.array([1790, 1955], "<i4")
            right = cube / 10_000
        spectral = main.create_group("Metadata/Spectral_Data")
        spectral["Wavelength"], spectral["FWHM"] = NM.astype("<f4"), WIDTHS.astype("<f4")
        for item in spectral.values():
            item.attrs["Units"] = "nanometers"
        system = main.create_group("Metadata/Coordinate_System")
        last = f"rotation={rotation:.4f}" if rotation else "0"
        system.create_dataset(
            "Map_Info",
            dtype=TEXT,
            data=one(
                "UTM,  1.000,  1.000,       257000.00,       4112000.0,       2.0000000,       2.0000000,"
                f"  11,  North,  WGS-84,  units=Meters, {last}"
            ),
        )
        if epsg:
            system.create_dataset("EPSG Code", data=one("32611"), dtype=TEXT)
        system.create_dataset(
            "Proj4",
            data="+proj=UTM +zone=11 +ellps=WGS84 +datum=WGS84 +units=m +no_defs",
            dtype=TEXT,
        )
        if quality and not radiance:
            images = main.create_group("Metadata/Ancillary_Imagery")
            item = images.create_dataset("Haze_Cloud_Water_Map", data=hcw, compression="gzip")
            if class_names:
                item.attrs["Class_Names"] = np.array(CLASSES, "S32")
            images["Dark_Dense_Vegetation_Classification"] = hcw if copied_map else hcw % 5
            images["Weather_Quality_Indicator"] = np.ones((*SHAPE[1:], 3), "u1")
    right = np.where(empty, np.nan, right)
    good = None if radiance else np.isin(np.arange(12), [6, 7, 9, 10], invert=True)
    layers = {name: np.isin(hcw, codes) for name, codes in VALUES.items()}
    present = quality and not radiance and not copied_map
    return Neon(
        path,
        right,
        NM,
        WIDTHS,
        good,
        32611,
        turned(257000, 4112000, 2, rotation),
        layers if present else {},
    )


def write_early(
    folder: Path,
    *,
    name: str = "NEONDSImagingSpectrometerData.h5",
    system: bool = True,
    as_text: bool = True,
) -> Neon:
    """Write the layout of 2013 to 2015: all in the root, numbers as text, wavelengths (1, band) in micrometres."""
    path = folder / name
    cube, empty = values()
    with h5py.File(path, "w") as file:
        data = file.create_dataset("Reflectance", data=np.where(empty, 15000, cube).astype("<i2"))
        data.attrs["Scale Factor"] = "10000.0" if as_text else 10000.0
        data.attrs["data ignore value"] = "15000.0"
        data.attrs["DIMENSION_LABELS"] = np.array(["Wavelength", "Line", "Sample"], "S10")
        data.attrs["row_col_band"] = np.array([*SHAPE[1:], SHAPE[0]], "<i4")
        file["wavelength"] = NM[None] / 1000
        file["fwhm"] = WIDTHS[None] / 1000
        file["map info"] = np.array(
            ["UTM,1,1,325963.0,4103482.0,1.0000000000e+000,1.0000000000e+000,11,North,WGS-84,units=Meters"], "S100"
        )  # fmt: skip
        if system:
            file["coordinate system string"] = np.array([ESRI.encode()])
        file.create_group("spatialInfo").attrs["xscale"] = 1.0
    right = np.where(empty, np.nan, cube / 10_000)
    return Neon(path, right, NM, WIDTHS, None, 32611, (1, 0, 325963, 0, -1, 4103482), {})


ESRI = (
    'PROJCS["UTM_Zone_11N",GEOGCS["GCS_WGS_1984",DATUM["D_WGS_1984",'
    'SPHEROID["WGS_1984",6378137.0,298.257223563]],PRIMEM["Greenwich",0.0],'
    'UNIT["Degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],'
    'PARAMETER["False_Easting",500000.0],PARAMETER["False_Northing",0.0],'
    'PARAMETER["Central_Meridian",-117.0],PARAMETER["Scale_Factor",0.9996],'
    'PARAMETER["Latitude_Of_Origin",0.0],UNIT["Meter",1.0]]'
)
