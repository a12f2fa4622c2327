"""One call from Python gives the workflow's quick map, to the last bit: of what users change, nothing is lost."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray
from runs import SMALL

from special_steps import quick_map

DEMO = SMALL["scenes"]["demo"]
IMAGE = "resources/demo/scene.img"
# what a scene and a run can say of the way to the quick map
SCENE = {
    "classes": [{"water": ["river"]}, "trees", "grass", "bare soil", "asphalt", {"roof": ["house"]}],
    "area": "area.geojson",
    "materials": {"grass": ["grass_canopy", "crop_canopy"]},
}  # fmt: skip
CUBE = {"bad_ranges": [[400, 460]], "drop_bands": [1, "50-52"], "scale": 5000}
SHARED = {"rgb": {"stretch": [1, 99]}, "features": {"stretch": [1, 99]}}
RUNS = {
    "clip": {"evidence": "none", "scales": [1]},
    "spectra": {"clip": "none"},
    "rgb": {"input": "rgb", "scales": [1]},
    "own": {"pseudo_labels": "own.tif"},
}
AREA = """{"type": "Polygon", "coordinates":
    [[[13.119, 52.39], [13.1235, 52.39], [13.1235, 52.398], [13.119, 52.398], [13.119, 52.39]]]}"""


@pytest.fixture(autouse=True)
def threads():
    """As many for CLIP as its jobs have here: another number sums in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def same(found: xarray.Dataset, store: Path) -> None:
    """All arrays of a store, bit for bit, and where they lie."""
    expected = xarray.open_zarr(store)
    for name, values in expected.variables.items():
        np.testing.assert_array_equal(found[name].values, values.values)
        assert found[name].dtype == values.dtype
    for name in ("proj:wkt2", "spatial:transform"):
        assert found.attrs[name] == expected.attrs[name]


def test_it_equals_the_workflow(finished):
    found = quick_map(finished / IMAGE, DEMO["classes"], scales=[1])
    same(found, finished / "results/demo/hsi/cotrain.zarr")
    cube = xarray.open_zarr(finished / "results/demo/cube.zarr")
    np.testing.assert_array_equal(found.band, cube.band)
    np.testing.assert_array_equal(found.good_band, cube.good_band)


@pytest.fixture(scope="module")
def varied(run, finished, tmp_path_factory) -> Path:
    """The folder of a quick run with many settings."""
    folder = tmp_path_factory.mktemp("varied")
    shutil.copytree(finished / "resources", folder / "resources")
    shutil.copy(finished / "results/demo/labels/probabilities.tif", folder / "own.tif")
    (folder / "area.geojson").write_text(AREA)
    config = {"scenes": {"demo": SCENE | {"cube": CUBE | {"path": IMAGE}}}, "runs": RUNS} | SHARED
    assert run(folder, config, "--", "quick").returncode == 0
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_with_other_settings_too(varied, monkeypatch, name):
    monkeypatch.chdir(varied)  # relative paths start there
    classes, more = SCENE["classes"], {k: v for k, v in SCENE.items() if k != "classes"}
    found = quick_map(IMAGE, classes, **more, **CUBE, **SHARED, **RUNS[name])
    assert 0.2 < found.nodata.mean() < 0.8, "the area leaves out a part"
    same(found, varied / f"results/demo/{name}/cotrain.zarr")
