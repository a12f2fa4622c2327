"""What reading a scene costs: each window is read once, and memory does not grow with the scene."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import large_files
import numpy as np
import pytest
import rasterio
from defaults import CUBE

import special_steps.ingest as step
from special_steps.io import raster
from special_steps.io.source import open_source

ROOT = Path(__file__).resolve().parents[2]
BANDS, HEIGHT, WIDTH = 24, 2000, 1024  # 197 MB of float32
NOTHING_LEFT_OUT = {"mask": None, "mask_quality": None, "area": None}
PEAK = """
import sys
from pathlib import Path
from special_steps.ingest import ingest
import special_steps.ingest as step
step.BLOCK = 32 << 20
ingest(cube=Path(sys.argv[1]), out=Path(sys.argv[2]), **eval(sys.argv[3]))
status = Path("/proc/self/status").read_text().split()
print(int(status[status.index("VmHWM:") + 1]) / 1024)
"""


def write(path: Path, height: int) -> Path:
    """Rows that differ, quick to write and to compress."""
    row = np.arange(1, height + 1, dtype=np.float32)[:, None] * np.ones(WIDTH, np.float32)
    if path.suffix == ".img":
        with path.open("wb") as file:
            for band in range(BANDS):
                (row + band).tofile(file)
        path.with_suffix(".hdr").write_text(
            f"ENVI\nsamples = {WIDTH}\nlines = {height}\nbands = {BANDS}\ndata type = 4\n"
            "interleave = bsq\nbyte order = 0\n"
        )
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            cube = file.create_dataset("cube", (height, WIDTH, BANDS), np.float32)
            cube[:] = row[..., None] + np.arange(BANDS, dtype=np.float32)
    else:
        profile = {
            "driver": "GTiff",
            "width": WIDTH,
            "height": height,
            "count": BANDS,
            "dtype": "float32",
        }
        with rasterio.open(path, "w", **profile, compress="deflate", zlevel=1) as file:
            file.write(np.broadcast_to(row, (BANDS, *row.shape)))
    return path


def peak(path: Path) -> float:
    """MB that a process takes at most to ingest a file."""
    settings = CUBE | NOTHING_LEFT_OUT | {"wavelengths": {"first": 400, "last": 900}}
    words = [sys.executable, "-c", PEAK, path, path.with_suffix(".zarr"), repr(settings)]
    done = subprocess.run(words, cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("suffix", [".img", ".h5", ".tif"])
def test_peak_memory_does_not_grow_with_the_scene(tmp_path, suffix):
    small = peak(write(tmp_path / f"small{suffix}", 600))
    large = peak(write(tmp_path / f"large{suffix}", HEIGHT))
    # masks take some 12 bytes a pixel, 17 MB; the values of the rows in between would be 138 MB
    assert large - small < 80, (small, large)


def test_each_pixel_is_read_once(tmp_path, monkeypatch):
    size = (3, 600, 700)
    np.save(tmp_path / "scene.npy", np.ones((*size[1:], size[0]), np.int16))
    read, asked = np.zeros(size[1:], int), np.zeros(size[1:], int)

    def opened(*arguments, **options):
        source = open_source(*arguments, **options)

        def values(rows, columns):
            read[rows, columns] += 1
            return source.read(rows, columns)

        def masked(rows, columns):
            asked[rows, columns] += 1
            return np.zeros(asked[rows, columns].shape, bool)

        return replace(source, read=values, masked=masked)

    monkeypatch.setattr(step, "open_source", opened)
    monkeypatch.setattr(step, "BLOCK", 3 * 256 * 512 * 4)  # two tiles at once, of three
    options = CUBE | NOTHING_LEFT_OUT | {"wavelengths": [450, 550, 650]}
    step.ingest(cube=tmp_path / "scene.npy", out=tmp_path / "cube.zarr", **options)
    assert (read == 1).all() and (asked == 1).all()


def test_where_tiles_lie_is_known_without_their_values(tmp_path, monkeypatch):
    profile = {
        "driver": "GTiff",
        "width": 4,
        "height": 3,
        "count": 2,
        "dtype": "int16",
        "crs": "EPSG:32633",
    }
    paths = [tmp_path / "west.tif", tmp_path / "east.tif"]
    for path, west in zip(paths, (0, 180), strict=True):
        place = rasterio.transform.from_origin(west, 90, 30, 30)
        with rasterio.open(path, "w", **profile, transform=place) as file:
            file.write(np.ones((2, 3, 4), np.int16))
    source = raster.open_rasters(paths)
    monkeypatch.setattr(raster, "opened", None)  # a call would fail
    masked = source.masked(slice(0, 3), slice(0, source.shape[2]))
    assert source.shape == (2, 3, 10)
    np.testing.assert_array_equal(masked, np.isin(np.arange(10), (4, 5))[None].repeat(3, 0))


@pytest.mark.parametrize("name", large_files.WRITERS)
def test_large_files_are_what_they_say(tmp_path, name):
    source = open_source(large_files.WRITERS[name](tmp_path, 0.002, None))
    kinds = {"prisma": "PRISMA L2D", "emit": "EMIT L2A"}
    assert source.kind == kinds.get(name, "ENVI" if name.startswith("envi") else "GeoTIFF")
    assert source.wavelengths is not None
    assert (source.whole()[:, source.shape[1] // 2, source.shape[2] // 2] != 0).all()
