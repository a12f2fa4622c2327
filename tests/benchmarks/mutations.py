"""Damaged and hostile files: each is read, or refused with one line; nothing else may happen.

    python tests/benchmarks/mutations.py [--minutes 10] [--seed 0] [--format NAME ...] [--keep FOLDER]

Small valid files of every format are changed at random, by their bytes and by what they mean (fields of headers,
elements of XML, members of JSON, datasets and attributes of HDF5, tags of GeoTIFF), and read as the workflow reads
them, in child processes with a limit of memory. Printed are, for each format, how many files were tried, opened and
refused, and every finding: another exception than UserError, a text of several lines or without the file's name, a
file outside of the scene's folder, more than SECONDS of time or MEMORY bytes, the end of the process. A case is made
again by its format and number: --format NAME --case NUMBER.
"""

import argparse
import json
import os
import random
import resource
import select
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

UNIT = Path(__file__).resolve().parents[1] / "unit"
sys.path[:0] = [p for p in (str(UNIT), str(UNIT / "io" / "products")) if p not in sys.path]

SECONDS, MEMORY = 10, 1 << 30
WAVELENGTHS = {"first": 400.0, "last": 2500.0}
TRANSFORM, EPSG = (30.0, 0.0, 500000.0, 0.0, -30.0, 5400000.0), 32633
SHAPE = (6, 5)  # y, x of labels, areas and probabilities
CLASSES = ["water", "grass", "road"]

Files = dict[str, bytes]
Random = random.Random


class Seed(NamedTuple):
    """A small valid delivery, and how it is used and changed."""

    name: str
    files: Files  # by path in the folder
    entry: str  # what is given as path: a file, or "." for the folder
    use: str  # scene, labels, probabilities, mask, area, archive
    changed: tuple[str, ...]  # files that are changed
    ways: tuple[str, ...]  # of changing them, besides by bytes


# --- seeds ----------------------------------------------------------------------------------------


def seeds(folder: Path) -> list[Seed]:
    """All seeds; `folder` is for what is written on the way."""
    return [*_own_seeds(folder), *_product_seeds(folder)]


