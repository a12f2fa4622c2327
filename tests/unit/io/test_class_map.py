"""Class maps: a store and the GeoTIFF of it are the same map; what is none is refused."""

import numpy as np
import pytest
import rasterio
from class_maps import CRS, NAMES, some_labels, write_map
from rasterio.crs import CRS as RasterioCRS
from stores import make_prediction, one_hot

from special_steps.core.errors import UserError
from special_steps.io.class_map import read_class_map, read_confidence

TRANSFORM = [10.0, 0.0, 300000.0, 0.0, -10.0, 5800000.0]


@pytest.fixture
def both(tmp_path):
    labels = some_labels()
    wkt = RasterioCRS.from_string(CRS).to_wkt(version="WKT2_2019")
    probabilities = one_hot(labels, 3) * 0.6 + 0.1
    store = make_prediction(tmp_path / "p.zarr", probabilities, NAMES, labels == 0, wkt, TRANSFORM)
    return store, write_map(tmp_path / "map.tif", labels)


def test_a_store_and_its_geotiff_are_the_same_map(both):
    store, tiff = map(read_class_map, both)
    assert np.array_equal(store.labels, tiff.labels) and store.names == tiff.names == NAMES
    assert store.digest == tiff.digest and len(tiff.digest) == 16
    assert tiff.pixel_area() == store.pixel_area() == pytest.approx(100)


def test_the_digest_knows_labels_names_and_place(tmp_path):
    labels = some_labels()
    other = labels.copy()
    other[5, 20] = other[5, 20] % 3 + 1
    maps = [
        write_map(tmp_path / "a.tif", labels),
        write_map(tmp_path / "b.tif", other),
        write_map(tmp_path / "c.tif", labels, ["water", "trees", "soil"]),
        write_map(tmp_path / "d.tif", labels, side=20),
    ]
    assert len({read_class_map(path).digest for path in maps}) == 4


@pytest.mark.parametrize("crs", [CRS, None])
def test_pixels_and_places(tmp_path, crs):
    found = read_class_map(write_map(tmp_path / "map.tif", some_labels(), crs=crs))
    rows, columns = np.array([0, 39, 7]), np.array([0, 59, 13])
    x, y = found.places(rows, columns)
    assert (x[0], y[0]) == ((300005, 5799995) if crs else (0.5, -0.5))
    assert np.array_equal(found.pixels(x, y), (rows, columns))
    assert found.pixels(x[:1] - 1e7, y[:1])[0].tolist() == [-1]
    assert (found.pixel_area() is None) == (crs is None)


def test_confidence(both, tmp_path):
    store, tiff = both
    confidence = read_confidence(store, None)
    assert np.isnan(confidence[:, :3]).all() and np.allclose(confidence[:, 3:], 0.6)
    assert read_confidence(tiff, None) is None
    with rasterio.open(
        tmp_path / "confidence.tif",
        "w",
        driver="GTiff",
        count=1,
        height=2,
        width=2,
        dtype="float32",
    ) as raster:
        raster.write(np.array([[[0.5, np.nan], [0, 1]]], "f4"))
    assert read_confidence(tiff, None)[0].tolist() == [0.5, pytest.approx(np.nan, nan_ok=True)]
    with pytest.raises(UserError, match="no such file"):
        read_confidence(tiff, tmp_path / "other.tif")


def test_what_is_no_map(tmp_path):
    labels = some_labels()
    write_map(tmp_path / "names.tif", labels, [])
    write_map(tmp_path / "more.tif", labels, ["water", "trees"])
    write_map(tmp_path / "empty.tif", labels * 0)
    (tmp_path / "text.tif").write_text("no raster")
    with rasterio.open(
        tmp_path / "float.tif", "w", driver="GTiff", count=2, height=2, width=2, dtype="float32"
    ):
        pass
    for name, message in {
        "names": "names no classes", "more": "value 3 is in the map", "empty": "no pixel of the map",
        "text": "damaged", "float": "2 bands of float32", "none": "no such file",
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=message) as error:
            read_class_map(tmp_path / f"{name}.tif")
        assert f"{name}.tif" in str(error.value)


def test_unknown_pixels(tmp_path):
    labels = some_labels()
    labels[5:9] = 4
    names = [*NAMES, "unknown"]
    found = read_class_map(write_map(tmp_path / "a.tif", labels, names, unknown=True))
    assert found.unknown and found.classes == NAMES and found.names == names
    own = read_class_map(write_map(tmp_path / "b.tif", labels, names))
    assert not own.unknown and own.classes == names  # a class of that name
    path = write_map(tmp_path / "c.tif", labels, names, unknown=True)
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(UNKNOWN="2")
    with pytest.raises(UserError, match="tag UNKNOWN is 2, not the last"):
        read_class_map(path)
