"""Ingest against a bare copy of the same bytes by the same library, side by side: time and peak memory.

    python tests/benchmarks/reading.py [--gigabytes 6] [--rows 768] [--formats envi-bil ...]

A scene of each format (large_files.py) is written, then copied and ingested in turns, each in a process of its own. The
copy opens the file once, reads it by rows of chunks (in columns where ingest would, too) and writes float32 to the same
chunks with the same codec: no mask, no scale, no check, no digest. Of EMIT it copies the image as it is stored, while
ingest puts it on its turned map. At 6 GB it needs 35 GB of disk and some minutes a format.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import large_files
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
ROWS = 256


def copy(path: Path, out: Path) -> None:
    """The bare copy."""
    import zarr

    from special_steps.core.store import create_array
    from special_steps.ingest import BLOCK

    read, shape, itemsize = image_of(path)
    bands, height, width = shape
    array = create_array(zarr.create_group(out), "reflectance", shape, ("band", "y", "x"))
    columns = max(BLOCK // (bands * ROWS * itemsize) // ROWS, 1) * ROWS
    for y in range(0, height, ROWS):
        for x in range(0, width, columns):
            window = slice(y, min(y + ROWS, height)), slice(x, min(x + columns, width))
            array[(slice(None), *window)] = read(*window).astype(np.float32, copy=False)


def image_of(path: Path) -> tuple[Callable[[slice, slice], np.ndarray], tuple[int, int, int], int]:
    """Reads a window (band, row, column) as the library does; shape and bytes of a value."""
    if path.suffix == ".tif":
        import rasterio

        tif = rasterio.open(path)
        window = rasterio.windows.Window.from_slices
        return lambda r, c: tif.read(window=window(r, c)), (tif.count, *tif.shape), 2
    if path.suffix == ".img":
        text = path.with_suffix(".hdr").read_text()
        fields = dict(line.split(" = ") for line in text.splitlines() if " = " in line)
        bands, height, width = (int(fields[name]) for name in ("bands", "lines", "samples"))
        line_first = fields["interleave"] == "bil"
        shape = (height, bands, width) if line_first else (bands, height, width)
        image = np.memmap(path, "<f4", "r", shape=shape)
        if line_first:
            image = image.transpose(1, 0, 2)
        return lambda r, c: np.array(image[:, r, c]), (bands, height, width), 4
    import h5py

    file = h5py.File(path)
    if "reflectance" in file:
        lines = file["reflectance"]
        height, width, bands = lines.shape
        return lambda r, c: lines[r, c].transpose(2, 0, 1), (bands, height, width), 4
    fields = file["HDFEOS/SWATHS/PRS_L2D_HCO/Data Fields"]
    cubes = [fields["VNIR_Cube"], fields["SWIR_Cube"]]
    bands, (height, _, width) = sum(c.shape[1] for c in cubes), cubes[0].shape
    return (
        lambda r, c: np.concatenate([cube[r, :, c] for cube in cubes], 1).transpose(1, 0, 2),
        (bands, height, width),
        2,
    )


def measured(what: str, path: Path, out: Path) -> tuple[float, float, float]:
    """Seconds, seconds of the cores and peak memory (GB) of a copy or an ingest in a process of its own."""
    words = [sys.executable, __file__, "--one", what, path, out]
    start = time.perf_counter()
    child = subprocess.Popen(
        list(map(str, words)), env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    text, errors = child.communicate()
    seconds = time.perf_counter() - start
    if child.returncode:
        raise SystemExit(errors)
    shutil.rmtree(out)
    cores, peak = map(float, text.split())
    return seconds, cores, peak


def run(what: str, path: Path, out: Path) -> None:
    """A copy or an ingest; print the seconds of the cores and the peak memory (GB) of this process."""
    if what == "copy":
        copy(path, out)
    else:
        from special_steps.ingest import ingest

        ingest(cube=path, out=out, **cube_settings())
    # of this program alone: ru_maxrss counts what the parent had when it forked
    status = Path("/proc/self/status").read_text().split()
    peak = int(status[status.index("VmHWM:") + 1]) * 1024 / 1e9
    times = os.times()
    print(times.user + times.system, peak)


def cube_settings() -> dict[str, Any]:
    """Settings of ingest as the schema has them when the config says nothing."""
    from special_steps.core.settings import schema

    scene = schema()["properties"]["scenes"]["additionalProperties"]["properties"]
    cube = {k: r["default"] for k, r in scene["cube"]["properties"].items() if "default" in r}
    return cube | {name: None for name in ("mask", "mask_quality", "area")}


def main() -> None:
    """Print time and peak memory of both, and the ratio of their speeds, for each format."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--gigabytes", type=float, default=6, help="of a cube, uncompressed, in its own dtype"
    )
    parser.add_argument(
        "--formats", nargs="+", default=list(large_files.WRITERS), choices=large_files.WRITERS
    )
    parser.add_argument("--rows", type=int, help="only so many of its rows, at its width")
    parser.add_argument(
        "--rounds", type=int, default=1, help="of copy and ingest; the median counts"
    )
    parser.add_argument("--folder", type=Path, help="for the files; a temporary one if not given")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        run(options.one[0], Path(options.one[1]), Path(options.one[2]))
        return
    print("speed: copy / ingest, by the clock and by the seconds of the cores")
    for name in options.formats:
        with tempfile.TemporaryDirectory(dir=options.folder) as made:
            path = large_files.WRITERS[name](Path(made), options.gigabytes, options.rows)
            runs: dict[str, list[tuple[float, float, float]]] = {"copy": [], "ingest": []}
            for _ in range(options.rounds):
                for what, found in runs.items():
                    found.append(measured(what, path, Path(made, "out.zarr")))
        clock, cores, peak = (
            {what: statistics.median(f[i] for f in found) for what, found in runs.items()}
            for i in range(3)
        )
        print(
            f"{name:18s} copy {clock['copy']:6.1f} s, ingest {clock['ingest']:6.1f} s;"
            f" speed {clock['copy'] / clock['ingest']:.2f}, {cores['copy'] / cores['ingest']:.2f};"
            f" peak {peak['copy']:.2f} and {peak['ingest']:.2f} GB",
            flush=True,
        )


if __name__ == "__main__":
    main()
