"""Small Tanager scenes, laid out as Planet's Tanager Product Specification (November 2025) has them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

BANDS, HEIGHT, WIDTH = 9, 7, 5
EPSG = 32613
UL = (570300.0, 3555450.0)  # of the specification's example
FILL = -9999.0
GOOD = np.array([1, 1, 1, 1, 0, 0, 1, 1, 1], np.uint8)


class Product(NamedTuple):
    """Where it is, and what is right."""

    path: Path
    values: np.ndarray  # (band, y, x) float32
    wavelengths: np.ndarray  # (band,) nm
    fwhm: np.ndarray  # (band,) nm
    good: np.ndarray | None  # (band,) bool
    masked: np.ndarray  # (y, x) bool
    epsg: int | None
    transform: tuple[float, ...] | None  # of pixel corners
    quality: dict[str, np.ndarray]  # (y, x) bool, by name


def write(
    folder: Path,
    asset: str = "ortho_sr",
    *,
    name: str | None = None,
    absent: tuple[str, ...] = (),
    attributes: Mapping[str, Any] | None = None,
    structure: str | None = None,
) -> Product:
    """Write one file.

    Args:
        folder: is made if need be.
        asset: "ortho_sr", "basic_sr", "ortho_radiance" or "basic_radiance".
        name: of the file; None for the product's own.
        absent: datasets and attributes to leave out, by name.
        attributes: other values of the cube's and the grid's attributes.
        structure: other text of StructMetadata.0.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (name or f"20250608_091605_90_4001_{asset}_hdf5.h5")
    ortho, reflectance = asset.startswith("ortho"), asset.endswith("sr")
    group = "HDFEOS/GRIDS/HYP" if ortho else "HDFEOS/SWATHS/HYP"
    values = 0.05 + 0.001 * np.arange(BANDS * HEIGHT * WIDTH, dtype=np.float32)
    values = values.reshape(BANDS, HEIGHT, WIDTH)
    if reflectance:
        values[GOOD == 0] = -0.01
    else:
        values *= 40
    nodata = np.zeros((HEIGHT, WIDTH), np.uint8)
    cloud, cirrus = nodata.copy(), nodata.copy()
    cloud[1:3, 2:4] = 1
    cirrus[4, 1:] = 1
    if ortho:
        nodata[0, :2], nodata[6, 4] = 1, 255
        values[:, nodata != 0] = FILL
        cloud[nodata != 0] = cirrus[nodata != 0] = 255
    nm = np.linspace(376.4, 2499.0, BANDS).astype(np.float32)
    fwhm = (5.3 + 0.1 * np.arange(BANDS)).astype(np.float32)
    stated: dict[str, Any] = {
        "wavelengths": nm,
        "wavelengths_units": "nm",
        "fwhm": fwhm,
        "fwhm_units": "nm",
        "Unit": "unitless" if reflectance else "W/(m^2 sr um)",
        "_FillValue": np.float32(FILL),
    }
    if reflectance:
        stated["good_wavelengths"] = GOOD
    else:
        stated["applied_radiometric_coefficients"] = np.ones(BANDS, np.float32)
    grid: dict[str, Any] = {"strip_id": "9001", "created_at": "2025-06-08T12:00:00Z"}
    if ortho:
        grid["epsg_code"] = np.int64(EPSG)
    changed = dict(attributes or {})

    with h5py.File(path, "w") as file:
        fields = file.create_group(f"{group}/Data Fields")
        file[group].attrs.update(_kept(grid, changed, absent))
        main = "surface_reflectance" if reflectance else "toa_radiance"
        for cube, shift in ((main, 0.0), (f"{main}_uncertainty", 0.5)):
            if cube in absent or (shift and not reflectance):
                continue
            array = fields.create_dataset(
                cube, data=values + np.float32(shift), chunks=(3, 4, 5), compression="gzip"
            )
            array.attrs.update(_kept(stated, changed, absent))
        layers = {"nodata_pixels": nodata, "beta_cloud_mask": cloud, "beta_cirrus_mask": cirrus}
        for key, layer in layers.items():
            if key not in absent:
                fields.create_dataset(key, data=layer).attrs["_FillValue"] = np.uint8(255)
        for key in ("sensor_zenith", "sensor_azimuth", "sun_zenith", "sun_azimuth"):
            fields[key] = np.full((HEIGHT, WIDTH), 20, np.float32)
        if not ortho:
            located = file.create_group(f"{group}/Geolocation Fields")
            located["Latitude"] = np.linspace(32, 32.1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
            located["Longitude"] = np.linspace(-104, -103, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
            located.attrs["Planet_Ortho_Framing"] = (
                '{"epsg_code": 32613, "rows": 9, "cols": 8,'
                ' "geotransform": [570300.0, 30.0, 0.0, 3555450.0, 0.0, -30.0]}'
            )
        file["HDFEOS INFORMATION/StructMetadata.0"] = np.bytes_(
            (structure if structure is not None else _structure(ortho)).encode()
        )
    return Product(
        path=path,
        values=values,
        wavelengths=nm.astype(np.float64),
        fwhm=fwhm.astype(np.float64),
        good=GOOD == 1 if reflectance else None,
        masked=nodata != 0,
        epsg=EPSG if ortho else None,
        transform=(30.0, 0.0, UL[0], 0.0, -30.0, UL[1]) if ortho else None,
        quality={"cloud": cloud == 1, "cirrus": cirrus == 1},
    )


def _kept(
    given: dict[str, Any], changed: dict[str, Any], absent: tuple[str, ...]
) -> dict[str, Any]:
    return {k: changed.get(k, v) for k, v in given.items() if k not in absent}


def _structure(ortho: bool) -> str:
    if not ortho:
        return 'GROUP=SwathStructure\n\tGROUP=SWATH_1\n\t\tSwathName="HYP"\n\tEND_GROUP=SWATH_1\n'
    return (
        "GROUP=SwathStructure\nEND_GROUP=SwathStructure\nGROUP=GridStructure\n\tGROUP=GRID_1\n"
        f'\t\tGridName="HYP"\n\t\tBand={BANDS}\n\t\tXDim={WIDTH}\n\t\tYDim={HEIGHT}\n'
        f"\t\tUpperLeftPointMtrs=({UL[0]:.2f},{UL[1]:.2f})\n"
        f"\t\tLowerRightMtrs=({UL[0] + 30 * WIDTH:.2f},{UL[1] - 30 * HEIGHT:.2f})\n"
        "\t\tProjection=HE5_GCTP_UTM\n\t\tZoneCode=13\n\t\tSphereCode=12\n"
        "\t\tPixelRegistration=HE5_HDFE_CORNER\n\t\tGridOrigin=HE5_HDFE_GD_UL\n"
        "\tEND_GROUP=GRID_1\nEND_GROUP=GridStructure\n"
    )
