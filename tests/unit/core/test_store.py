"""The store contract: whole, described and checked, or not there."""

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray
import zarr
from stores import make_store

from special_steps.core import atomic
from special_steps.core import store as store_module
from special_steps.core.atomic import atomic_write, scratch_folder
from special_steps.core.errors import UserError
from special_steps.core.store import (
    TILE,
    UNKNOWN,
    Grid,
    class_names,
    create_array,
    file_digest,
    grid_of,
    new_store,
    open_store,
    read_pixels,
    write_array,
    write_names,
    write_strips,
)

ROOT = Path(store_module.__file__).resolve().parents[2]
Y_X = ("y", "x")
UTM = rasterio.crs.CRS.from_epsg(32633).to_wkt(version="WKT2_2019")
GRID = Grid(UTM, (2.0, 0.0, 372_000.0, 0.0, -2.0, 5_807_000.0))
DEAD = 2**22 + 1  # above Linux's largest process number


def mask(side: int = 8) -> np.ndarray:
    return np.eye(side, dtype=bool)


def rng_image(bands: int = 3, side: int = 40) -> np.ndarray:
    return np.random.default_rng(0).random((bands, side, side), np.float32)


def python(code: str, *arguments: object, **options) -> subprocess.Popen:
    words = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(words, cwd=ROOT, text=True, **options)


# --- whole or not there ---------------------------------------------------------------------------


def test_a_store_is_read_back_as_it_was_written(tmp_path):
    image = rng_image()
    path = make_store(tmp_path / "a" / "b.zarr", rgb=image, nodata=mask(40))
    found = open_store(path, rgb=("band", "y", "x"), nodata=Y_X)
    assert found["rgb"].dtype == np.float32
    assert found["nodata"].dtype == bool
    np.testing.assert_array_equal(found["rgb"][:], image)
    np.testing.assert_array_equal(found["nodata"][:], mask(40))
    assert found.metadata.zarr_format == 3


def test_chunks_are_tiles_with_all_bands(tmp_path):
    with new_store(tmp_path / "a.zarr", step="test", settings={}, inputs=[]) as group:
        array = create_array(group, "cube", (7, TILE + 10, 20), ("band", "y", "x"))
        assert array.chunks == (7, TILE, 20)


@pytest.mark.parametrize("heights", [[600], [1] * 300, [100, 300, 0, 90], [256, 256], [255, 2]])
def test_strips_are_put_together(tmp_path, heights):
    image = np.random.default_rng(0).random((2, sum(heights), 5), np.float32)
    cuts = np.cumsum([0, *heights])
    with new_store(tmp_path / "s.zarr", step="test", settings={}, inputs=[]) as group:
        array = create_array(group, "rgb", image.shape, ("band", "y", "x"))
        write_strips(array, (image[:, a:b] for a, b in pairwise(cuts)))
    found = open_store(tmp_path / "s.zarr", rgb=("band", "y", "x"))["rgb"][:]
    np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize("error", [RuntimeError, UserError, KeyboardInterrupt])
def test_an_error_in_the_block_leaves_nothing(tmp_path, error):
    with (
        pytest.raises(error),
        new_store(tmp_path / "a.zarr", step="t", settings={}, inputs=[]) as group,
    ):
        write_array(group, "nodata", mask(), Y_X)
        raise error("in the middle")
    assert list(tmp_path.iterdir()) == []


def test_an_error_after_the_block_leaves_nothing(tmp_path):
    with (
        pytest.raises(FileNotFoundError),
        new_store(tmp_path / "a.zarr", step="t", settings={}, inputs=[tmp_path / "no"]) as group,
    ):
        write_array(group, "nodata", mask(), Y_X)
    assert list(tmp_path.iterdir()) == []


def test_an_error_keeps_the_store_that_was_there(tmp_path):
    path = make_store(tmp_path / "a.zarr", nodata=mask())
    with (
        pytest.raises(RuntimeError),
        new_store(path, step="t", settings={}, inputs=[]) as group,
    ):
        write_array(group, "nodata", ~mask(), Y_X)
        raise RuntimeError
    np.testing.assert_array_equal(open_store(path)["nodata"][:], mask())
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_nothing_is_at_the_path_before_the_end(tmp_path):
    path = tmp_path / "a.zarr"
    with new_store(path, step="t", settings={}, inputs=[]) as group:
        write_array(group, "nodata", mask(), Y_X)
        assert not path.exists()
    assert path.is_dir()


def test_an_existing_store_is_replaced_whole(tmp_path):
    path = make_store(tmp_path / "a.zarr", nodata=mask(), rgb=rng_image(side=8))
    make_store(path, nodata=~mask())
    found = open_store(path, nodata=Y_X)
    np.testing.assert_array_equal(found["nodata"][:], ~mask())
    assert "rgb" not in found
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_atomic_write_replaces_a_file_and_keeps_the_suffix(tmp_path):
    path = tmp_path / "map.tif"
    path.write_text("old")
    with atomic_write(path) as file:
        assert file.suffix == ".tif"
        assert file.parent == tmp_path
        file.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["map.tif"]


