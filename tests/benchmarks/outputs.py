"""All that is made of a finished map: seconds, seconds of cores, and peak memory of each step.

    python tests/benchmarks/outputs.py [Y X BANDS] # 2,000 x 4,000 x 100 as it stands; needs 5 GB of disk

The scene and its map are synthetic: six classes in smooth patches, with noise that makes tens of thousands of polygons.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rasterio.crs import CRS
from scipy.ndimage import gaussian_filter, zoom

from special_steps.core.prediction import write_prediction_strips
from special_steps.core.store import Grid, create_array, new_store, tile_rows, write_array

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ["water", "trees", "grass", "bare soil", "asphalt", "roof"]
GRID = Grid(CRS.from_epsg(32633).to_wkt(), (1.0, 0.0, 370000.0, 0.0, -1.0, 5810000.0))
MADE = {"settings": {}, "inputs": [], "grid": GRID}
SEEDS = 3


def write_stores(folder: Path, height: int, width: int, bands: int) -> None:
    """Cube, image, the map and those of three networks, as the steps write them."""
    random = np.random.default_rng(0)
    quarter = (len(CLASSES), -(-height // 4), -(-width // 4))
    fields = gaussian_filter(random.standard_normal(quarter, np.float32), (0, 8, 8))
    fields = zoom(fields / fields.std(), (1, 4, 4), order=1)[:, :height, :width]
    missing = np.zeros((height, width), bool)
    missing[:, : width // 50] = True
    for name in ("map", *(f"network-{seed}" for seed in range(SEEDS))):
        strips = (_strip(fields[:, rows], missing[rows], random) for rows in tile_rows(height))
        write_prediction_strips(
            folder / f"{name}.zarr",
            strips,
            (height, width),
            step="test",
            class_names=CLASSES,
            **MADE,
        )
    spectra = random.random((bands, len(CLASSES)), np.float32).cumsum(0) / bands
    kinds = fields.argmax(0)
    with new_store(folder / "cube.zarr", step="ingest", **MADE) as group:
        cube = create_array(group, "reflectance", (bands, height, width), ("band", "y", "x"))
        write_array(group, "band", np.linspace(420, 2450, bands), ("band",))
        write_array(group, "good_band", np.ones(bands, bool), ("band",))
        write_array(group, "nodata", missing, ("y", "x"))
        for rows in tile_rows(height):
            part = spectra[:, kinds[rows]]
            part += 0.02 * random.standard_normal(part.shape, np.float32)
            part[:, missing[rows]] = 0
            cube[:, rows] = part
    with new_store(folder / "rgb.zarr", step="rgb", **MADE) as group:
        image = spectra[[bands // 3, bands // 6, bands // 9]][:, kinds] / spectra.max()
        write_array(group, "rgb", image, ("band", "y", "x"))
        write_array(group, "nodata", missing, ("y", "x"))


def _strip(
    fields: np.ndarray, missing: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    likely = np.exp(3 * (fields + 0.25 * random.standard_normal(fields.shape, np.float32)))
    return likely / likely.sum(0), missing


def steps() -> dict[str, dict[str, object]]:
    """Options of each step, as the rules give them."""
    networks = [f"network-{seed}.zarr" for seed in range(SEEDS)]
    whole = {"prediction": "map.zarr", "colours": {}}
    cube = {"cube": "cube.zarr"}
    bundle = ["map.tif", "map.tif.aux.xml", "map.qml", "map.png", "confidence.tif"]
    bundle += ["probabilities.tif", "disagreement.tif", "polygons.gpkg", "polygons.qml"]
    bundle += ["areas.csv", "spectra.csv", "spectra.png"]
    shown = {"scene": "large", "run": "hsi", "stage": "consensus", "seed": None}
    none = {"evidence": [], "told": [], "metrics": [], "assessment": [], "tables": {}, "config": {}}
    return {
        "export": whole
        | {"rgb": "rgb.zarr", "class_map": "map.tif", "confidence_map": "confidence.tif"}
        | {"probability_map": "probabilities.tif", "style": "map.qml", "picture": "map.png"}
        | {"networks": SEEDS, "reject": None, "north_up": None},
        "disagreement": {"prediction": "map.zarr", "networks": networks, "north_up": None}
        | {"out": "disagreement.tif"},
        "polygons": {"class_map": "map.tif", "confidence_map": "confidence.tif", "colours": {}}
        | {"out": "polygons.gpkg", "style": "polygons.qml", "table": "areas.csv"}
        | {"min_area": None},
        "spectra": whole
        | cube
        | {"evidence": [], "reject": None, "table": "spectra.csv", "picture": "spectra.png"},
        "stac": whole
        | cube
        | {"files": bundle, "identifier": "large", "out": "stac-item.json"}
        | {"prompts": {"classes": {}, "clip": None}},
        "page": whole
        | cube
        | none
        | {"rgb": "rgb.zarr", "seeds": networks, "map_id": shown, "spectra": "spectra.csv"}
        | {"reject": None, "out": "index.html"},
    }


def main() -> None:
    """Print a line for each step, and one for all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size", type=int, nargs="*", default=[2000, 4000, 100], help="y x bands")
    size = parser.parse_args().size
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # in a process of its own: a process starts with the peak of the one that starts it
        maker = multiprocessing.get_context("spawn").Process(
            target=write_stores, args=(folder, *size)
        )
        maker.start()
        maker.join()
        if maker.exitcode:
            sys.exit("the stores could not be written")
        clock, cores, peak = 0.0, 0.0, 0.0
        for step, options in steps().items():
            words = [sys.executable, "-m", f"special_steps.{step}"]
            for key, value in options.items():
                words += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
            start = time.perf_counter()
            with (folder / "log").open("w") as log:
                process = subprocess.Popen(words, cwd=folder, env=environment, stderr=log)
                _, status, usage = os.wait4(process.pid, 0)
            if status:
                sys.exit((folder / "log").read_text())
            seconds, gigabytes = time.perf_counter() - start, usage.ru_maxrss / 1024**2
            busy = usage.ru_utime + usage.ru_stime
            clock, cores, peak = clock + seconds, cores + busy, max(peak, gigabytes)
            print(f"{step:13s} {seconds:6.1f} s, {busy:5.1f} s of cores, {gigabytes:.2f} GB")
        print(f"{'all':13s} {clock:6.1f} s, {cores:5.1f} s of cores, {peak:.2f} GB")
        print(f"index.html: {(folder / 'index.html').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
