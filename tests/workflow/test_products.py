"""Products as delivered, through the whole workflow: the maps lie where the products do, and show what they show.

The products hold one small landscape. What is right of it, also where it lies, is told by the tests' own generators,
which share nothing with the readers.
"""

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import aviris_files
import emit_files
import enmap_files
import numpy as np
import prisma_files
import pytest
import rasterio
import yaml
from affine import Affine
from PIL import Image
from rasterio.warp import transform as convert
from runs import ROOT
from scipy.interpolate import interp1d

from special_steps.core.store import open_store
from special_steps.simulated_scene import landscape, sensor

HEIGHT, WIDTH = SHAPE = (96, 120)
CROP = slice(10, 10 + HEIGHT), slice(50, 50 + WIDTH)  # of the demo's landscape
BASIN = slice(14, 40), slice(16, 32)  # of the crop: a harbour basin in the meadow, the landmark
WATER = landscape.CLASSES.index("water") + 1
ROW, COLUMN = np.mgrid[:HEIGHT, :WIDTH]
OUTSIDE = 0.5 * COLUMN + ROW < 14  # the swath ends askew
CLOUD = np.hypot(ROW - 66, COLUMN - 16) < 6.5
CLEAR = np.zeros(SHAPE, bool)
VAPOUR = ((1345.0, 1425.0), (1795.0, 1955.0))  # nm
RUN = {
    "seeds": [0],
    "scales": [1],
    "network": {"epochs": 2, "iterations": 2},
    "runs": {"hsi": {}},
}


class Case(NamedTuple):
    """A product, and what is right of it."""

    path: Path  # what a user gives, from the folder of the run
    epsg: int
    transform: tuple[float, ...]  # of corners
    empty: np.ndarray  # (y, x) bool: no class there
    cloud: np.ndarray  # (y, x) bool
    told: tuple[str, ...]  # of `inspect`


class Land(NamedTuple):
    """The landscape."""

    cube: (
        np.ndarray
    )  # (band, y, x) reflectance at the demo sensor's wavelengths, NaN outside of the swath
    labels: np.ndarray  # (y, x) from 1, also outside of the swath

    def at(self, nm: np.ndarray, cloud: np.ndarray | None = None) -> np.ndarray:
        """Reflectance (band, y, x) in other bands."""
        cube = interp1d(sensor.WAVELENGTHS, self.cube, axis=0)(nm)
        if cloud is not None:
            cube[:, cloud & ~OUTSIDE] = 0.7 + 0.001 * np.arange((cloud & ~OUTSIDE).sum())
        return np.asarray(cube)


@pytest.fixture(scope="module")
def land() -> Land:
    rng = np.random.default_rng(0)
    drawn, bank = landscape.draw_landscape(rng)
    cube = sensor.simulate_reflectance(rng, drawn, bank)
    labels = landscape.label_pixels(drawn.kind)[CROP]
    water = cube[:, 10:30, 46:54].mean((1, 2))  # in the middle of the river
    cube = cube[:, *CROP]
    cube[:, *BASIN] = water[:, None, None]
    cube += rng.normal(0, 0.003, cube.shape)
    labels[BASIN] = WATER
    cube[:, OUTSIDE] = np.nan
    return Land(cube, labels)


def in_vapour(nm: np.ndarray) -> np.ndarray:
    return np.any([(nm >= low) & (nm <= high) for low, high in VAPOUR], axis=0)


def write_enmap(folder: Path, land: Land) -> Case:
    vnir, swir = np.linspace(420, 993, 88).round(3), np.linspace(902, 2445, 130).round(3)
    nm = np.sort([*vnir, *swir])
    cube = land.at(nm, CLOUD)
    cube[in_vapour(nm)] = np.nan
    right = enmap_files.write(
        folder / "enmap", cube=cube, vnir_nm=vnir, swir_nm=swir, flags={"cloud": CLOUD}
    )
    told = ("EnMAP L2A", "EPSG:32632", "30 x 30 m, north up", "cloud 1.2 %", "-32768")
    return Case(right.folder, enmap_files.EPSG, enmap_files.TRANSFORM, OUTSIDE | CLOUD, CLOUD, told)