def test_a_file_is_not_put_over_a_folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("x")
    with pytest.raises(IsADirectoryError), atomic_write(tmp_path / "out") as file:
        file.write_text("new")
    assert (tmp_path / "out" / "precious.txt").read_text() == "x"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_all_is_synced_before_the_rename(tmp_path, monkeypatch):
    """Order of the calls that a power cut would expose."""
    calls = []
    sync, replace = atomic._sync, atomic._replace
    monkeypatch.setattr(atomic, "_sync", lambda p: (calls.append(p), sync(p)))
    monkeypatch.setattr(atomic, "_replace", lambda a, b: (calls.append("rename"), replace(a, b)))
    path = make_store(tmp_path / "a.zarr", nodata=mask())
    before = calls[: calls.index("rename")]
    written = {p.relative_to(path) for p in path.rglob("*")}
    synced = {Path(*p.relative_to(tmp_path).parts[1:]) for p in before}
    assert written <= synced
    assert calls[-1] == tmp_path


# --- what is refused ------------------------------------------------------------------------------


def refused(path: Path, *words: str, **dims) -> None:
    with pytest.raises(UserError) as caught:
        open_store(path, **dims)
    for word in (str(path), *words):
        assert word in str(caught.value)


def test_missing_store(tmp_path):
    refused(tmp_path / "no.zarr", "no such store")


def test_a_file_in_the_place_of_a_store(tmp_path):
    (tmp_path / "a.zarr").write_text("text")
    refused(tmp_path / "a.zarr", "no such store")


def test_a_folder_that_is_no_zarr(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "notes.txt").write_text("text")
    refused(tmp_path / "a.zarr", "not a Zarr store")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a Zarr store"),
        ("", "not a Zarr store"),
        ("[]", "not a Zarr store"),
        ('{"zarr_format": 3, "node_type": "array"}', "not a Zarr store"),
        ('{"zarr_format": 3}', "not complete"),
    ],
)
def test_damaged_metadata(tmp_path, text, message):
    path = make_store(tmp_path / "a.zarr", nodata=mask())
    (path / "zarr.json").write_text(text)
    refused(path, message)


def test_a_zarr_store_of_somebody_else(tmp_path):
    zarr.create_group(tmp_path / "a.zarr").create_array("nodata", data=mask())
    refused(tmp_path / "a.zarr", "not complete")


def test_a_store_of_the_older_format(tmp_path):
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    group.attrs["complete"] = True
    refused(tmp_path / "a.zarr", "not a Zarr store")


def test_missing_array(tmp_path):
    path = make_store(tmp_path / "a.zarr", nodata=mask())
    refused(path, "no array 'rgb'", rgb=("band", "y", "x"))


def test_a_group_in_the_place_of_an_array(tmp_path):
    with new_store(tmp_path / "a.zarr", step="t", settings={}, inputs=[]) as group:
        group.create_group("rgb")
    refused(tmp_path / "a.zarr", "no array 'rgb'", rgb=("band", "y", "x"))


def test_wrong_dimensions(tmp_path):
    path = make_store(tmp_path / "a.zarr", nodata=mask())
    refused(path, "'nodata'", "('y', 'x')", "('x', 'y')", nodata=("x", "y"))


def test_wrong_type_of_number(tmp_path):
    with new_store(tmp_path / "a.zarr", step="t", settings={}, inputs=[]) as group:
        write_array(group, "rgb", np.zeros((3, 4, 4)), ("band", "y", "x"))
    refused(tmp_path / "a.zarr", "float64", "float32", rgb=("band", "y", "x"))


def test_arrays_of_different_sizes(tmp_path):
    path = make_store(tmp_path / "a.zarr", nodata=mask(8), rgb=rng_image(side=9))
    refused(path, "9 along y", "8", nodata=Y_X, rgb=("band", "y", "x"))


def chunks(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file() and p.name != "zarr.json")


def test_a_truncated_chunk(tmp_path):
    path = make_store(tmp_path / "a.zarr", rgb=rng_image())
    (chunk,) = chunks(path)
    chunk.write_bytes(chunk.read_bytes()[:-100])
    refused(path, "cut short")


def test_a_missing_chunk_is_not_read_as_zeros(tmp_path):
    path = make_store(tmp_path / "a.zarr", rgb=rng_image(side=TILE + 10))
    assert len(chunks(path)) == 4
    chunks(path)[2].unlink()
    refused(path, "missing")


