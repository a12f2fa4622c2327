"""Maps that people open: GeoTIFFs as GIS programs read them, and the picture."""

import itertools
import re

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from defaults import INGEST
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from PIL import Image
from rasterio.crs import CRS
from stores import add_confidence, make_prediction, make_rgb, make_store, one_hot

from special_steps.core.errors import UserError
from special_steps.core.palette import class_colours
from special_steps.export import as_bytes, export, map_figure
from special_steps.ingest import ingest
from special_steps.io.class_map import read_class_map
from special_steps.rgb import rgb

UTM = CRS.from_epsg(32633).to_wkt()
RARE = "+proj=gnom +lat_0=10 +lon_0=3 +datum=WGS84"  # no EPSG code, and GeoTIFF has keys for few
AFFINE = [30.0, 0.0, 369000.0, 0.0, -30.0, 5808000.0]
NAMES = ["water", "trees", "bare soil"]
MANY = [
    "water", "trees", "grass", "bare soil", "asphalt", "metal roof", "self-blocking bricks",
    "bitumen", "tiles", "shadows", "meadows", "broad-leaved woodland", "solar panels", "railway",
    "concrete pavement", "artificial turf", "parking lot with cars", "swimming pool", "greenhouse",
    "quarry", "cropland", "vineyard", "sand", "wetland", "snow",
]  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


# --- GeoTIFF --------------------------------------------------------------------------------------


def files_of(out):
    return {
        "class_map": out / "map.tif",
        "confidence_map": out / "confidence.tif",
        "probability_map": out / "probabilities.tif",
        "style": out / "map.qml",
        "picture": out / "map.png",
    }


SETTINGS = {"colours": {}, "networks": None, "reject": None, "north_up": None}
FILES = {"map.tif", "map.tif.aux.xml", "map.qml", "confidence.tif", "probabilities.tif", "map.png"}
RASTERS = ["map.tif", "confidence.tif", "probabilities.tif"]


def exported(
    tmp_path,
    labels,
    names=NAMES,
    nodata=None,
    crs=UTM,
    transform=AFFINE,
    image=None,
    probabilities=None,
    confidence=None,
    **settings,
):
    labels = np.asarray(labels)
    if probabilities is None:
        probabilities = 0.6 * one_hot(labels, len(names)) + 0.4 / len(names)
    nodata = np.zeros(labels.shape, bool) if nodata is None else nodata
    prediction = make_prediction(
        tmp_path / "final.zarr", probabilities, names, nodata, crs, transform
    )
    if confidence is not None:
        add_confidence(prediction, confidence)
    out = tmp_path / "out"
    export(
        prediction=prediction,
        rgb=make_rgb(tmp_path / "rgb.zarr", nodata, image),
        **files_of(out),
        **SETTINGS | settings,
    )
    return out


LABELS = np.random.default_rng(0).integers(1, 4, (30, 40))
MASK = np.zeros((30, 40), bool)
MASK[:5, :6] = True


def test_the_class_map(tmp_path):
    out = exported(tmp_path, LABELS, nodata=MASK)
    with rasterio.open(out / "map.tif") as raster:
        assert raster.driver == "GTiff"
        assert raster.count == 1
        assert raster.dtypes == ("uint8",)
        assert raster.nodata == 0
        assert raster.crs == CRS.from_epsg(32633)
        assert list(raster.transform)[:6] == AFFINE
        data = raster.read(1)
        np.testing.assert_array_equal(data[~MASK], LABELS[~MASK])
        assert (data[MASK] == 0).all()
        np.testing.assert_array_equal(raster.dataset_mask() == 0, MASK)
        table = raster.colormap(1)
        for i, colour in enumerate(class_colours(NAMES)):
            np.testing.assert_allclose(
                np.array(table[i + 1]) / 255, (*to_rgb(colour), 1), atol=3e-3
            )
        tags = raster.tags()
        assert [tags[f"CLASS_{i}"] for i in (1, 2, 3)] == NAMES
        assert raster.descriptions == ("land cover",)
        assert raster.profile["compress"] == "deflate"