def write_prisma(folder: Path, land: Land) -> Case:
    """Its wavelengths run down, and begin or end with bands that were not acquired."""
    centres = {
        "Vnir": np.append([0, 0, 0], np.linspace(977, 421, 60)),
        "Swir": np.append(np.linspace(2445, 943, 160), [0, 0]),
    }
    cubes = {n: land.at(np.clip(nm, 420, None)) for n, nm in centres.items()}
    right = prisma_files.write(folder, centres=centres, cubes=cubes)
    assert right.transform and right.epsg
    left_out = write_masks(folder, right.epsg, right.transform)
    told = ("PRISMA L2D", f"EPSG:{right.epsg}", "30 x 30 m, north up", "no defective")
    return Case(right.path, right.epsg, right.transform, right.missing | left_out, CLEAR, told)


def write_emit(folder: Path, land: Land) -> Case:
    """The image is turned against the map, whose corners it does not reach."""
    nm = np.arange(420, 2446, 7.5)
    cloud = emit_cloud()
    right = emit_files.write(
        folder / "emit",
        cube=np.nan_to_num(land.at(nm, cloud), nan=-9999),
        size=(116, 124),
        nm=nm,
        good=(~in_vapour(nm)).astype(np.uint8),
        on_map={"Cloud flag": cloud},
    )
    values = right.values[nm < 1000].min(0)
    empty = right.masked | (values == -9999) | right.flags["Cloud flag"]
    told = (
        "EMIT L2A",
        "EPSG:4326",
        "0.000542 x 0.000542 degrees, north up",
        "cloud 1.2 %",
        "-9999",
    )
    return Case(right.path, 4326, right.transform, empty, right.flags["Cloud flag"], told)


def emit_cloud() -> np.ndarray:
    return np.hypot(ROW - 60, COLUMN - 40) < 6.5


def write_aviris(folder: Path, land: Land) -> Case:
    nm = np.arange(420, 2446, 5.0)
    right = aviris_files.write_ng(folder, cube=land.at(nm), nm=nm)
    told = ("ENVI", "EPSG:32604", "5.2 x 5.2 ", "turned by 42 degrees", "-9999")
    return Case(right.data, right.epsg, right.transform, OUTSIDE, CLEAR, told)


def write_masks(folder: Path, epsg: int, transform: tuple[float, ...]) -> np.ndarray:
    """A mask of a place, and an area in longitude and latitude; what they leave out, (y, x) bool."""
    place, grid = f"EPSG:{epsg}", Affine(*transform)
    kinds = np.zeros(SHAPE, np.uint8)
    kinds[80:90, 50:70], kinds[80:90, 70:75] = 7, 3
    options = {"driver": "GTiff", "count": 1, "dtype": "uint8", "height": HEIGHT, "width": WIDTH}
    with rasterio.open(folder / "mask.tif", "w", crs=place, transform=grid, **options) as raster:
        raster.write(kinds, 1)
    corners = [grid @ corner for corner in ((2.3, 1.4), (118.2, 3.3), (115.6, 94.1), (3.7, 92.8))]
    ring = np.transpose(convert(place, "EPSG:4326", *np.transpose(corners).tolist()))
    polygon = {"type": "Polygon", "coordinates": [[*ring.tolist(), ring[0].tolist()]]}
    (folder / "area.geojson").write_text(json.dumps(polygon))
    east, north = grid @ (COLUMN.ravel() + 0.5, ROW.ravel() + 0.5)
    points = np.transpose(convert(place, "EPSG:4326", east.tolist(), north.tolist()))
    left_of = []
    for start, end in zip(ring, np.roll(ring, -1, 0), strict=True):
        (dx, dy), (px, py) = end - start, (points - start).T
        left_of.append(dx * py - dy * px > 0)
    inside = ~np.any(left_of, axis=0)  # the corners go round clockwise
    return np.asarray((kinds == 7) | ~inside.reshape(SHAPE))


WRITERS: dict[str, Callable[[Path, Land], Case]] = {
    "enmap": write_enmap,
    "prisma": write_prisma,
    "emit": write_emit,
    "aviris": write_aviris,
}
SETTINGS = {  # besides what `inspect` writes
    "prisma": {"mask": {"path": "mask.tif", "values": [7]}, "area": "area.geojson"},
    "aviris": {},
}
BAD = [list(pair) for pair in VAPOUR]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return Path(tmp_path_factory.mktemp("products"))