def test_what_snakemake_adds_does_no_harm(tmp_path):
    path = make_store(tmp_path / "a.zarr", nodata=mask())
    (path / ".snakemake_timestamp").write_text("stamp")
    open_store(path, nodata=Y_X)


# --- killed and racing writers --------------------------------------------------------------------

WRITER = """
import sys, time
import numpy as np
from pathlib import Path
from special_steps.core.store import new_store, write_array
with new_store(Path(sys.argv[1]), step="t", settings={}, inputs=[]) as group:
    write_array(group, "nodata", np.eye(8, dtype=bool), ("y", "x"))
    print("half", flush=True)
    time.sleep(60)
"""


def test_kill_9_leaves_no_store_and_the_next_writer_cleans_up(tmp_path):
    path = tmp_path / "a.zarr"
    writer = python(WRITER, path, stdout=subprocess.PIPE)
    try:
        assert writer.stdout.readline() == "half\n"
        (half,) = tmp_path.iterdir()
        with atomic_write(path) as file:  # another writer leaves the living one's work alone
            assert half.is_dir()
            file.write_text("")
        path.unlink()
        assert half.is_dir()
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
    assert not path.exists()
    assert (half / "nodata" / "zarr.json").is_file()
    make_store(path, nodata=mask())
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_only_this_machines_dead_writers_of_this_path_are_swept(tmp_path):
    host = socket.gethostname()
    gone = [f".tmp-{host}-{DEAD}-a.zarr", f".old-{host}-{DEAD}-a.zarr"]
    kept = [
        f".tmp-{host}-1-a.zarr",  # process 1 always lives, and is another user's
        f".tmp-other-{host}-{DEAD}-a.zarr",
        f".tmp-{host}-{DEAD}-b-a.zarr",
        f".tmp-{host}-{DEAD}-aXzarr",
    ]
    for name in gone + kept:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    make_store(tmp_path / "a.zarr", nodata=mask())
    assert {p.name for p in tmp_path.iterdir()} == {"a.zarr", *kept}


RACER = """
import sys
from itertools import pairwise
import numpy as np
from pathlib import Path
from special_steps.core.store import new_store, write_array
print("ready", flush=True)
sys.stdin.readline()
for turn in range(15):
    with new_store(Path(sys.argv[1]), step="t", settings={}, inputs=[]) as group:
        for name in ("a", "b"):
            write_array(group, name, np.full((300, 300), int(sys.argv[2]), "i4"), ("y", "x"))
"""


def test_racing_writers_leave_one_whole_store(tmp_path):
    path = tmp_path / "a.zarr"
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    racers = [python(RACER, path, 100 + i, **options) for i in range(3)]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for racer in racers:
        _, message = racer.communicate(timeout=60)
        assert racer.returncode == 0, message
    found = open_store(path)
    values = np.unique([found["a"][:], found["b"][:]])
    assert len(values) == 1
    assert values[0] in (100, 101, 102)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_a_writer_that_loses_the_race_for_the_old_store_tries_again(tmp_path, monkeypatch):
    path = make_store(tmp_path / "a.zarr", nodata=mask())
    rename = os.rename
    seen = []

    def faster_other(a, b):
        rename(a, tmp_path / "moved by another")
        seen.append(a)
        raise FileNotFoundError(errno.ENOENT, "gone", str(a))

    monkeypatch.setattr(os, "rename", faster_other)
    make_store(path, nodata=~mask())
    assert seen == [path]
    np.testing.assert_array_equal(open_store(path)["nodata"][:], ~mask())


# --- described ------------------------------------------------------------------------------------


def test_provenance_and_digest(tmp_path):
    source = tmp_path / "in.bin"
    source.write_bytes(b"abc")
    first = make_store(tmp_path / "first.zarr", nodata=mask())
    with new_store(
        tmp_path / "a.zarr", step="rgb", settings={"k": [1, None]}, inputs=[source, first]
    ) as group:
        write_array(group, "nodata", mask(), Y_X)
    attributes = json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())["attributes"]
    provenance = attributes["provenance"]
    assert provenance["step"] == "rgb"
    assert provenance["settings"] == {"k": [1, None]}
    # SHA-256 of "abc", from FIPS 180-2
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert provenance["inputs"] == {str(source): abc, str(first): file_digest(first)}
    assert provenance["versions"]["numpy"] == np.__version__
    assert "special" in provenance["versions"]
    assert re.fullmatch("[0-9a-f]{64}", attributes["digest"])