def test_gdal_reads_the_class_names(tmp_path):
    """Rasterio does not show category names, but GDAL's VRT copies what GDAL has read."""
    names = ["water", "trees & <shrubs>", "bäume"]
    out = exported(tmp_path, LABELS, names)
    with rasterio.open(out / "map.tif") as raster:
        assert str(out / "map.tif.aux.xml") in raster.files
        rasterio.shutil.copy(raster, out / "copy.vrt", driver="VRT")
    text = (out / "copy.vrt").read_text(encoding="utf-8")
    found = re.findall(r"<Category>(.*?)</Category>", text)
    assert found == ["no data", "water", "trees &amp; &lt;shrubs&gt;", "bäume"]


def test_the_confidence(tmp_path):
    out = exported(tmp_path, LABELS, nodata=MASK)
    with rasterio.open(out / "confidence.tif") as raster:
        assert raster.dtypes == ("float32",)
        assert np.isnan(raster.nodata)
        data = raster.read(1)
        assert np.isnan(data[MASK]).all()
        np.testing.assert_allclose(data[~MASK], 0.6, atol=1e-6)
        np.testing.assert_array_equal(raster.dataset_mask() == 0, MASK)
        assert raster.crs == CRS.from_epsg(32633)
        assert "confidence" in raster.descriptions[0]


def test_a_scene_without_georeference(tmp_path):
    out = exported(tmp_path, LABELS, crs=None, transform=None)
    with rasterio.open(out / "map.tif") as raster:
        assert raster.crs is None
        assert raster.transform.is_identity


def test_a_transform_without_crs_is_kept(tmp_path):
    out = exported(tmp_path, LABELS, crs=None)
    with rasterio.open(out / "map.tif") as raster:
        assert raster.crs is None
        assert list(raster.transform)[:6] == AFFINE


def test_a_rotated_grid_is_kept_where_asked(tmp_path):
    turned = [2.0, 1.0, 100.0, 1.0, -2.0, 200.0]
    out = exported(tmp_path, LABELS, transform=turned, north_up=False)
    with rasterio.open(out / "map.tif") as raster:
        assert list(raster.transform)[:6] == turned
        np.testing.assert_array_equal(raster.read(1), LABELS)


def test_the_probabilities(tmp_path):
    rng = np.random.default_rng(0)
    wanted = rng.dirichlet(np.ones(3), (30, 40)).transpose(2, 0, 1).astype("f4")
    names = ["water", "bäume", "bare soil"]
    out = exported(tmp_path, LABELS, names, nodata=MASK, probabilities=wanted)
    with rasterio.open(out / "probabilities.tif") as raster:
        assert raster.descriptions == tuple(names)
        assert raster.dtypes == ("uint8",) * 3 and raster.nodata == 255
        np.testing.assert_allclose(raster.scales, 0.004)
        data = raster.read() * raster.scales[0]
        np.testing.assert_array_equal(raster.dataset_mask() == 0, MASK)
    assert abs(data - wanted)[:, ~MASK].max() <= 0.002 + 1e-6


def test_probabilities_as_bytes_by_hand():
    values = np.array([[[0, 0.0019, 0.0021, 0.5, 1, 1.0000001, 0.3]]], "f4")
    nodata = np.array([[False] * 6 + [True]])
    np.testing.assert_array_equal(as_bytes(values, nodata), [[[0, 0, 1, 125, 250, 250, 255]]])


def test_turned_probabilities_are_those_of_the_turned_map(tmp_path):
    labels = np.random.default_rng(0).integers(1, 4, (300, 290))
    out = exported(tmp_path, labels, transform=list(placed(30))[:6])
    with rasterio.open(out / "map.tif") as a, rasterio.open(out / "probabilities.tif") as b:
        found, probabilities = a.read(1), b.read()
    np.testing.assert_array_equal((probabilities == 255).all(0), found == 0)
    np.testing.assert_array_equal(probabilities.argmax(0)[found > 0] + 1, found[found > 0])


def test_calibrated_confidence_comes_before_the_margin(tmp_path):
    out = exported(tmp_path, LABELS, nodata=MASK, confidence=0.77)
    with rasterio.open(out / "confidence.tif") as raster:
        np.testing.assert_allclose(raster.read(1)[~MASK], 0.77, atol=1e-6)
        assert np.isnan(raster.read(1)[MASK]).all()
        assert raster.descriptions == ("confidence: probability of being right",)


