"""quick_map: what it returns and refuses, and that it leaves nothing behind; that it equals the workflow's map is
tested in tests/workflow/test_quick_map.py."""

import logging
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import rasterio
import xarray
import yaml
from rasters import write_envi

from special_steps import quick_map
from special_steps.api import quick
from special_steps.core.errors import UserError
from special_steps.core.settings import load

NM = np.arange(420.0, 2400, 20)
CLASSES = ["water", "grass", "bare soil"]


def scene() -> np.ndarray:
    """(band, y, x): dark, green and rising spectra, a third of the scene each."""
    green = np.where(NM < 700, 0.05, 0.45) * np.where(NM > 1350, 0.5, 1)
    kinds = np.stack([0.04 - NM / 1e5, green, 0.1 + NM / 8000])
    kind = np.arange(24) // 8
    noise = np.random.default_rng(0).normal(0, 0.002, (len(NM), 20, 24))
    return (kinds[kind].T[:, None] + noise).astype("f4")


def cube(values: np.ndarray | None = None) -> xarray.DataArray:
    where = {"band": NM, "y": 99 - 2.0 * np.arange(20), "x": 101 + 2.0 * np.arange(24)}
    array = xarray.DataArray(scene() if values is None else values, coords=where)
    array = array.assign_coords(spatial_ref=0)
    array.spatial_ref.attrs["crs_wkt"] = "EPSG:32633"
    return array


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """The folder that temporary files go to; after each test it is empty, and no filter is left."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    filters = list(logging.getLogger("special").filters)
    yield folder
    assert not list(folder.iterdir())
    assert logging.getLogger("special").filters == filters


def mapped(array=None, classes=CLASSES, **settings) -> xarray.Dataset:
    """By spectra alone: without CLIP it takes a second."""
    return quick_map(cube() if array is None else array, classes, clip="none", **settings)


def test_a_map_with_all_that_belongs_to_it():
    found = mapped(colours={"grass": "#00ff00"})
    assert found.probabilities.dims == ("class", "y", "x")
    assert found.probabilities.dtype == found.margin.dtype == np.float32
    assert found.labels.dtype == np.uint8
    assert (found.labels.values == np.arange(24) // 8 + 1).mean() > 0.95
    np.testing.assert_allclose(found.probabilities.sum("class"), 1, atol=1e-5)
    assert found["class"].values.tolist() == CLASSES
    assert found.labels.attrs["flag_values"].tolist() == [1, 2, 3]
    assert found.labels.attrs["flag_meanings"] == "water grass bare_soil"
    assert found.labels.attrs["flag_colors"].split()[1] == "#00ff00"
    np.testing.assert_array_equal(found.band, NM)
    assert found.band.attrs["units"] == "nm"
    assert found.good_band.all()


def test_it_lies_where_the_cube_lies():
    found = mapped()
    np.testing.assert_array_equal(found.x, cube().x)
    np.testing.assert_array_equal(found.y, cube().y)
    about = found.spatial_ref.attrs
    assert rasterio.crs.CRS.from_wkt(about["crs_wkt"]).to_epsg() == 32633
    assert about["GeoTransform"] == "100.0 2.0 0.0 100.0 0.0 -2.0"
    assert found.labels.encoding["grid_mapping"] == "spatial_ref"
    assert found.attrs["spatial:transform"] == [2.0, 0.0, 100.0, 0.0, -2.0, 100.0]
    nowhere = mapped(cube().drop_vars(["x", "y", "spatial_ref"]))
    assert "spatial_ref" not in nowhere.coords
    np.testing.assert_array_equal(nowhere.labels, found.labels)


def test_a_file_and_the_same_in_memory_give_the_same_map(tmp_path, monkeypatch):
    centres = "{" + ", ".join(map(str, NM)) + "}"
    write_envi(tmp_path, scene(), **{"wavelength": centres, "wavelength units": "nm"})
    monkeypatch.chdir(tmp_path)
    for path in ("scene.hdr", tmp_path / "scene.hdr"):
        found = mapped(path)
        for name, values in mapped().data_vars.items():
            np.testing.assert_array_equal(found[name], values)
    config = yaml.safe_load(found.attrs["config"])
    assert load(config)["scenes"]["scene"]["cube"]["path"] == str(tmp_path / "scene.hdr")
    assert config["runs"]["quick"]["clip"] == "none"


def test_nan_is_no_data():
    values = scene()
    values[:, 3, 5] = values[7, 4, 6] = np.nan
    found = mapped(cube(values))
    assert np.argwhere(found.nodata.values).tolist() == [[3, 5], [4, 6]]
    assert (found.labels.values == 0).sum() == 2
    assert (found.probabilities.values[:, 3, 5] == 0).all()


def test_settings_go_where_they_belong():
    bare = cube().drop_vars("band")
    found = mapped(
        bare,
        {"water": ["sea"], "grass": [], "bare soil": ["ground"]},
        wavelengths=NM,
        bad_ranges=[[1340, 1450]],
        materials={"grass": ["grass_canopy"]},
        features={"stretch": [1, 99]},
    )
    assert not found.good_band.sel(band=[1340, 1400, 1440]).any()
    told = yaml.safe_load(found.attrs["config"])
    assert told["scenes"]["scene"]["classes"][0] == {"water": ["sea"]}
    assert told["features"]["stretch"] == [1, 99]


WRONG = [
    ({"evidnece": "none"}, r"^quick_map: top level: unknown .* 'evidnece'; did you mean 'evidence'\?"),
    ({"nodatta": 0}, r"^quick_map: unknown setting 'nodatta'; did you mean 'nodata'\?"),
    ({"materails": {}}, r"^quick_map: unknown setting 'materails'; did you mean 'materials'\?"),
    ({"seeds": [1]}, r"^quick_map: 'seeds' is not for a quick map"),
    ({"ground_truth": {"path": "a"}}, r"'ground_truth' is not for a quick map"),
    ({"method": "lda"}, r"^quick_map: method: 'lda' has no quick map"),
    ({"evidence": "none"}, r"without a CLIP and without evidence nothing labels the scene"),
    ({"materials": {"grass": ["gras"]}}, r"^quick_map: materials: .*gras"),
    ({"spectra": {"grass": "no.csv"}}, r"^quick_map: spectra: 'grass' has .*no.csv, which is no file"),
    ({"wavelengths": [400, 500]}, r"2 wavelengths for 99 bands; fix wavelengths, or axes"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_wrong_settings_are_refused_in_words_of_python(settings, message):
    with pytest.raises(UserError, match=message) as caught:
        mapped(**settings)
    assert "scenes." not in str(caught.value)
    assert "special-" not in str(caught.value)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([], "classes: .*empty"),
        (["water", "Water"], "classes: 'Water' appears twice"),
        ("water", "classes: 'water' is not of type 'array'"),
    ],
)
def test_wrong_classes_are_refused(classes, message):
    with pytest.raises(UserError, match=message):
        mapped(classes=classes)


def test_missing_wavelengths_are_refused_with_the_fix():
    with pytest.raises(UserError, match=r"give them in nm with wavelengths, or .*assign_coords"):
        mapped(cube().drop_vars("band"))


def test_no_file(tmp_path):
    with pytest.raises(UserError, match=r"scene\.hdr: no such file"):
        mapped(tmp_path / "scene.hdr")
    with pytest.raises(UserError, match="not of type"):
        mapped(3)


def test_errors_name_no_temporary_file():
    with pytest.raises(UserError, match=r"^cube: good bands cover") as caught:
        mapped(cube()[60:])
    assert caught.value.__suppress_context__


def test_warnings_are_logged_and_kept_in_words_of_python(caplog):
    values = scene()
    values[:, :6] = 777
    found = mapped(cube(values))
    assert found.nodata[:6].all() or found.attrs["warnings"]
    (line,) = [w for w in found.attrs["warnings"] if "777" in w]
    assert "set nodata: " in line
    assert line in [record.getMessage() for record in caplog.records]


def test_it_is_quiet(capfd, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    mapped()
    out, error = capfd.readouterr()
    assert out == ""
    assert "%|" not in error


def test_an_interrupted_call_leaves_nothing(monkeypatch, temporary):
    def interrupted(**_):
        assert list(temporary.iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr(quick, "fuse", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mapped()


def test_to_import_the_package_loads_nothing():
    code = "import sys, special_steps; print([m for m in ('torch', 'xarray', 'zarr') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_other_names_are_not_there():
    import special_steps

    with pytest.raises(AttributeError, match="no attribute 'quick_mop'"):
        special_steps.quick_mop  # noqa: B018