@pytest.fixture(scope="module")
def cases(folder, land) -> dict[str, Case]:
    """Products in a folder, and the first one in an archive."""
    found = {name: write(folder, land) for name, write in WRITERS.items()}
    for name in ("enmap", "aviris"):
        write_truth(folder / f"{name}_truth.tif", land.labels, found[name])
    with zipfile.ZipFile(folder / "delivered.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as z:
        for file in sorted(found["enmap"].path.iterdir()):
            z.write(file, f"{file.parent.name}/{file.name}")
    return found | {"delivered": found["enmap"]._replace(path=folder / "delivered.zip")}


def write_truth(path: Path, labels: np.ndarray, case: Case) -> None:
    options = {"driver": "GTiff", "count": 1, "dtype": "uint8", "height": HEIGHT, "width": WIDTH}
    place = {"crs": f"EPSG:{case.epsg}", "transform": Affine(*case.transform)}
    with rasterio.open(path, "w", nodata=0, **options, **place) as raster:
        raster.write(labels, 1)


@pytest.fixture(scope="module")
def inspected(folder, cases) -> dict[str, str]:
    """What `inspect` prints of each."""
    told = {}
    for name, case in cases.items():
        if name == "delivered":
            continue
        command = [
            sys.executable,
            "-m",
            "special_steps.inspect",
            str(case.path.relative_to(folder)),
        ]
        options = ["--classes", ", ".join(landscape.CLASSES), "--picture", f"{name}.png"]
        done = subprocess.run(
            command + options,
            cwd=folder,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        told[name] = done.stdout
        print(done.stdout)
    return told


@pytest.fixture(scope="module")
def config(folder, cases, inspected) -> dict:
    """The configs that `inspect` writes, in one."""
    scenes = {}
    for name, text in inspected.items():
        given = yaml.safe_load(text[text.index("scenes:") : text.index("\nThen run")])
        (scene,) = given["scenes"].values()
        scenes[name] = scene | SETTINGS.get(name, {})
    scenes["delivered"] = scenes["enmap"] | {"cube": {"path": "delivered.zip"}}
    labels = {name: label for label, name in enumerate(landscape.CLASSES, 1)}
    for name in ("enmap", "aviris"):
        scenes[name] |= {"ground_truth": {"path": f"{name}_truth.tif", "labels": labels}}
    scenes["aviris"]["cube"]["bad_ranges"] = scenes["prisma"]["cube"]["bad_ranges"] = BAD
    return RUN | {"scenes": scenes}


@pytest.fixture(scope="module")
def console(run, folder, config) -> str:
    """Run the workflow for all products; what it says."""
    done = run(folder, config)
    assert done.returncode == 0
    return str(done.stdout)


NAMES = [*WRITERS, "delivered"]
each = pytest.mark.parametrize("name", NAMES)


@pytest.mark.parametrize("name", WRITERS)
def test_inspect_says_what_it_is(inspected, cases, folder, name):
    for part in (f"{HEIGHT} x {WIDTH} pixels", *cases[name].told):
        assert part in inspected[name]
    with Image.open(folder / f"{name}.png") as picture:
        assert picture.size == (4 * WIDTH, 4 * HEIGHT)
        shown = np.asarray(picture).astype(int)
    assert "look at this" not in inspected[name]
    assert (shown[-80:, -72:].mean((0, 1)).argsort() == [2, 1, 0]).all(), "bare soil is reddish"


def labels_of(folder: Path, name: str) -> np.ndarray:
    """The run's last labels, on the product's grid."""
    return np.asarray(open_store(folder / f"results/{name}/hsi/consensus.zarr")["labels"][:])


@each
def test_pixels_without_data_clouds_and_masks_have_no_class(console, cases, folder, name):
    labels = labels_of(folder, name)
    np.testing.assert_array_equal(labels == 0, cases[name].empty)


@each
def test_content_comes_through(console, land, cases, folder, name):
    labels = labels_of(folder, name)
    known = labels > 0
    accuracy = (labels == land.labels)[known].mean()
    print(f"{name}: accuracy {accuracy:.3f} of {known.sum()} pixels")
    assert accuracy > 0.8


@pytest.mark.parametrize("name", ["enmap", "aviris"])
def test_accuracy_by_ground_truth_on_the_products_grid(console, land, cases, folder, name):
    found = json.loads((folder / f"results/{name}/hsi/consensus.metrics.json").read_text())
    assert found["oa"] > 0.8
    labels = labels_of(folder, name)
    assert found["oa"] == pytest.approx((labels == land.labels)[labels > 0].mean())


def read_map(folder: Path, name: str) -> tuple[np.ndarray, Affine, int]:
    """Labels, transform and EPSG code, as GDAL reads them."""
    with rasterio.open(folder / f"results/{name}/hsi/map.tif") as raster:
        return raster.read(1), raster.transform, raster.crs.to_epsg()


def ground(transform: Affine, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Coordinates of pixels' centres, (2, ...)."""
    return np.stack(transform @ (columns + 0.5, rows + 0.5))


@each
def test_map_pixels_lie_where_the_products_do(console, cases, folder, name):
    """All of them: by the product's own transform, each has the label of the pixel at its place, or none."""
    labels, case = labels_of(folder, name), cases[name]
    shown, transform, epsg = read_map(folder, name)
    assert epsg == case.epsg
    assert transform.b == transform.d == 0 and transform.e < 0 < transform.a
    rows, columns = np.mgrid[: shown.shape[0], : shown.shape[1]]
    x, y = ~Affine(*case.transform) @ tuple(ground(transform, rows, columns))
    inside = (x > 0) & (x < WIDTH) & (y > 0) & (y < HEIGHT)
    assert (shown[~inside] == 0).all()
    at_edge = np.minimum(abs(x - np.round(x)), abs(y - np.round(y))) < 1e-6
    compared = inside & ~at_edge
    right = labels[y[compared].astype(int), x[compared].astype(int)]
    np.testing.assert_array_equal(shown[compared], right)
    assert compared.sum() > 0.99 * labels.size and (shown[compared] > 0).sum() > 0.7 * labels.size
    print(f"{name}: {compared.sum()} coordinates compared")
    if name != "aviris":
        np.testing.assert_allclose(tuple(transform)[:6], case.transform, rtol=0, atol=1e-9)


@each
def test_landmark_lies_where_it_is_known_to_be(console, cases, folder, name):
    """The basin's centre in the map, in ground coordinates, to a tenth of a pixel."""
    shown, transform, _ = read_map(folder, name)
    rows, columns = np.nonzero(shown == WATER)
    places = ground(transform, rows, columns)
    product = Affine(*cases[name].transform)
    y, x = (np.array([s.start, s.stop]) for s in BASIN)
    column, row = ~product @ tuple(places)
    near = (abs(column - x.mean()) < np.ptp(x) / 2 + 2) & (abs(row - y.mean()) < np.ptp(y) / 2 + 2)
    pixel = abs(product.determinant) ** 0.5  # its side, m or degrees
    known = np.array(product @ (x.mean(), y.mean()))
    away = np.hypot(*(places[:, near].mean(1) - known)) / pixel
    print(
        f"{name}: landmark {away:.3f} pixels away, {near.sum()} pixels of {np.ptp(x) * np.ptp(y)}"
    )
    assert near.sum() / (np.ptp(x) * np.ptp(y)) == pytest.approx(1, abs=0.03)
    assert away < 0.1


def test_archive_gives_the_same_map_and_is_not_left_unpacked(console, folder):
    for file in ("map.tif", "confidence.tif"):
        with (
            rasterio.open(folder / "results/delivered/hsi" / file) as a,
            rasterio.open(folder / "results/enmap/hsi" / file) as b,
        ):
            np.testing.assert_array_equal(a.read(), b.read())
            assert (a.transform, a.crs) == (b.transform, b.crs)
    assert not (folder / "results/delivered/product").exists()


def test_what_is_left_out_unasked_is_said_at_the_end(console, cases):
    _, _, end = console.partition("What you should know:")
    lines = [line for line in end.splitlines() if "by mask_quality: " in line]
    told = {line.split(": ")[1]: line for line in lines}
    assert len(told) == len(lines) and set(told) == {"enmap", "emit", "delivered"}
    for name, line in told.items():
        share = cases[name].cloud.mean()
        assert f"cloud, by mask_quality: {100 * share:.1f} % of the pixels are left out" in line
        assert "mask_quality: [] keeps them" in line


def test_map_on_the_products_own_turned_grid(run, console, config, cases, folder, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(folder, work)
    scene = {"aviris": config["scenes"]["aviris"]}
    done = run(work, config | {"scenes": scene, "export": {"north_up": False}})
    assert done.returncode == 0
    shown, transform, epsg = read_map(work, "aviris")
    assert epsg == cases["aviris"].epsg
    np.testing.assert_allclose(tuple(transform)[:6], cases["aviris"].transform, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(shown, labels_of(folder, "aviris"))
