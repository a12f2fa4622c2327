"""Where networks disagree with the map."""

import numpy as np
import pytest
import rasterio
from stores import make_prediction, one_hot

from special_steps.core.errors import UserError
from special_steps.disagreement import disagreeing, disagreement

NAMES = ["water", "trees", "bare soil"]
UTM = rasterio.CRS.from_epsg(32633).to_wkt()
AFFINE = [30.0, 0.0, 369000.0, 0.0, -30.0, 5808000.0]


def test_shares_by_hand():
    labels = np.array([[1, 1, 2, 0]], "u1")
    votes = [np.array([[1, 2, 1, 0]], "u1"), np.array([[1, 1, 3, 0]], "u1")]
    np.testing.assert_array_equal(disagreeing(labels, votes), [[0, 0.5, 1, np.nan]])


def stores(tmp_path, count, shape=(300, 20), transform=AFFINE):
    rng = np.random.default_rng(0)
    nodata = np.zeros(shape, bool)
    nodata[:5, :5] = True
    paths = []
    for i in range(count):
        labels = rng.integers(1, 4, shape)
        path = tmp_path / f"{i}.zarr"
        paths.append(make_prediction(path, one_hot(labels, 3), NAMES, nodata, UTM, transform))
    return paths


def labels_in(path):
    from special_steps.core.store import open_store

    return open_store(path)["labels"][:]


def test_the_file(tmp_path):
    first, *others = stores(tmp_path, 4)
    out = tmp_path / "out.tif"
    disagreement(prediction=first, networks=others, out=out, north_up=None)
    votes = [labels_in(path) for path in others]
    with rasterio.open(out) as raster:
        assert raster.dtypes == ("float32",) and np.isnan(raster.nodata)
        assert list(raster.transform)[:6] == AFFINE and raster.crs.to_epsg() == 32633
        assert "share of 3 networks" in raster.descriptions[0]
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        np.testing.assert_array_equal(raster.read(1), disagreeing(labels_in(first), votes))


def test_it_is_turned_as_the_map_is(tmp_path):
    turned = [0.0, 30.0, 369000.0, 30.0, 0.0, 5808000.0]
    first, *others = stores(tmp_path, 3, transform=turned)
    disagreement(prediction=first, networks=others, out=tmp_path / "a.tif", north_up=None)
    disagreement(prediction=first, networks=others, out=tmp_path / "b.tif", north_up=False)
    with rasterio.open(tmp_path / "a.tif") as a, rasterio.open(tmp_path / "b.tif") as b:
        np.testing.assert_array_equal(a.read(1), b.read(1).T[::-1])


def test_one_network_is_refused(tmp_path):
    first, other = stores(tmp_path, 2)
    with pytest.raises(
        UserError, match=r"out\.tif: one network can't disagree.*seeds: \[0, 1, 2\]"
    ):
        disagreement(prediction=first, networks=[other], out=tmp_path / "out.tif", north_up=None)
    assert not (tmp_path / "out.tif").exists()


def test_maps_of_another_size_are_refused(tmp_path):
    first, other = stores(tmp_path, 2)
    (small,) = stores(tmp_path / "small", 1, (10, 10))
    with pytest.raises(UserError, match=r"0\.zarr: a map of 10 x 10 pixels.*300 x 20; delete both"):
        disagreement(
            prediction=first, networks=[other, small], out=tmp_path / "out.tif", north_up=None
        )