def test_colours_of_the_users_own(tmp_path):
    out = exported(tmp_path, LABELS, colours={"trees": "#0102ff"})
    with rasterio.open(out / "map.tif") as raster:
        assert raster.colormap(1)[2] == (1, 2, 255, 255)
    assert 'value="2" color="#0102ff"' in (out / "map.qml").read_text()
    picture = np.asarray(Image.open(out / "map.png").convert("RGB"))
    assert (picture == [1, 2, 255]).all(-1).sum() > 1000


@pytest.mark.parametrize(("networks", "said"), [(1, True), (3, False), (None, False)])
def test_one_network_has_none_to_disagree_with(tmp_path, caplog, networks, said):
    exported(tmp_path, LABELS, networks=networks)
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert (
        warnings
        == ["no map of disagreement: one network only; seeds: [0, 1, 2] trains three"] * said
    )


# --- unknown --------------------------------------------------------------------------------------

CONFIDENCE = np.linspace(0, 1, LABELS.size, dtype="f4").reshape(LABELS.shape)


def test_pixels_of_low_confidence_are_unknown(tmp_path):
    """In the map, its palette and legends; confidence and probabilities are those of all pixels."""
    limit = float(CONFIDENCE[12, 0])  # a pixel of just this confidence keeps its class
    plain = exported(tmp_path / "a", LABELS, nodata=MASK, confidence=CONFIDENCE)
    out = exported(tmp_path / "b", LABELS, nodata=MASK, confidence=CONFIDENCE, reject=limit)
    wanted = np.where(limit > CONFIDENCE, 4, LABELS)
    wanted[MASK] = 0
    with rasterio.open(out / "map.tif") as raster:
        np.testing.assert_array_equal(raster.read(1), wanted)
        assert raster.nodata == 0
        tags, grey = raster.tags(), raster.colormap(1)[4]
        assert [tags[f"CLASS_{i}"] for i in (1, 2, 3, 4)] == [*NAMES, "unknown"]
        assert tags["UNKNOWN"] == "4" and len(set(grey[:3])) == 1 and grey[3] == 255
        rasterio.shutil.copy(raster, out / "copy.vrt", driver="VRT")
    names = re.findall(r"<Category>(.*?)</Category>", (out / "copy.vrt").read_text())
    assert names == ["no data", *NAMES, "unknown"]
    assert 'value="4" color="#bdbdbd" alpha="255" label="unknown"' in (out / "map.qml").read_text()
    for name in ("confidence.tif", "probabilities.tif"):
        with rasterio.open(out / name) as a, rasterio.open(plain / name) as b:
            np.testing.assert_array_equal(a.read(), b.read())
            assert a.descriptions == b.descriptions
    picture = np.asarray(Image.open(out / "map.png").convert("RGB"))
    assert (picture == [189, 189, 189]).all(-1).sum() > 1000
    found = read_class_map(out / "map.tif")
    assert found.unknown and found.names == [*NAMES, "unknown"] and found.classes == NAMES
    np.testing.assert_array_equal(found.labels, wanted)


def test_a_class_of_that_name_is_a_class_where_nothing_is_rejected(tmp_path):
    out = exported(tmp_path, LABELS, ["water", "trees", "unknown"])
    found = read_class_map(out / "map.tif")
    assert not found.unknown and found.classes == ["water", "trees", "unknown"]


