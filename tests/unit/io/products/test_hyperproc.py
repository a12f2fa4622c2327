"""PRISMA and Tanager against hyperproc (MIT), a reader written by others, where it is installed.

envs/oracle.txt says how. As a whole the package does not import in Python 3.11, and wants more packages; only its
modules for these sensors are imported here.

Where it differs, the test says so, and why our reader does not follow:

- L2: each 0 is no data. The specification has a flag for such values ("negative after atmospheric correction").
- Bands are dropped in the overlap, here they are marked as not good; which ones is the same.
- It knows files by their names only.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import prisma_files
import pytest
import tanager_files
from rasterio.crs import CRS

from special_steps.io.products import prisma, tanager
from special_steps.io.record import Source


@pytest.fixture
def reader(request: pytest.FixtureRequest) -> Iterator[Any]:
    """hyperproc.readers.<param>, without what the packages around it import."""
    spec = importlib.util.find_spec("hyperproc")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("hyperproc is not installed: pip install --no-deps -r envs/oracle.txt")
    home = Path(next(iter(spec.submodule_search_locations)))
    shells = {"hyperproc": home, "hyperproc.readers": home / "readers"}
    before = set(sys.modules)
    for name, folder in shells.items():
        shell = ModuleType(name)
        shell.__path__ = [str(folder)]
        sys.modules[name] = shell
    try:
        for needed in ("dask", "h5netcdf"):
            importlib.import_module(needed)
        yield importlib.import_module(f"hyperproc.readers.{request.param}")
    except ImportError as error:
        pytest.skip(f"hyperproc lacks a package: {error}")
    finally:
        for name in set(sys.modules) - before:
            if name.startswith("hyperproc"):
                del sys.modules[name]


def our_values(source: Source) -> np.ndarray:
    """(band, y, x) in units, good bands in ascending order; NaN where there are no data."""
    assert source.wavelengths is not None
    stored = source.whole().astype(np.float64)
    good = np.ones(len(stored), bool) if source.good_bands is None else source.good_bands
    missing = np.isin(stored, source.nodata)
    if source.nodata == (0.0,):
        missing &= (stored[good] == 0).all(0)
    scale, offset = (
        np.broadcast_to(v, len(stored))[:, None, None] for v in (source.scale, source.offset)
    )
    values = np.where(missing, np.nan, stored / scale + offset)
    order = np.argsort(source.wavelengths)
    return values[order[good[order]]]


def gdal(transform: tuple[float, ...]) -> tuple[float, ...]:
    a, b, c, d, e, f = transform
    return c, a, b, f, d, e


@pytest.mark.parametrize("reader", ["prisma"], indirect=True)
@pytest.mark.parametrize("level", ["1", "2B", "2C", "2D"])
def test_prisma(tmp_path, reader, level):
    source = prisma.open_product(prisma_files.write(tmp_path, level).path)
    theirs = reader.open_prisma(source.files[0], angles=False, extras=False)
    good = np.sort(source.wavelengths[source.good_bands])
    np.testing.assert_allclose(theirs["wavelength"], good)
    name = "radiance" if level in ("1", "2B") else "reflectance"
    values = theirs[name].transpose("wavelength", "y", "x").values
    ours = our_values(source)
    zero = np.zeros(ours.shape, bool)
    if level != "1":
        zero[-1, *prisma_files.ZERO] = True
        assert np.isnan(values[zero]).all()  # 0 is no data to hyperproc
        assert not np.isnan(ours[zero]).any()
    np.testing.assert_allclose(values[~zero], ours[~zero], rtol=1e-5, atol=1e-6)
    if level == "2D":
        assert theirs.attrs["transform"] == gdal(source.transform)
        assert theirs.attrs["crs"] == f"EPSG:{CRS.from_wkt(source.crs).to_epsg()}"
    if level == "1":
        np.testing.assert_array_equal(
            theirs["cloud"], source.quality["cloud"](slice(None), slice(None))
        )


@pytest.mark.parametrize("reader", ["tanager"], indirect=True)
@pytest.mark.parametrize("asset", ["ortho_sr", "ortho_radiance"])
def test_tanager(tmp_path, reader, asset):
    source = tanager.open_product(tanager_files.write(tmp_path, asset).path)
    theirs = reader.open_tanager(source.files[0], geometry=False, extras=False)
    np.testing.assert_allclose(theirs["wavelength"], source.wavelengths)
    np.testing.assert_allclose(theirs["fwhm"], source.fwhm)
    name = "reflectance" if asset == "ortho_sr" else "radiance"
    values = theirs[name].transpose("wavelength", "y", "x").values
    good = np.ones(len(values), bool) if source.good_bands is None else source.good_bands
    np.testing.assert_allclose(values[good], our_values(source), rtol=1e-6)
    if asset == "ortho_sr":
        np.testing.assert_array_equal(theirs["good_wavelength"], source.good_bands)
    assert theirs.attrs["transform"] == gdal(source.transform)
    assert theirs.attrs["crs"] == f"EPSG:{CRS.from_wkt(source.crs).to_epsg()}"
    everywhere = slice(None), slice(None)
    np.testing.assert_array_equal(theirs["nodata"], source.masked(*everywhere))
    for what, mask in source.quality.items():
        known = ~source.masked(*everywhere)  # hyperproc takes the layers' fill, 255, for cloud
        np.testing.assert_array_equal(theirs[what].values[known], mask(*everywhere)[known])