def _seed(
    name: str, folder: Path, entry: str, use: str = "scene", *ways: str, only: str = ""
) -> Seed:
    files = {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    changed = tuple(f for f in files if f.endswith(only)) if only else tuple(files)
    assert changed, (name, list(files))
    return Seed(name, files, entry, use, changed, ways)


def _cube(bands: int = 4) -> np.ndarray:
    return (np.arange(bands * 30).reshape(bands, *SHAPE) * 7 + 3).astype(np.int16)


def write_tiff(path: Path, cube: np.ndarray, driver: str = "GTiff", **options: Any) -> None:
    """A georeferenced raster of (band, y, x)."""
    import rasterio

    tags = options.pop("tags", {})
    place = {"crs": f"EPSG:{EPSG}", "transform": rasterio.Affine(*TRANSFORM)}
    with rasterio.open(
        path,
        "w",
        driver=driver,
        count=len(cube),
        height=cube.shape[1],
        width=cube.shape[2],
        dtype=cube.dtype,
        **(place if driver == "GTiff" else {}),
        **options,
    ) as raster:
        raster.write(cube)
        for band in range(1, len(cube) + 1 if tags else 1):
            raster.update_tags(band, **{k: str(v[band - 1]) for k, v in tags.items()})


ENVI_HEADER = """ENVI
description = {a scene, small}
samples = 5
lines = 6
bands = 4
header offset = 0
file type = ENVI Standard
data type = 2
interleave = bil
byte order = 0
map info = {UTM, 1, 1, 500000, 5400000, 30, 30, 33, North, WGS-84, units=Meters, rotation=10}
wavelength units = Nanometers
wavelength = {450, 550,
 650, 850}
fwhm = {10, 10, 11, 12}
bbl = {1, 1, 0, 1}
band names = {b1, b2, b3, b4}
data ignore value = -9999
reflectance scale factor = 10000
data gain values = {1, 1, 1, 1}
major frame offsets = {0, 0}
; a comment
"""


def _own_seeds(folder: Path) -> Iterator[Seed]:
    import h5py
    from scipy.io import netcdf_file, savemat

    rng = np.random.default_rng(3)
    cube, labels = _cube(), rng.integers(0, 4, SHAPE).astype(np.uint8)
    axes_last = cube.transpose(1, 2, 0)
    nm = np.array([450.0, 550, 650, 850])

    def place(name: str) -> Path:
        (folder / name).mkdir()
        return folder / name

    at = place("envi")
    (at / "scene.img").write_bytes(cube.transpose(1, 0, 2).tobytes())
    (at / "scene.hdr").write_text(ENVI_HEADER)
    yield _seed("envi", at, "scene.hdr", "scene", "header", only=".hdr")

    at = place("tiff")
    tags = {"wavelength": nm, "fwhm": nm / 50, "wavelength_units": ["nm"] * 4}
    write_tiff(at / "scene.tif", cube, nodata=-1, tags=tags)
    yield _seed("tiff", at, "scene.tif", "scene", "tiff")
    at = place("tiff-deflate")
    write_tiff(
        at / "scene.tif",
        np.repeat(np.repeat(cube, 12, 1), 12, 2),
        compress="deflate",
        tiled=True,
        blockxsize=16,
        blockysize=16,
        interleave="pixel",
    )
    yield _seed("tiff-deflate", at, "scene.tif")
    at = place("tiff-envi")
    write_tiff(at / "scene.tif", cube)
    (at / "scene.hdr").write_text(ENVI_HEADER)
    yield _seed("tiff-envi", at, "scene.tif", "scene", "header", only=".hdr")
    at = place("tiff-bil")
    write_tiff(
        at / "scene.tif", cube.astype(np.float32), compress="lzw", predictor=3, interleave="band"
    )
    yield _seed("tiff-bil", at, "scene.tif")
    at = place("tiff-alpha")
    options = {"alpha": "yes", "photometric": "rgb", "nodata": 0}
    write_tiff(at / "scene.tif", cube.astype(np.uint8), **options)
    yield _seed("tiff-alpha", at, "scene.tif", "scene", "tiff")
    at = place("tiff-sidecars")
    write_tiff(at / "scene.tif", cube)
    band = "<PAMRasterBand band='1'><NoDataValue>3</NoDataValue><Scale>0.5</Scale></PAMRasterBand>"
    meta = "<Metadata domain='ENVI'><MDI key='wavelength'>{450, 550, 650, 850}</MDI></Metadata>"
    (at / "scene.tif.aux.xml").write_text(
        f"<PAMDataset><SRS>EPSG:4326</SRS>{meta}{band}</PAMDataset>"
    )
    (at / "scene.tfw").write_text("30\n0\n0\n-30\n500015\n5399985\n")
    yield _seed("tiff-sidecars", at, "scene.tif", "scene", "xml", only=".xml")
    at = place("png")
    write_tiff(at / "scene.png", cube.astype(np.uint8), "PNG")
    yield _seed("png", at, "scene.png", "scene", "png")

    at = place("npy")
    np.save(at / "scene.npy", axes_last)
    yield _seed("npy", at, "scene.npy", "scene", "npy")
    at = place("npz")
    np.savez_compressed(at / "scene.npz", cube=axes_last, wavelength=nm, units=np.array(["nm"]))
    yield _seed("npz", at, "scene.npz", "scene", "npz")

    stored = {"cube": axes_last, "wavelength": nm, "info": {"a": nm, "b": ["x", "y"]}}
    for name, how in (("mat5", {"do_compression": False}), ("mat7", {"do_compression": True})):
        at = place(name)
        savemat(at / "scene.mat", stored, **how)
        yield _seed(name, at, "scene.mat", "scene", "mat", *(["packed"] if name == "mat7" else []))
    at = place("mat4")
    savemat(at / "labels.mat", {"cube": labels.astype(float), "w": nm}, format="4")
    yield _seed("mat4", at, "labels.mat", "labels")
    at = place("mat73")
    with h5py.File(at / "scene.mat", "w", userblock_size=512) as file:
        file["cube"] = cube.transpose(0, 2, 1)
        file["cube"].attrs["MATLAB_class"] = np.bytes_("int16")
        file["info/wavelength"] = nm[:, None]
        file["info"].attrs["MATLAB_class"] = np.bytes_("struct")
        cell = file.create_dataset("names", (2, 1), h5py.ref_dtype)
        file["#refs#/a"] = np.array([[98], [49]], np.uint16)
        file["#refs#/a"].attrs["MATLAB_class"] = np.bytes_("char")
        cell[:] = file["#refs#/a"].ref
        cell.attrs["MATLAB_class"] = np.bytes_("cell")
        sparse = file.create_group("sparse")
        sparse.attrs["MATLAB_sparse"] = np.uint64(3)
        sparse["data"], sparse["ir"], sparse["jc"] = [1.0, 2], [0, 2], [0, 1, 2]
    with (at / "scene.mat").open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")
    yield _seed("mat73", at, "scene.mat", "scene", "hdf5")

    at = place("hdf5")
    with h5py.File(at / "scene.h5", "w") as file:
        item = file.create_dataset("data/cube", data=axes_last, chunks=(3, 5, 2), compression=4)
        item.attrs.update(
            {"_FillValue": np.int16(-1), "Scale_Factor": 10000.0, "valid_range": [0, 9999]}
        )
        file["data/wavelength"] = nm
        file["data/wavelength"].attrs["units"] = "nm"
        file["data/fwhm"], file["data/note"] = nm / 50, "text"
        file["data/Map_Info"] = "UTM, 1, 1, 500000, 5400000, 30, 30, 33, North, WGS-84"
        file["alias"] = h5py.SoftLink("/data/cube")
    yield _seed("hdf5", at, "scene.h5", "scene", "hdf5")
    at = place("hdf5-latest")  # other structures in the file
    with h5py.File(at / "scene.h5", "w", libver="latest") as file:
        item = file.create_dataset(
            "cube", data=axes_last, chunks=(2, 2, 2), shuffle=True, compression=1
        )
        item.attrs["wavelength"], item.attrs["wavelength_units"] = nm, "nm"
        file["names"] = np.array(["a", "b"], h5py.string_dtype())
    yield _seed("hdf5-latest", at, "scene.h5", "scene", "hdf5")
    at = place("netcdf3")
    with netcdf_file(at / "scene.nc", "w") as file:
        for name, size in (("band", 4), ("y", 6), ("x", 5)):
            file.createDimension(name, size)
            variable = file.createVariable(name, "d", (name,))
            variable[:] = nm if name == "band" else np.arange(size) * 30.0
            variable.units = "nm" if name == "band" else "m"
        variable = file.createVariable("cube", "h", ("band", "y", "x"))
        variable[:] = cube
        variable.scale_factor, variable.add_offset, variable._FillValue = 0.001, 0.0, np.int16(-1)
    yield _seed("netcdf3", at, "scene.nc")

    for suffix, write in (
        ("tif", lambda path: write_tiff(path, labels[None])),
        ("png", lambda path: write_tiff(path, labels[None], "PNG")),
        ("npy", lambda path: np.save(path, labels)),
        ("mat", lambda path: savemat(path, {"gt": labels})),
    ):
        at = place(f"labels-{suffix}")
        write(at / f"gt.{suffix}")
        ways = {"tif": ("tiff",), "npy": ("npy",), "mat": ("mat",), "png": ("png",)}.get(suffix, ())
        yield _seed(f"labels-{suffix}", at, f"gt.{suffix}", "labels", *ways)
    at = place("labels-envi")
    (at / "gt.img").write_bytes(labels.tobytes())
    header = ENVI_HEADER.replace("bands = 4", "bands = 1").replace("type = 2", "type = 1")
    (at / "gt.hdr").write_text(header)
    yield _seed("labels-envi", at, "gt.hdr", "labels", "header", only=".hdr")
    at = place("mask-tif")
    write_tiff(at / "mask.tif", (labels == 1)[None].astype(np.uint8), nodata=255)
    yield _seed("mask-tif", at, "mask.tif", "mask", "tiff")
    shares = rng.random((3, *SHAPE)).astype(np.float32)
    shares /= shares.sum(0)
    at = place("probabilities-tif")
    write_tiff(at / "p.tif", shares)
    yield _seed("probabilities-tif", at, "p.tif", "probabilities", "tiff")
    at = place("probabilities-npz")
    np.savez(at / "p.npz", probs=shares.transpose(1, 2, 0))
    yield _seed("probabilities-npz", at, "p.npz", "probabilities", "npz")
    yield from _areas(place)
    yield from _archives(place)


def _areas(place: Callable[[str], Path]) -> Iterator[Seed]:
    import pyogrio.raw
    import shapely

    left, top = TRANSFORM[2], TRANSFORM[5]
    ring = shapely.box(left + 20, top - 130, left + 110, top - 20)
    crs = {"type": "name", "properties": {"name": f"EPSG:{EPSG}"}}
    feature = {
        "type": "Feature",
        "properties": {"id": 1},
        "geometry": shapely.geometry.mapping(ring),
    }
    point = {
        "type": "Feature",
        "properties": None,
        "geometry": {"type": "Point", "coordinates": [1, 2]},
    }
    content = {"type": "FeatureCollection", "crs": crs, "features": [feature, point]}
    at = place("geojson")
    (at / "area.geojson").write_text(json.dumps(content))
    yield _seed("geojson", at, "area.geojson", "area", "json")
    for name, file, driver in (
        ("gpkg", "area.gpkg", "GPKG"),
        ("shp", "area.shp", "ESRI Shapefile"),
    ):
        at = place(name)
        pyogrio.raw.write(
            at / file,
            np.array([ring.wkb], object),
            [np.array([1])],
            ["id"],
            geometry_type="Polygon",
            crs=f"EPSG:{EPSG}",
            driver=driver,
        )
        yield _seed(name, at, file, "area")


def _archives(place: Callable[[str], Path]) -> Iterator[Seed]:
    import tarfile
    import zipfile

    inside = place("packed")
    (inside / "scene.hdr").write_text(ENVI_HEADER)
    (inside / "scene.img").write_bytes(_cube().tobytes())
    at = place("zip")
    with zipfile.ZipFile(at / "scene.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(inside.iterdir()):
            packed.write(file, f"scene/{file.name}")
    yield _seed("zip", at, "scene.zip", "archive")
    for suffix, mode in (("tar", "w"), ("tar.gz", "w:gz"), ("tar.xz", "w:xz")):
        at = place(suffix)
        with tarfile.open(at / f"scene.{suffix}", mode) as packed:
            packed.add(inside, "scene")
        yield _seed(suffix, at, f"scene.{suffix}", "archive", "packed")


def _product_seeds(folder: Path) -> Iterator[Seed]:
    """Products by the generators beside the readers' tests."""
    import importlib

    hdf5 = ("prisma_files", "emit_files", "tanager_files", "aviris3_files", "neon_files")
    for module in (*hdf5, "cf_files", "enmap_files", "desis_files", "hyperion_files"):
        name = module.removesuffix("_files")
        at = folder / name
        at.mkdir()
        write = importlib.import_module(module).write
        written = write(at / "scene.nc") if name == "cf" else write(at)
        if module in hdf5 or name == "cf":
            entry = str(Path(written.path).relative_to(at))
            yield _seed(name, at, entry, "scene", "hdf5")
        else:
            given = getattr(written, "folder", at)
            entry = str(Path(given).relative_to(at))
            yield _seed(name, at, entry, "scene", "xml", "text", "tiff")
    at = folder / "enmap-raw"
    written = importlib.import_module("enmap_files").write(at, form="BSQ")
    yield _seed("enmap-raw", at, ".", "scene", "xml", "header", "text")
    for level in ("1", "2B"):
        at = folder / f"prisma-{level}"
        written = importlib.import_module("prisma_files").write(at, level)
        yield _seed(f"prisma-{level}", at, Path(written.path).name, "scene", "hdf5")
    at = folder / "neon-early"
    at.mkdir()
    written = importlib.import_module("neon_files").write_early(at)
    yield _seed("neon-early", at, str(Path(written.path).relative_to(at)), "scene", "hdf5")
    at = folder / "aviris"
    at.mkdir()
    written = importlib.import_module("aviris_files").write_classic(at)
    entry = str(Path(written.data).relative_to(at))
    yield _seed("aviris", at, entry, "scene", "header", only="hdr")


# --- changes --------------------------------------------------------------------------------------

ODD = (
    "", " ", "0", "-0", "-1", "1", "2", "255", "256", "65536", "nan", "inf", "-inf", "1e400", "-1e308", "1e-320",
    "99999999999999999999", "2147483647", "2147483648", "4294967296", "9223372036854775807", "18446744073709551616",
    "1_000", "٣", "½", "²", "0x10", "1e3", "3.0", "1,5", "{", "}", "{}", "{{1}}", "{1, 2", "1, 2, 3, 4", "1 2 3 4 5",
    "nan, nan, nan, nan", "0, 0, 0, 0", "-1, -2, -3, -4", "1, , 2", "\0", "\x1b[31m", "\u2028", "\x85", "é", "😀",
    "\ud800",
    "a" * 5000, "9" * 5000, "[1]", "None", "true", "False", "bsq", "..", "/etc/passwd", "%s", "=", ";", "//", "EPSG:0",
    "UTM", "Nanometers", "Micrometers", "Wavenumber", "1" + ", 1" * 3000,
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 2, 255, -32768, 65535, 2**31 - 1, -(2**31), 2**32 - 1, 2**62, -(2**63), 0.0, 1e-320, 1e308, float("nan"),
    float("inf"), -float("inf"), 0.5, 1e9,
)  # fmt: skip


def change_bytes(data: bytes, rng: Random) -> bytes:
    """Bytes flipped, cut, zeroed, swapped, repeated, and numbers made huge."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not out:
            return bytes(rng.randrange(256) for _ in range(rng.randrange(64)))
        near = rng.random()
        size = len(out)
        low, high = (0, min(512, size)) if near < 0.4 else (0, size)
        if near > 0.9:
            low = max(0, size - 256)
        at = rng.randrange(low, high)
        length = min(rng.choice((1, 2, 4, 8, 16, 64, 512)), size - at)
        way = rng.randrange(11)
        if way == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif way == 1:
            out[at] = rng.randrange(256)
        elif way in (2, 3):  # a number
            code = rng.choice("bBhHiIqQfd")
            huge = rng.choice(
                (0, 1, 127, 2**15 - 1, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, -1, -(2**31))
            )
            width = struct.calcsize(code)
            if code in "fd":
                packed = struct.pack(
                    rng.choice("<>") + code, rng.choice((float("nan"), 1e38, -1.0))
                )
            else:
                packed = (huge % 256**width).to_bytes(width, rng.choice(("little", "big")))
            at -= at % width if rng.random() < 0.7 else 0
            out[at : at + width] = packed
        elif way == 4:
            del out[rng.randrange(size) :]
        elif way == 5:
            out[at : at + length] = bytes(length)
        elif way == 6:
            out[at : at + length] = b"\xff" * length
        elif way == 7:
            other = rng.randrange(size)
            out[at : at + length], out[other : other + length] = (
                out[other : other + length],
                out[at : at + length],
            )
        elif way == 8:
            del out[at : at + length]
        elif way == 9:
            out[at:at] = out[at : at + length] * rng.choice((1, 1, 100))
        else:
            out[at : at + length] = bytes(rng.randrange(256) for _ in range(length))
    return bytes(out)


def change_header(data: bytes, rng: Random) -> bytes:
    """An ENVI header whose fields are dropped, doubled, renamed, moved, or hold odd values."""
    lines = data.decode("utf-8", "replace").splitlines()
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(lines))
        name, equals, value = lines[at].partition("=")
        way = rng.randrange(8)
        if way == 0:
            del lines[at]
        elif way == 1:
            lines.insert(rng.randrange(len(lines) + 1), lines[at])
        elif way == 2:
            other = rng.choice(lines).partition("=")[0]
            lines[at] = f"{rng.choice((other, name.upper(), name + ' x', ''))}{equals}{value}"
        elif way == 3:
            words = value.strip(" {}").split(",")
            words[rng.randrange(len(words))] = rng.choice(ODD)
            lines[at] = f"{name}{equals} {{{','.join(words)}}}"
        elif way == 4:
            lines[at] = f"{name}{equals} {{{rng.choice(ODD)}}}"
        elif way == 5:
            lines[at] = rng.choice(ODD)
        else:
            lines[at] = f"{name}{equals} {rng.choice(ODD)}"
        if not lines:
            break
    return rng.choice(("\n", "\n", "\r\n", "\r")).join(lines).encode("utf-8", "surrogatepass")


def change_text(data: bytes, rng: Random) -> bytes:
    """Words and lines of any text changed."""
    text = data.decode("latin-1")
    words = text.split(" ")
    for _ in range(rng.choice((1, 2, 5))):
        at = rng.randrange(len(words))
        words[at] = rng.choice((*ODD, words[at] * 2, rng.choice(words)))
    return " ".join(words).encode("utf-8", "surrogatepass")


def change_xml(data: bytes, rng: Random) -> bytes:
    """Elements dropped, doubled, renamed, moved, nested deeply, with odd texts and attributes."""
    root = ElementTree.fromstring(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        parents = [e for e in root.iter() if len(e)]
        if not parents:
            break
        parent = rng.choice(parents)
        at = rng.randrange(len(parent))
        child = parent[at]
        way = rng.randrange(7)
        if way == 0:
            parent.remove(child)
        elif way == 1:
            parent.insert(0, child)
        elif way == 2:
            child.tag = rng.choice(("a", "band", rng.choice(list(root.iter())).tag))
        elif way == 3:
            rng.choice(list(root.iter())).extend(list(parent)[:3] if parent is not root else [])
            if _deep(root):
                break
        elif way == 4 and child.attrib:
            child.set(rng.choice(list(child.attrib)), _plain(rng.choice(ODD)))
        else:
            rng.choice([*parent, *child.iter()]).text = _plain(rng.choice(ODD))
    if _deep(root):  # an element inside itself cannot be written
        return data
    return ElementTree.tostring(root)


def _deep(root: ElementTree.Element) -> bool:
    try:
        return sum(1 for _ in zip(root.iter(), range(20_000), strict=False)) >= 20_000
    except RecursionError:
        return True


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\0", "?").replace("\x1b", "?")


def change_json(data: bytes, rng: Random) -> bytes:
    """Members dropped, renamed, replaced by other kinds of values, lists made deep or long."""
    content = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        holders = [item for item in _nodes(content) if isinstance(item, dict | list) and item]
        if not holders:
            break
        holder = rng.choice(holders)
        key: Any = (
            rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
        )
        way = rng.randrange(6)
        if way == 0:
            del holder[key]
        elif way == 1 and isinstance(holder, dict):
            holder[rng.choice(("type", "coordinates", "geometry", "features", "crs", "x"))] = (
                holder.pop(key)
            )
        elif way == 2:
            holder[key] = [holder[key]] * rng.choice((1, 2, 50))
        elif way == 3:
            holder[key] = {
                "type": rng.choice(("Polygon", "Feature", "GeometryCollection", "MultiPolygon"))
            }
        elif way == 4:
            holder[key] = rng.choice((None, True, False, [], {}, *NUMBERS, "1", 10**400))
        else:
            holder[key] = rng.choice(ODD)
    return json.dumps(content).encode("utf-8", "replace")


def _nodes(item: Any) -> Iterator[Any]:
    yield item
    for part in item.values() if isinstance(item, dict) else item if isinstance(item, list) else ():
        yield from _nodes(part)


def _odd_value(rng: Random) -> Any:
    """A value for an attribute or a dataset."""
    import h5py

    way = rng.randrange(11)
    if way == 0:
        return rng.choice(NUMBERS)
    if way == 1:
        return np.array([rng.choice(NUMBERS[:8]) for _ in range(rng.randrange(6))])
    if way == 2:
        return _plain(rng.choice(ODD))
    if way == 3:
        return np.bytes_(
            rng.choice(ODD).encode("utf-8", "surrogatepass").replace(b"\0", b"") or b"x"
        )
    if way == 4:
        return np.array(
            [_plain(rng.choice(ODD)) for _ in range(rng.randrange(1, 5))], h5py.string_dtype()
        )
    if way == 5:
        return h5py.Empty(rng.choice(("f4", "i8", "S4")))
    if way == 6:
        return np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")])
    if way == 7:
        return np.array([1 + 2j], np.complex64)
    if way == 8:
        return np.zeros(
            rng.choice(((), (0,), (3,), (2, 0), (2, 3), (1, 1, 1), (6, 5, 4))),
            rng.choice(("f8", "u1", "i8")),
        )
    if way == 9:
        return np.array([b"\xff\xfe", b"\xc3("])
    return np.array([True, False])


def change_hdf5(data: bytes, rng: Random) -> bytes:
    """Datasets, groups and attributes dropped, renamed, replaced, linked in loops, of other shapes and types."""
    import io

    import h5py

    stream = io.BytesIO(data)
    with h5py.File(stream, "r+") as file:
        for _ in range(rng.choice((1, 1, 2, 4))):
            names: list[str] = []
            file.visit(names.append)
            if not names:
                break
            name = rng.choice(names)
            item = file[name]
            way = rng.randrange(12)
            try:
                if way == 0:
                    del file[name]
                elif way == 1:
                    file.move(
                        name, rng.choice((name + "_x", "wavelength", rng.choice(names) + "/y"))
                    )
                elif way == 2:
                    del file[name]
                    file[name] = rng.choice(
                        (
                            h5py.SoftLink("/" + name),
                            h5py.SoftLink("/none"),
                            h5py.ExternalLink("other.h5", "/x"),
                        )
                    )
                elif way == 3:
                    file[f"{name}/again"] = file[rng.choice(("/", names[0]))]
                elif way in (4, 5, 6) and isinstance(item, h5py.Dataset):
                    _replace(file, name, item, rng)
                elif way == 7:
                    del file[name]
                    file.create_group(name)
                else:
                    holder = rng.choice((item, file))
                    known = list(holder.attrs)
                    other = rng.choice(
                        (
                            "_FillValue",
                            "Scale_Factor",
                            "units",
                            "MATLAB_class",
                            "MATLAB_sparse",
                            "CLASS",
                        )
                    )
                    holder.attrs[rng.choice(known) if known and way < 11 else other] = _odd_value(
                        rng
                    )
            except (
                KeyError,
                ValueError,
                TypeError,
                OSError,
                RuntimeError,
                OverflowError,
                UnicodeError,
            ):
                continue  # what HDF5 itself refuses to write
    return stream.getvalue()


def _replace(file: Any, name: str, item: Any, rng: Random) -> None:
    values, attributes = item[()], dict(item.attrs)
    way = rng.randrange(6)
    if way == 0 and np.ndim(values):
        values = values[: rng.randrange(len(values) + 1)]
    elif way == 1 and np.ndim(values):
        values = values.T
    elif way == 2 and np.size(values) and np.asarray(values).dtype.kind in "iuf":
        values = np.array(values)
        flat = values.reshape(-1)
        with np.errstate(all="ignore"):
            flat[rng.randrange(flat.size)] = np.float64(rng.choice(NUMBERS)).astype(flat.dtype)
    elif way == 3:
        values = np.asarray(values)[None]
    elif way == 4 and np.asarray(values).dtype.kind in "iuf":
        values = np.asarray(values).astype(rng.choice(("f2", "f8", "u1", "i8", "c8", "S3", ">i4")))
    else:
        values = _odd_value(rng)
    del file[name]
    file[name] = values
    for key, value in attributes.items():
        file[name].attrs[key] = value


def change_tiff(data: bytes, rng: Random) -> bytes:
    """A GeoTIFF with odd tags, scales, no-data values, colours and place."""
    import rasterio
    from rasterio.enums import ColorInterp

    file = Path(tempfile.mkdtemp(), "x.tif")
    file.write_bytes(data)
    with rasterio.open(file, "r+") as raster:
        for _ in range(rng.choice((1, 2, 3))):
            band, odd = rng.choice(raster.indexes), _plain(rng.choice(ODD))
            way = rng.randrange(8)
            try:
                if way == 0:
                    raster.update_tags(
                        band, **{rng.choice(("wavelength", "fwhm", "bbl", "wavelength_units")): odd}
                    )
                elif way == 1:
                    key = rng.choice(
                        ("wavelength", "bbl", "wavelength_units", "data_ignore_value", "fwhm")
                    )
                    raster.update_tags(ns=rng.choice(("ENVI", "")) or None, **{key: odd})
                elif way == 2:
                    raster.nodata = rng.choice(NUMBERS)
                elif way == 3:
                    raster.scales = [rng.choice(NUMBERS) for _ in raster.indexes]
                elif way == 4:
                    raster.offsets = [rng.choice(NUMBERS) for _ in raster.indexes]
                elif way == 5:
                    raster.transform = rasterio.Affine(
                        *[float(rng.choice(NUMBERS)) for _ in range(6)]
                    )
                elif way == 6:
                    raster.set_band_description(
                        band, rng.choice((odd, "Band (4.5)", "450 nm", "(nan)", "(1.2.3)"))
                    )
                else:
                    raster.colorinterp = [
                        rng.choice((ColorInterp.alpha, ColorInterp.red)) for _ in raster.indexes
                    ]
            except (ValueError, OverflowError, rasterio.errors.RasterioError):
                continue
    out = file.read_bytes()
    shutil.rmtree(file.parent)
    return out


def change_png(data: bytes, rng: Random) -> bytes:
    """Chunks changed, dropped, doubled, with right checksums; image data packed anew."""
    import zlib

    chunks, at = [], 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4])
        chunks.append([data[at + 4 : at + 8], data[at + 8 : at + 8 + size]])
        at += 12 + size
    number = rng.randrange(len(chunks))
    kind, body = chunks[number]
    way = rng.randrange(5)
    if way == 0:
        del chunks[number]
    elif way == 1:
        chunks.insert(rng.randrange(len(chunks)), [kind, body])
    elif way == 2:
        other = rng.choice((b"PLTE", b"tRNS", b"tEXt", b"IDAT", b"IHDR"))
        chunks.insert(
            1, [other, bytes(rng.randrange(256) for _ in range(rng.choice((0, 3, 6, 13))))]
        )
    elif kind == b"IDAT":
        chunks[number][1] = zlib.compress(change_bytes(zlib.decompress(body), rng))
    else:
        chunks[number][1] = change_bytes(body, rng)
    out = [len(b).to_bytes(4) + k + b + zlib.crc32(k + b).to_bytes(4) for k, b in chunks]
    return data[:8] + b"".join(out)


def change_packed(data: bytes, rng: Random) -> bytes:
    """What a gzip, xz or MATLAB v7 file holds, changed and packed again, so that checksums are right."""
    import gzip
    import lzma
    import zlib

    if data.startswith(b"\x1f\x8b"):
        return gzip.compress(change_bytes(gzip.decompress(data), rng))
    if data.startswith(b"\xfd7zXZ"):
        return lzma.compress(change_bytes(lzma.decompress(data), rng))
    out, at = data[:128], 128
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<2I", data, at)
        body = data[at + 8 : at + 8 + size]
        if kind == 15 and rng.random() < 0.6:
            body = zlib.compress(change_bytes(zlib.decompress(body), rng))
        out += struct.pack("<2I", kind, len(body)) + body
        at += 8 + size
    return out


def _odd_array(rng: Random) -> np.ndarray:
    shape = rng.choice(
        (
            (),
            (0,),
            (4,),
            (6, 5),
            (6, 5, 4),
            (6, 5, 3),
            (0, 5, 4),
            (6, 5, 1),
            (1, 6, 5, 4),
            (1,) * 20,
        )
    )
    kind = rng.choice(
        ("i2", ">f8", "f2", "u1", "c8", "S5", "U3", "?", "M8[s]", "f8", "i8", "u8", [("a", "i4")])
    )
    values = np.resize(np.arange(7), shape).astype("f8" if kind != [("a", "i4")] else "i4")
    if values.size and rng.random() < 0.5 and values.dtype.kind == "f":
        values.reshape(-1)[rng.randrange(values.size)] = rng.choice(NUMBERS)
    with np.errstate(all="ignore"):
        if kind == "M8[s]":
            return np.zeros(shape, kind)
        out = values.astype(kind)
    return np.asfortranarray(out) if rng.random() < 0.3 else out


def change_npy(data: bytes, rng: Random) -> bytes:
    """Another array, or the header's text changed."""
    import io

    if rng.random() < 0.4:
        stream = io.BytesIO()
        np.save(stream, _odd_array(rng), allow_pickle=False)
        return stream.getvalue()
    length = int.from_bytes(data[8:10], "little")
    header = data[10 : 10 + length].decode("latin-1")
    form = rng.choice(("<i2", "|O", "<M8[s]", "|V9", "<f16", "", "zz", "<U9999999999"))
    order = "False"
    shape = rng.choice(
        ("(6, 5, 4)", "(-1, 5)", "(2**70,)", f"({2**63 - 1}, 2, 2)", "(6.0, 5, 4)", "(True,)", "()", "6", "(0, 5)",
         "(1,)*99", "None", "(" * 90 + ")" * 90, f"({10**6}, {10**6}, 1)", "(0, 99999999999999999999)")
    )  # fmt: skip
    order = rng.choice((order, "True", "1", "None"))
    header = rng.choice(
        (
            header[: length // 2],
            f"{{'descr': '{form}', 'fortran_order': {order}, 'shape': {shape}, }}",
        )
    )
    text = header.encode("latin-1").ljust(length - 1) + b"\n"
    return data[:8] + len(text).to_bytes(2, "little") + text + data[10 + length :]


def change_npz(data: bytes, rng: Random) -> bytes:
    """Arrays of an archive dropped, renamed, replaced."""
    import io
    import zipfile

    stream = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as old,
        zipfile.ZipFile(stream, "w", rng.choice((0, 8))) as new,
    ):
        for info in old.infolist():
            member, name = old.read(info), info.filename
            if rng.random() < 0.5:
                member = rng.choice((change_npy, change_npy, change_bytes))(member, rng)
            if rng.random() < 0.2:
                name = rng.choice(
                    ("x.npy", "wavelength.npy", "cube.npy", "../x.npy", "a/b.npy", ".npy", "x.txt")
                )
            if rng.random() > 0.1:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    new.writestr(name, member)
    return stream.getvalue()


def change_mat(data: bytes, rng: Random) -> bytes:
    """Other variables: odd arrays, structs, cells, texts."""
    import io

    from scipy.io import loadmat, savemat

    stored = {k: v for k, v in loadmat(io.BytesIO(data)).items() if not k.startswith("__")}
    for _ in range(rng.choice((1, 2, 3))):
        name = rng.choice((*stored, "wavelength", "fwhm", "units", "x"))
        array = _odd_array(rng)
        while array.dtype.kind == "M" or array.dtype.names:
            array = _odd_array(rng)
        cell = np.empty(rng.choice(((1,), (2, 1), (0, 0))), object)
        for at in np.ndindex(cell.shape):
            cell[at] = rng.choice((array, _plain(rng.choice(ODD))[:50], 3.0))
        stored[name] = rng.choice(
            (array, array, cell, {"a": array, "units": "nm"}, _plain(rng.choice(ODD)), 1.5)
        )
        if rng.random() < 0.2:
            del stored[name]
    stream = io.BytesIO()
    try:
        savemat(
            stream, stored, do_compression=rng.random() < 0.5, oned_as=rng.choice(("row", "column"))
        )
    except (ValueError, TypeError, KeyError, UnicodeError):
        return data
    return stream.getvalue()


WAYS: dict[str, tuple[Callable[[bytes, Random], bytes], tuple[str, ...]]] = {
    "header": (change_header, (".hdr",)),
    "text": (change_text, (".txt", ".xml")),
    "xml": (change_xml, (".xml",)),
    "json": (change_json, (".json", ".geojson")),
    "hdf5": (change_hdf5, (".h5", ".nc", ".mat", ".he5")),
    "tiff": (change_tiff, (".tif", ".tiff")),
    "npy": (change_npy, (".npy",)),
    "npz": (change_npz, (".npz",)),
    "mat": (change_mat, (".mat",)),
    "png": (change_png, (".png",)),
    "packed": (change_packed, (".gz", ".xz", ".mat")),
}


def changed(seed: Seed, rng: Random) -> Files:
    """The seed's files, one or two of them changed, or missing."""
    files = dict(seed.files)
    for _ in range(rng.choice((1, 1, 1, 2))):
        file = rng.choice(seed.changed)
        ways = [WAYS[w][0] for w in seed.ways if file.lower().endswith(WAYS[w][1])]
        if file not in files:
            continue
        if len(seed.files) > 1 and rng.random() < 0.03:
            del files[file]
        elif ways and files[file] == seed.files[file] and rng.random() < 0.6:
            files[file] = rng.choice(ways)(files[file], rng)
        else:
            files[file] = change_bytes(files[file], rng)
    return files


# --- reading --------------------------------------------------------------------------------------


class Wrong(Exception):
    """What a reader returned is not what it promises."""


def read_all(path: Path, use: str) -> str:
    """Read a file as the workflow does. "opened"; UserError when it is refused.

    Raises:
        Wrong: for what is not as it should be.
        UserError: of the readers.
    """
    return {
        "scene": _scene,
        "labels": _labels,
        "probabilities": _probabilities,
        "mask": _mask,
        "area": _area,
        "archive": _archive,
    }[use](path)


def _right(holds: bool, what: str) -> None:
    if not holds:
        raise Wrong(what)


def _said(source: Any) -> None:
    for text in (*source.notes, *source.doubts.values()):
        _right(len(text) < 2000, f"a note or doubt of {len(text)} characters: {text[:200]!r}")
    _right(all(n > 0 for n in source.shape), f"shape {source.shape}")


def _scene(path: Path) -> str:
    from special_steps.core.errors import UserError
    from special_steps.ingest import calibrate
    from special_steps.io.bands import choose_bands
    from special_steps.io.fill import missing_values
    from special_steps.io.source import open_source, source_files

    planned = source_files(path)
    source = open_source(path)
    folder = path if path.is_dir() else path.parent
    for file in (*source.files, *planned):
        inside = Path(os.path.abspath(file)).is_relative_to(os.path.abspath(folder))
        _right(inside, f"reads {file}, outside of the scene's folder")
    _said(source)
    count, height, width = source.shape
    options = {"scale": None, "bad_ranges": [], "drop_bands": []}
    try:
        choose_bands(source, wavelengths=None, **options)
    except UserError as error:
        _one_line(error, path)
    if "scale" in source.doubts:
        options["scale"] = 1.0
    bands = choose_bands(source, wavelengths=WAVELENGTHS, **options)
    _right(len(bands.scale) == len(bands.offset) == len(bands.nm) == len(bands.good), "lengths")
    side = max(1, min(8, int((4_000_000 / count) ** 0.5)))
    rows = slice(height // 2, min(height // 2 + side, height))
    columns = slice(width // 3, min(width // 3 + side, width))
    size = (rows.stop - rows.start, columns.stop - columns.start)
    block = source.read(rows, columns)
    _right(block.shape == (count, *size), f"block of shape {block.shape} of {source.shape}")
    _right(block.dtype.kind in "buif", f"values of {block.dtype}")
    missing = missing_values(block, source.nodata)
    with np.errstate(all="ignore"):
        calibrate(block[bands.position], missing[bands.position], bands.scale, bands.offset)
    for name, window in {"masked": source.masked, **source.quality}.items():
        if window is not None:
            layer = window(rows, columns)
            _right(
                layer.shape == size and layer.dtype == bool, f"{name}: {layer.shape} {layer.dtype}"
            )
    return "opened"


def _grid() -> Any:
    from rasterio.crs import CRS

    from special_steps.core.store import Grid

    return Grid(CRS.from_epsg(EPSG).to_wkt(version="WKT2_2019"), TRANSFORM)


def _labels(path: Path) -> str:
    from special_steps.core.errors import UserError
    from special_steps.io.ground_truth import read_ground_truth

    failed = None
    for align, colours in ((False, False), (True, False), (False, True)):
        try:
            found = read_ground_truth(
                path,
                variable=None,
                axes=None,
                shape=None,
                labels={name: i for i, name in enumerate(CLASSES, 1)},
                unlabelled=[0],
                colours=colours,
                align=align,
                class_names=CLASSES,
                scene_shape=SHAPE,
                scene_grid=_grid(),
            )
        except UserError as error:
            _one_line(error, path)
            failed = failed or error
            continue
        _right(found.shape == SHAPE and found.dtype == np.uint8 and found.max() <= 3, "labels")
        failed = None
        break
    if failed:
        raise failed
    return "opened"


def _probabilities(path: Path) -> str:
    from special_steps.io.pseudo_labels import read_probabilities

    nodata = np.zeros(SHAPE, bool)
    found = read_probabilities(path, CLASSES, nodata, grid=_grid(), align=False)
    _right(found.shape == (3, *SHAPE) and bool(np.isfinite(found).all()), "probabilities")
    return "opened"


def _mask(path: Path) -> str:
    from special_steps.io.record import Source
    from special_steps.io.scene_mask import scene_mask

    grid = _grid()
    scene = Source(
        [path.with_name("the scene")],
        (3, *SHAPE),
        lambda rows, columns: np.zeros((3, *SHAPE))[:, rows, columns],
        crs=grid.crs,
        transform=grid.transform,
    )
    mask = {"path": path, "values": None, "align": False}
    found, _ = scene_mask(scene, mask=mask, mask_quality=None, area=None)
    _right(found.shape == SHAPE and found.dtype == bool, "mask")
    return "opened"


def _area(path: Path) -> str:
    from special_steps.io.vectors import inside, read_polygons

    polygons, _ = read_polygons(path)
    _right(all(p.geom_type in ("Polygon", "MultiPolygon") for p in polygons), "polygons")
    found = inside(path, *_grid(), SHAPE)
    _right(found.shape == SHAPE and found.dtype == bool, "area")
    return "opened"


def _archive(path: Path) -> str:
    from special_steps.unpack import unpack

    out = path.parent / "unpacked" / "scene"
    out.parent.mkdir()
    before = sorted(path.parent.parent.iterdir())
    unpack(archive=path, out=out)
    _right(sorted(path.parent.parent.iterdir()) == before, "written outside")
    _right(not any(f.is_symlink() for f in out.rglob("*")), "a link")
    return "opened"


def _one_line(error: BaseException, path: Path) -> None:
    text = str(error)
    _right(len(text.splitlines()) == 1, f"an error of several lines: {text[:300]!r}")
    _right(len(text) < 2000, f"an error of {len(text)} characters: {text[:300]!r}")
    named = str(path.parent) in text or path.name in text or path.stem in text
    _right(named, f"an error that names no file: {text[:300]!r}")


def outcome(path: Path, use: str) -> tuple[str, str]:
    """("opened" | "refused" | "finding", what it is)."""
    from special_steps.core.errors import UserError

    try:
        try:
            return read_all(path, use), ""
        except UserError as error:
            _one_line(error, path)
            return "refused", str(error)
    except Wrong as error:
        return "finding", f"wrong: {error}"
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)
        ours = [f for f in last if "special_steps" in f.filename]
        where = "; ".join(
            f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in (*ours[-2:], last[-1])
        )
        text = " ".join(str(error).split())
        return "finding", f"{type(error).__name__} at {where}: {text[:200]}"


def write_case(files: Files, folder: Path) -> None:
    """The files of a case."""
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def case_files(seed: Seed, number: int) -> Files:
    """Case `number` of a format; always the same."""
    return changed(seed, Random(f"{seed.name} {number}"))


# --- child processes ------------------------------------------------------------------------------


def limit_memory() -> None:
    """Let this process take MEMORY bytes more than it has now; maps of files do not count."""
    status = Path("/proc/self/status").read_text()
    data = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (data * 1024 + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _child(write: int, jobs: list[tuple[Seed, int]], folder: Path) -> None:
    """Work through jobs; of each, a line when it begins and one when it ends."""
    limit_memory()
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)
    with os.fdopen(write, "w") as report, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for place, (seed, number) in enumerate(jobs):
            here = folder / f"{seed.name}-{number}"
            write_case(case_files(seed, number), here)
            print(json.dumps([place, "begin", ""]), file=report, flush=True)
            kind, text = outcome(here / seed.entry, seed.use)
            print(json.dumps([place, kind, text]), file=report, flush=True)
            shutil.rmtree(here, ignore_errors=True)


def run_jobs(jobs: list[tuple[Seed, int]]) -> Iterator[tuple[Seed, int, str, str]]:
    """Each job's outcome; a child that hangs or dies is a finding, and another goes on."""
    while jobs:
        with tempfile.TemporaryDirectory() as folder:
            read, write = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(read)
                try:
                    _child(write, jobs, Path(folder))
                except BaseException:
                    traceback.print_exc(file=sys.stdout)
                finally:
                    os._exit(0)
            os.close(write)
            done, begun, buffer, ended = -1, -1, b"", ""
            while True:
                ready, _, _ = select.select([read], [], [], SECONDS)
                chunk = os.read(read, 65536) if ready else b""
                if not chunk:
                    ended = "" if ready else f"more than {SECONDS} s"
                    break
                buffer += chunk
                *lines, buffer = buffer.split(b"\n")
                for line in lines:
                    place, kind, text = json.loads(line)
                    if kind == "begin":
                        begun = place
                        continue
                    done = place
                    yield (*jobs[place], kind, text)
            os.close(read)
            if ended:
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if done + 1 >= len(jobs):
                return
            if begun > done:
                died = f"the process ended with signal {os.WTERMSIG(status)}" if status else "ended"
                yield (*jobs[begun], "finding", ended or died)
            else:  # the library that writes the changes could not
                yield (*jobs[done + 1], "unmade", "")
            jobs = jobs[max(begun, done + 1) + 1 :]


def tried(path: Path, use: str = "scene") -> tuple[str, str]:
    """The outcome of one file, read in a child process with a limit of memory and time."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            limit_memory()
            os.write(write, json.dumps(outcome(path, use)).encode())
        finally:
            os._exit(0)
    os.close(write)
    answer = b""
    while True:
        ready, _, _ = select.select([read], [], [], SECONDS)
        chunk = os.read(read, 65536) if ready else b""
        if not chunk:
            break
        answer += chunk
    os.close(read)
    if not ready:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if answer:
        kind, text = json.loads(answer)
        return kind, text
    why = f"the process ended with status {status}" if ready else f"more than {SECONDS} s"
    return "finding", why


def main() -> None:
    """Try files until the time is over; print what happened."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", nargs="*", default=[])
    parser.add_argument("--case", type=int, help="only this one, in this process")
    parser.add_argument("--texts", type=Path, help="file for the texts of refusals")
    parser.add_argument("--keep", type=Path, help="folder for the files of findings")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        known = seeds(Path(folder))
    known = [s for s in known if not options.format or s.name in options.format]
    import special_steps.ingest
    import special_steps.io.source
    import special_steps.unpack  # noqa: F401 (loaded once, before children are made)

    if options.case is not None:
        with tempfile.TemporaryDirectory() as folder:
            for seed in known:
                here = Path(folder, f"{seed.name}-{options.case}")
                write_case(case_files(seed, options.case), here)
                if options.keep:
                    write_case(case_files(seed, options.case), options.keep / here.name)
                print(*outcome(here / seed.entry, seed.use))
                read_all(here / seed.entry, seed.use)
        return
    end = time.monotonic() + 60 * options.minutes
    counts = {seed.name: Counter[str]() for seed in known}
    found: Counter[str] = Counter()
    number = options.seed * 10**9
    while time.monotonic() < end:
        jobs = [(seed, number + i) for i in range(5) for seed in known]
        number += 5
        for seed, case, kind, text in run_jobs(jobs):
            counts[seed.name][kind] += 1
            if options.texts and kind == "refused":
                with options.texts.open("a") as file:
                    print(seed.name, case, text, sep="\t", file=file)
            if kind != "finding":
                continue
            place = text.split(": ")[0] + (text[:60] if text.startswith("wrong") else "")
            found[place] += 1
            if found[place] <= 3:
                print(f"{seed.name} {case}: {text}", flush=True)
                if options.keep:
                    shutil.rmtree(options.keep / f"{seed.name}-{case}", ignore_errors=True)
                    write_case(case_files(seed, case), options.keep / f"{seed.name}-{case}")
    print("format\ttried\topened\trefused\tfindings\tunmade")
    total: Counter[str] = Counter()
    for name, count in counts.items():
        total += count
        print(
            name,
            count.total(),
            count["opened"],
            count["refused"],
            count["finding"],
            count["unmade"],
            sep="\t",
        )
    print(
        "all",
        total.total(),
        total["opened"],
        total["refused"],
        total["finding"],
        total["unmade"],
        sep="\t",
    )
    for place, times in found.most_common():
        print(times, place, sep="\t")


if __name__ == "__main__":
    main()