def test_the_digest_follows_the_content(tmp_path):
    digests = [
        file_digest(make_store(tmp_path / f"{i}.zarr", grid, **arrays))
        for i, (grid, arrays) in enumerate(
            [
                (GRID, {"nodata": mask()}),
                (GRID, {"nodata": mask()}),
                (UNKNOWN, {"nodata": mask()}),
                (GRID, {"nodata": ~mask()}),
                (GRID, {"nodata": mask(), "rgb": rng_image(side=8)}),
            ]
        )
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4


def test_the_digest_of_an_incomplete_store_is_refused(tmp_path):
    zarr.create_group(tmp_path / "a.zarr")
    with pytest.raises(UserError, match="not complete"):
        file_digest(tmp_path / "a.zarr")


# --- opened by others -----------------------------------------------------------------------------


@pytest.fixture
def cube(tmp_path) -> Path:
    with new_store(tmp_path / "c.zarr", step="t", settings={}, inputs=[], grid=GRID) as group:
        write_array(group, "reflectance", rng_image(3, 10), ("band", *Y_X))
        write_array(group, "nodata", mask(10), Y_X)
        write_array(group, "band", np.array([450.5, 550.0, 655.0]), ("band",))
        write_array(group, "good_band", np.array([True, False, True]), ("band",))
    (tmp_path / "c.zarr" / ".snakemake_timestamp").touch()
    return tmp_path / "c.zarr"


@pytest.mark.filterwarnings("error")
def test_xarray_opens_a_georeferenced_cube(cube):
    opened = xarray.open_zarr(cube)
    assert set(opened.data_vars) == {"reflectance", "nodata"}
    plane = opened.reflectance.sel(band=650, method="nearest")
    np.testing.assert_array_equal(plane.values, rng_image(3, 10)[2])
    assert float(plane.band) == 655
    assert opened.reflectance.good_band.values.tolist() == [True, False, True]
    spectrum = opened.reflectance.sel(x=372_007, y=5_806_999, method="nearest")
    np.testing.assert_array_equal(spectrum.values, rng_image(3, 10)[:, 0, 3])


def test_the_georeference_follows_the_conventions(cube):
    """What readers of the conventions look at, on the group and on every image."""
    opened = xarray.open_zarr(cube)
    for node in (opened, opened.reflectance, opened.nodata):
        names = {convention["name"] for convention in node.attrs["zarr_conventions"]}
        assert names == {"spatial:", "proj:"}
        assert node.attrs["spatial:dimensions"] == ["y", "x"]
        assert node.attrs["spatial:transform"] == list(GRID.transform)
        assert rasterio.crs.CRS.from_user_input(node.attrs["proj:wkt2"]).to_epsg() == 32633
    assert float(opened.x[0]) == 372_001
    assert float(opened.y[0]) == 5_806_999


def test_a_grid_is_read_back(cube, tmp_path):
    assert grid_of(open_store(cube)) == GRID
    assert grid_of(open_store(make_store(tmp_path / "n.zarr", nodata=mask()))) == UNKNOWN


def test_a_rotated_grid_has_no_coordinates_along_y_and_x(tmp_path):
    rotated = Grid(UTM, (1.0, 0.5, 0.0, 0.5, -1.0, 0.0))
    path = make_store(tmp_path / "r.zarr", rotated, nodata=mask())
    assert set(xarray.open_zarr(path).coords) == set()
    assert grid_of(open_store(path)) == rotated


def test_class_names_are_a_coordinate(tmp_path):
    with new_store(tmp_path / "p.zarr", step="t", settings={}, inputs=[]) as group:
        write_names(group, ["water", "bäume, hoch"])
        write_array(group, "probabilities", rng_image(2, 5), ("class", *Y_X))
    assert class_names(open_store(tmp_path / "p.zarr")) == ["water", "bäume, hoch"]
    opened = xarray.open_zarr(tmp_path / "p.zarr").probabilities
    chosen = opened.sel({"class": "bäume, hoch"})
    np.testing.assert_array_equal(chosen.values, rng_image(2, 5)[1])


def test_a_scratch_folder_is_beside_and_goes(tmp_path):
    dead = tmp_path / f".tmp-{socket.gethostname()}-999999999-a.tif.scratch"
    dead.mkdir()
    (dead / "left").write_text("by a killed process")
    with pytest.raises(ZeroDivisionError), scratch_folder(tmp_path / "a.tif") as folder:
        assert folder.parent == tmp_path and folder.name.startswith(".")
        assert list(tmp_path.iterdir()) == [folder] and not list(folder.iterdir())
        (folder / "b").write_text("x")
        _ = 1 / 0
    assert not list(tmp_path.iterdir())


def test_pixels_that_are_always_read_come_with_those_drawn():
    values, nodata = np.arange(600.0).reshape(1, 20, 30), np.zeros((20, 30), bool)
    always = np.zeros(nodata.shape, bool)
    always[3, 4] = always[7, 8] = always[9, 9] = True
    nodata[9, 9] = True
    (some,) = read_pixels([values], nodata, 10)
    (more,) = read_pixels([values], nodata, 10, always)
    assert set(more[0]) == set(some[0]) | {94.0, 218.0}