def test_all_is_unknown(tmp_path, caplog):
    out = exported(tmp_path, LABELS, nodata=MASK, confidence=0.4, reject=0.9)
    with rasterio.open(out / "map.tif") as raster:
        np.testing.assert_array_equal(raster.read(1), np.where(MASK, 0, 4))
    (said,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert "all of the map is 'unknown'" in said and "0.9" in said and "0.400" in said
    assert {p.name for p in out.iterdir()} == FILES


def test_a_margin_rejects_nothing(tmp_path):
    """It is no probability of being right."""
    with pytest.raises(UserError, match=r"reject 0\.5 needs a calibrated confidence"):
        exported(tmp_path, LABELS, reject=0.5)
    assert not (tmp_path / "out").exists()


def test_unknown_is_turned_with_the_map(tmp_path):
    out = exported(tmp_path, LABELS, transform=list(placed(90))[:6], confidence=CONFIDENCE, reject=0.5)  # fmt: skip
    with rasterio.open(out / "map.tif") as a, rasterio.open(out / "confidence.tif") as b:
        np.testing.assert_array_equal(a.read(1) == 4, b.read(1) < 0.5)


# --- north up -------------------------------------------------------------------------------------


def placed(degrees: float, size: tuple[float, float] = (30, -30)) -> rasterio.Affine:
    """A grid turned counter-clockwise about its first corner."""
    return (
        rasterio.Affine.translation(369000, 5808000)
        @ rasterio.Affine.rotation(degrees)
        @ rasterio.Affine.scale(*size)
    )


@pytest.mark.parametrize("degrees", [30, -75, 150, 1])
def test_a_turned_scene_is_turned_north_up(tmp_path, degrees):
    """Patches lie where they did on the ground, within half a pixel, and keep their area."""
    labels = np.full((60, 80), 3)
    labels[10:20, 15:35], labels[40:55, 60:70] = 1, 2
    grid = placed(degrees)
    out = exported(tmp_path, labels, transform=list(grid)[:6])
    for name in RASTERS:
        with rasterio.open(out / name) as raster:
            a, b, _, d, e, _ = list(raster.transform)[:6]
            assert b == d == 0 and e < 0 < a
            np.testing.assert_allclose((a, e), (30, -30))
            assert raster.crs == CRS.from_epsg(32633)
            data, back, mask = raster.read(1), raster.transform, raster.dataset_mask()
            if name == "map.tif":
                found, table = data, raster.colormap(1)
            np.testing.assert_array_equal(mask > 0, found > 0)
    assert table[0][3] == 0
    for label, (rows, columns) in {
        1: (slice(10, 20), slice(15, 35)),
        2: (slice(40, 55), slice(60, 70)),
    }.items():
        y, x = np.nonzero(found == label)
        centre = back @ (x.mean() + 0.5, y.mean() + 0.5)
        right = grid @ ((columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2)
        assert np.hypot(*np.subtract(centre, right)) < 0.5 * 30
        assert abs(len(y) / (labels == label).sum() - 1) < 0.05
    assert abs((found > 0).sum() / labels.size - 1) < 0.02
    # pixel by pixel: each has the class of the scene's pixel that holds its centre
    y, x = np.nonzero(found)
    there = [~grid @ (back @ (i + 0.5, j + 0.5)) for j, i in zip(y, x, strict=True)]
    right = [labels[int(np.floor(row)), int(np.floor(column))] for column, row in there]
    np.testing.assert_array_equal(found[y, x], right)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("size", [(30, -20), (30, 20), (-30, -20), (-30, 20)])
def test_flipped_scenes_and_those_turned_by_90_degrees_keep_every_pixel(tmp_path, degrees, size):
    labels = np.random.default_rng(0).integers(1, 4, (7, 11))
    grid = placed(degrees, size)
    exact = [round(v, 9) for v in list(grid)[:6]]
    out = exported(tmp_path, labels, transform=exact, north_up=True)
    with rasterio.open(out / "map.tif") as raster:
        found, back = raster.read(1), raster.transform
    assert back.b == back.d == 0 and back.e < 0 < back.a
    assert found.shape == (labels.shape if degrees % 180 == 0 else labels.shape[::-1])
    for (y, x), label in np.ndenumerate(found):
        column, row = ~grid @ (back @ (x + 0.5, y + 0.5))
        assert label == labels[int(np.floor(row)), int(np.floor(column))]


def test_only_rotated_grids_are_turned_unasked(tmp_path):
    for size, same in (((30, -30), True), ((30, 30), True)):
        out = exported(tmp_path, LABELS, transform=list(placed(0, size))[:6])
        with rasterio.open(out / "map.tif") as raster:
            assert (raster.transform == placed(0, size)) == same
            np.testing.assert_array_equal(raster.read(1), LABELS)
    out = exported(tmp_path, LABELS, transform=None, crs=None, north_up=True)
    with rasterio.open(out / "map.tif") as raster:
        np.testing.assert_array_equal(raster.read(1), LABELS)


def test_the_picture_is_turned_too(tmp_path):
    labels, image = np.full((40, 60), 1), np.zeros((3, 40, 60), "f4")
    image[0] = 1
    out = exported(tmp_path, labels, transform=list(placed(45))[:6], image=image)
    picture = np.asarray(Image.open(out / "map.png").convert("RGB")).astype(int)
    y, x = np.nonzero((picture == [255, 0, 0]).all(-1))
    assert 0.4 < len(y) / (np.ptp(y) * np.ptp(x)) < 0.6  # a square on its corner


@pytest.mark.parametrize(
    "crs",
    [UTM, 'LOCAL_CS["site grid",UNIT["metre",1]]', CRS.from_string(RARE).to_wkt()],
    ids=["utm", "local", "rare"],
)
def test_no_other_files_are_left(tmp_path, crs):
    """GDAL puts what a TIFF can't hold into side files of its own."""
    out = exported(tmp_path, LABELS, crs=crs)
    assert {p.name for p in out.iterdir()} == FILES
    with rasterio.open(out / "map.tif") as raster:
        assert raster.crs == CRS.from_wkt(crs)


def test_255_classes(tmp_path):
    labels = np.arange(1, 256).reshape(15, 17)
    out = exported(tmp_path, labels, [f"kind {i}" for i in range(255)])
    with rasterio.open(out / "map.tif") as raster:
        np.testing.assert_array_equal(raster.read(1), labels)
        assert len({raster.colormap(1)[i] for i in range(1, 256)}) == 255


def test_export_again_replaces(tmp_path):
    exported(tmp_path, LABELS)
    out = exported(tmp_path, LABELS[::-1])
    with rasterio.open(out / "map.tif") as raster:
        np.testing.assert_array_equal(raster.read(1), LABELS[::-1])


def test_nothing_is_written_when_a_store_is_missing(tmp_path):
    prediction = make_prediction(tmp_path / "p.zarr", one_hot(LABELS, 3), NAMES)
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"rgb\.zarr"):
        export(
            prediction=prediction,
            rgb=tmp_path / "rgb.zarr",
            **files_of(out),
            **SETTINGS,
        )
    assert not out.exists()


# --- the picture ----------------------------------------------------------------------------------


def shown(image, labels, confidence, names):
    return map_figure(
        image, labels, confidence, names, class_colours(names), "best minus second best"
    )


def drawn(height, width, names, nodata=True):
    rng = np.random.default_rng(0)
    labels = rng.integers(1, len(names) + 1, (height, width)).astype("u1")
    confidence = rng.random((height, width), np.float32)
    if nodata:
        labels[: -(-height // 5), : -(-width // 5)] = 0
        confidence[labels == 0] = np.nan
    figure = shown(rng.random((height, width, 3), np.float32), labels, confidence, names)
    figure.set_dpi(80)
    FigureCanvasAgg(figure).draw()
    return figure


@pytest.mark.parametrize(
    ("height", "width"), [(95, 95), (300, 60), (60, 300), (1200, 80), (80, 1200), (5, 4)]
)
@pytest.mark.parametrize("names", [["water"], NAMES, MANY[:20]], ids=["1", "3", "20"])
def test_nothing_overlaps_or_is_cut_off(height, width, names):
    figure = drawn(height, width, names)
    (legend,) = figure.legends
    whole = figure.bbox
    box = legend.get_window_extent()
    texts = [t.get_window_extent() for t in legend.get_texts()]
    assert len(texts) == len(names) + 1  # and "no data"
    for one in (box, *texts, *(a.get_tightbbox() for a in figure.axes)):
        assert one.x0 >= whole.x0 - 1
        assert one.x1 <= whole.x1 + 1
        assert one.y0 >= whole.y0 - 1
        assert one.y1 <= whole.y1 + 1
    for a, b in itertools.combinations(texts, 2):
        assert not a.overlaps(b)
    for axis in figure.axes:
        assert not axis.get_tightbbox().overlaps(box)
    panels = [a.get_window_extent() for a in figure.axes]
    for a, b in itertools.combinations(panels, 2):
        assert not a.padded(-1).overlaps(b.padded(-1))
    titles = [a.title.get_window_extent() for a in figure.axes[:3]]
    for a, b in itertools.combinations(titles, 2):
        assert not a.overlaps(b)
    pixels = whole.width * whole.height
    assert 1e5 < pixels < 4e6
    assert sum(p.width * p.height for p in panels[:3]) > 0.15 * pixels  # not mostly white


def test_panels_are_side_by_side_or_one_below_the_other():
    tall = [a.get_window_extent() for a in drawn(300, 100, NAMES).axes[:3]]
    assert tall[0].x1 < tall[1].x0
    wide = [a.get_window_extent() for a in drawn(100, 300, NAMES).axes[:3]]
    assert wide[0].y0 > wide[1].y1


def test_the_legend_tells_shares_of_the_pixels_with_data():
    labels = np.zeros((10, 100), "u1")
    labels[:5] = 1
    labels[5:9] = 2
    labels[9, :2] = 3
    names = ["water", "trees", "bare soil", "roof"]
    figure = shown(np.zeros((10, 100, 3), "f4"), labels, np.zeros((10, 100), "f4"), names)
    found = [t.get_text() for t in figure.legends[0].get_texts()]
    # 500, 400, 2 and 0 of 902
    assert found == ["water (55 %)", "trees (44 %)", "bare soil (<1 %)", "roof (0 %)", "no data"]


def test_a_scene_without_gaps_has_no_entry_for_them():
    texts = drawn(50, 50, NAMES, nodata=False).legends[0].get_texts()
    assert len(texts) == 3
    assert "no data" not in texts[-1].get_text()


def test_the_png_has_the_classes_colours(tmp_path):
    labels = np.ones((20, 20), int)
    labels[:, 10:] = 2
    out = exported(tmp_path, labels)
    image = np.asarray(Image.open(out / "map.png").convert("RGB"))
    assert image.shape[1] > 1000
    for colour in class_colours(NAMES)[:2]:
        wanted = np.round(255 * np.array(to_rgb(colour)))
        share = (np.abs(image - wanted).max(-1) <= 1).mean()
        assert 0.08 < share < 0.2  # half of a third of the picture, besides its margins


def test_a_large_scene_is_thinned(tmp_path):
    figure = drawn(2500, 2300, NAMES)
    shown = figure.axes[1].get_images()[0].get_array()
    assert shown.shape == (1250, 1150)


# --- a real scene ---------------------------------------------------------------------------------


def test_enmap_tile(tmp_path, shared):
    """A georeferenced satellite tile: where it is, it stays."""
    tiles = sorted((shared / "data" / "scenes" / "enmap_potsdam").rglob("*.tif"))
    tile = next(t for t in tiles if rasterio.open(t).count > 100)
    ingest(cube=tile, out=tmp_path / "cube.zarr", **INGEST)
    rgb(
        cube=tmp_path / "cube.zarr",
        out=tmp_path / "rgb.zarr",
        wavelengths=[655, 553, 451],
        percentiles=[0.1, 99.9],
    )
    with rasterio.open(tile) as raster:
        crs, transform, size = raster.crs, raster.transform, raster.shape
    labels = np.random.default_rng(0).integers(1, 4, size)
    prediction = make_prediction(
        tmp_path / "p.zarr", one_hot(labels, 3), NAMES, crs=crs.to_wkt(), transform=list(transform)[:6]
    )  # fmt: skip
    export(
        prediction=prediction,
        rgb=tmp_path / "rgb.zarr",
        **files_of(tmp_path),
        **SETTINGS,
    )
    for name in RASTERS:
        with rasterio.open(tmp_path / name) as raster:
            assert raster.crs == crs
            assert raster.transform == transform
            assert raster.shape == size
    assert Image.open(tmp_path / "map.png").format == "PNG"


def test_a_store_of_another_kind_is_refused(tmp_path):
    store = make_store(tmp_path / "x.zarr", nodata=MASK)
    with pytest.raises(UserError, match=r"x\.zarr: no array 'probabilities'"):
        export(
            prediction=store,
            rgb=store,
            **files_of(tmp_path),
            **SETTINGS,
        )
