"""Demo: the scene is the same every time, is read back by ingest, and is worth classifying."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from defaults import CUBE, GROUND_TRUTH, INGEST
from scipy.ndimage import binary_erosion
from stores import described

from special_steps.check_scenes import check_scene
from special_steps.core.store import grid_of, open_store
from special_steps.demo import demo
from special_steps.ingest import ingest
from special_steps.io.ground_truth import read_ground_truth
from special_steps.simulated_scene.landscape import CLASSES, draw_landscape, label_pixels

ROOT = Path(__file__).resolve().parents[2]
NAMES = list(reversed(CLASSES))
LABEL_OF = {name: label for label, name in enumerate(CLASSES, 1)}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    demo(out=folder, seed=0)
    ingest(cube=folder / "scene.hdr", out=folder / "cube.zarr", **INGEST)
    return folder


@pytest.fixture(scope="module")
def cube(scene):
    return open_store(scene / "cube.zarr", reflectance=("band", "y", "x"), nodata=("y", "x"))


@pytest.fixture(scope="module")
def labels(scene):
    with rasterio.open(scene / "ground_truth.tif") as raster:
        return raster.read(1)


def test_same_seed_same_bytes_other_seed_other_scene(scene, labels, tmp_path):
    demo(out=tmp_path / "again", seed=0)
    for name in ("scene.img", "scene.hdr", "ground_truth.tif"):
        assert (tmp_path / "again" / name).read_bytes() == (scene / name).read_bytes(), name
    other = label_pixels(draw_landscape(np.random.default_rng(1))[0].kind)
    assert 0.05 < (other != labels)[labels > 0].mean() < 0.9


def test_ingest_reads_all_that_the_header_says(cube):
    attributes = described(cube)
    nm, good = np.array(attributes["wavelengths"]), np.array(attributes["good_bands"])
    assert cube["reflectance"].shape == (len(nm), 160, 200)
    assert len(nm) >= 100 and nm[0] == 420 and 2400 < nm[-1] <= 2450
    assert good.sum() > 100
    bad = nm[~good]
    assert all(1350 <= w <= 1420 or 1800 <= w <= 1950 for w in bad) and len(bad) > 8
    assert attributes["fwhm"] == [15.0] * len(nm)
    assert attributes["transform"] == [2, 0, 372000, 0, -2, 5807000]
    assert rasterio.crs.CRS.from_wkt(attributes["crs"]).to_epsg() == 32633
    values = cube["reflectance"][:][good]
    assert values.min() > -0.05 and 0.3 < values.max() < 1.2  # reflectance: scale factor applied


def test_no_data_corner(cube, labels):
    mask = cube["nodata"][:]
    assert 0.02 < mask.mean() < 0.1 and mask[0, 0] and not mask[-1].any()
    np.testing.assert_array_equal(labels == 0, mask)


def test_classes_are_all_there(labels):
    shares = np.bincount(labels.ravel(), minlength=7)[1:] / labels.size
    assert len(shares) == 6 and shares.min() > 0.04 and shares.max() < 0.5


def test_ground_truth_fits_the_scene(scene, cube, labels):
    with rasterio.open(scene / "ground_truth.tif") as raster:
        assert (
            list(raster.transform)[:6] == described(cube)["transform"]
            and raster.crs.to_epsg() == 32633
        )
    path = str(scene / "ground_truth.tif")
    truth = GROUND_TRUTH | {"labels": LABEL_OF}
    header = CUBE | {"path": str(scene / "scene.hdr")}
    check_scene(header, truth | {"path": path}, NAMES, "demo")
    grid = grid_of(cube)
    assert grid.transform is not None
    read = read_ground_truth(
        path, **truth, class_names=NAMES, scene_shape=(160, 200), scene_grid=grid
    )
    np.testing.assert_array_equal(read, np.where(labels > 0, 7 - labels.astype(int), 0))


def test_the_default_config_is_of_this_scene():
    scene = yaml.safe_load((ROOT / "config.yaml").read_text())["scenes"]["demo"]
    assert scene["classes"] == CLASSES
    assert scene["ground_truth"]["labels"] == LABEL_OF


def test_colours_are_those_of_the_classes(cube, labels):
    """What a person would say of the picture, in numbers: red roofs, green plants, blue water."""
    nm = np.array(cube["band"])
    values = cube["reflectance"][:]
    mean = {
        (name, colour): np.median(values[np.abs(nm - w).argmin()][labels == i])
        for i, name in enumerate(CLASSES, 1)
        for colour, w in (("blue", 451), ("green", 553), ("red", 655), ("infrared", 860))
    }
    assert mean["water", "blue"] > 1.5 * mean["water", "red"]
    assert mean["water", "infrared"] < 0.5 * mean["water", "green"]
    for plant in ("trees", "grass"):
        assert mean[plant, "green"] > 1.3 * max(mean[plant, "red"], mean[plant, "blue"])
        assert mean[plant, "infrared"] > 3 * mean[plant, "red"]
    assert mean["roof", "red"] > 2 * max(mean["roof", "green"] * 0.9, mean["roof", "blue"])
    assert mean["bare soil", "red"] > mean["bare soil", "green"] > mean["bare soil", "blue"]
    asphalt = [mean["asphalt", c] for c in ("blue", "green", "red")]
    assert max(asphalt) < 1.6 * min(asphalt)
    crowns, lawn = (values[np.abs(nm - 860).argmin()][labels == k].std() for k in (2, 3))
    assert crowns > lawn  # sunlit and shaded crowns


def test_bad_bands_are_worth_nothing_and_noise_grows_to_the_ends(cube, labels):
    nm = np.array(cube["band"])
    values = cube["reflectance"][:]
    water = binary_erosion(labels == 1, iterations=4)

    def rough(wavelength: float) -> float:
        """Spread of the difference of neighbours, in water, which is smooth."""
        band = values[np.abs(nm - wavelength).argmin()]
        return float(np.diff(band, axis=1)[water[:, 1:] & water[:, :-1]].std())

    assert rough(1890) > 0.1
    assert rough(2440) > 2 * rough(1100)
    assert rough(420) > 1.5 * rough(700)
