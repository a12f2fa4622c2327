"""Hostile and damaged files: each is read, or refused with one line, in bounded time and memory, and nothing is run."""

import gzip
import io
import json
import os
import pickle
import struct
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random

import h5py
import hypothesis.strategies as st
import mutations
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from mutations import ENVI_HEADER, Seed, tried

from special_steps.core.errors import UserError
from special_steps.io.source import open_source

QUICK = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    suppress_health_check=list(HealthCheck),
)
HUGE = 10**6  # pixels on a side


@cache
def known() -> dict[str, Seed]:
    with tempfile.TemporaryDirectory() as folder:
        return {seed.name: seed for seed in mutations.seeds(Path(folder))}


# --- a short corpus -------------------------------------------------------------------------------


def test_changed_files_are_read_or_refused() -> None:
    """The same files each time; more of them: tests/benchmarks/mutations.py."""
    jobs = [(seed, number) for number in range(8) for seed in known().values()]
    found = list(mutations.run_jobs(jobs))
    assert len(found) == len(jobs)
    assert [(seed.name, case, text) for seed, case, kind, text in found if kind == "finding"] == []
    kinds = [kind for *_, kind, _ in found]
    assert (
        min(kinds.count("opened"), kinds.count("refused")) > 50
    )  # the changes are neither too mild nor too wild


def test_unchanged_files_are_read() -> None:
    for seed in known().values():
        with tempfile.TemporaryDirectory() as folder:
            at = Path(folder, "it")
            mutations.write_case(seed.files, at)
            assert mutations.outcome(at / seed.entry, seed.use) == ("opened", ""), seed.name


FIELDS = [line.partition(" =")[0] for line in ENVI_HEADER.splitlines() if " = " in line]
VALUES = st.one_of(
    st.sampled_from(mutations.ODD),
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(str),
    st.lists(st.floats(), max_size=6).map(lambda v: "{" + ", ".join(map(str, v)) + "}"),
    st.text(st.characters(codec="utf-8"), max_size=40),
)


@QUICK
@given(st.lists(st.tuples(st.sampled_from(FIELDS), VALUES), min_size=1, max_size=3), st.randoms())
def test_headers_with_odd_values(odd: list[tuple[str, str]], rng: Random) -> None:
    lines = ENVI_HEADER.splitlines()
    for name, value in odd:
        lines = [line for line in lines if not line.startswith(f"{name} =")]
        lines.insert(rng.randint(1, len(lines)), f"{name} = {value}")
    _read_header("\n".join(lines).encode("utf-8", "surrogatepass"))


@QUICK
@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_as_header(data: bytes, begins_right: bool) -> None:
    _read_header(b"ENVI\n" * begins_right + data)


def _read_header(data: bytes) -> None:
    seed = known()["envi"]
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder, "it")
        mutations.write_case({**seed.files, "scene.hdr": data}, at)
        kind, text = mutations.outcome(at / "scene.hdr", "scene")
    assert kind != "finding", text


@QUICK
@given(st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.sampled_from(["Polygon", "Feature"]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(
        st.sampled_from(["type", "coordinates", "geometry", "geometries", "features", "crs", "properties"]), inner),
    max_leaves=12,
))  # fmt: skip
def test_any_json_as_area(content: object) -> None:
    wrapped = {"type": "FeatureCollection", "features": [content]}
    with tempfile.TemporaryDirectory() as folder:
        for name, item in (("a.geojson", content), ("b.geojson", wrapped)):
            Path(folder, name).write_text(json.dumps(item))
            kind, text = mutations.outcome(Path(folder, name), "area")
            assert kind != "finding", text


# --- files that promise more than they hold -------------------------------------------------------


def refused(path: Path, *words: str, use: str = "scene") -> None:
    kind, text = tried(path, use)
    assert kind == "refused", text
    assert all(word in text for word in words), text


def test_envi_of_a_million_million_pixels(tmp_path: Path) -> None:
    header = ENVI_HEADER.replace("samples = 5", f"samples = {HUGE}").replace(
        "lines = 6", f"lines = {HUGE}"
    )
    (tmp_path / "scene.hdr").write_text(header)
    (tmp_path / "scene.img").write_bytes(bytes(100))
    refused(tmp_path / "scene.hdr", "cut short")
    with (tmp_path / "scene.img").open("wb") as file:
        file.truncate(8 * HUGE**2)  # all holes: a window is read, and no more
    assert tried(tmp_path / "scene.hdr") == ("opened", "")


def test_tiff_of_a_million_million_pixels(tmp_path: Path) -> None:
    path = tmp_path / "scene.tif"
    mutations.write_tiff(path, np.ones((2, 6, 5), np.int16))
    data = bytearray(path.read_bytes())
    place = int.from_bytes(data[4:8], "little")
    for at in range(
        place + 2, place + 2 + 12 * int.from_bytes(data[place : place + 2], "little"), 12
    ):
        if int.from_bytes(data[at : at + 2], "little") in (256, 257):  # ImageWidth, ImageLength
            data[at : at + 12] = struct.pack("<HHII", data[at] + 256, 4, 1, HUGE)
    path.write_bytes(data)
    kind, text = tried(path)  # GDAL takes strips that are not there for zeros
    assert kind in ("opened", "refused"), text


def test_hdf5_of_a_million_million_pixels_never_written(tmp_path: Path) -> None:
    for written in (False, True):
        with h5py.File(tmp_path / "scene.h5", "w") as file:
            cube = file.create_dataset("cube", (HUGE, HUGE, 4), "f4", chunks=(16, 16, 4))
            if written:
                cube[:16, :16] = 1.0
        refused(tmp_path / "scene.h5")


def test_numpy_of_a_million_million_pixels(tmp_path: Path) -> None:
    stream = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (HUGE, HUGE, 4)}
    np.lib.format.write_array_header_1_0(stream, header)
    (tmp_path / "scene.npy").write_bytes(stream.getvalue() + bytes(100))
    refused(tmp_path / "scene.npy", "truncated")
    with zipfile.ZipFile(tmp_path / "scene.npz", "w") as archive:
        archive.writestr("cube.npy", stream.getvalue() + bytes(100))
    refused(tmp_path / "scene.npz", "truncated")


def test_npz_whose_header_is_a_bomb(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "scene.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("cube.npy", "w", force_zip64=True) as member,
    ):
        member.write(b"\x93NUMPY\2\0" + (2**31).to_bytes(4, "little"))
        for _ in range(64):
            member.write(bytes(1 << 20))
    refused(tmp_path / "scene.npz", "a header of")


def test_netcdf3_of_a_million_million_pixels(tmp_path: Path) -> None:
    data = known()["netcdf3"].files["scene.nc"]
    for old in (6, 5):  # lengths of y and x in the list of dimensions
        name = b"yx"[6 - old : 7 - old].ljust(4, b"\0")
        data = data.replace(name + old.to_bytes(4), name + HUGE.to_bytes(4), 1)
    (tmp_path / "scene.nc").write_bytes(data)
    refused(tmp_path / "scene.nc")


@pytest.mark.parametrize("name", ["mat5", "mat4"])
def test_matlab_of_a_million_million_pixels(tmp_path: Path, name: str) -> None:
    (file,) = known()[name].files
    data = known()[name].files[file]
    sizes = struct.pack("<2i", 6, 5)
    assert sizes in data
    (tmp_path / file).write_bytes(data.replace(sizes, struct.pack("<2i", HUGE, HUGE), 1))
    refused(tmp_path / file, use="labels" if name == "mat4" else "scene")


def test_sparse_matrices_that_would_fill_the_memory(tmp_path: Path) -> None:
    from scipy.io import savemat
    from scipy.sparse import csc_matrix

    savemat(tmp_path / "a.mat", {"gt": csc_matrix(([1.0], ([0], [0])), shape=(10**6, 10**5))})
    refused(tmp_path / "a.mat", use="labels")
    with h5py.File(tmp_path / "b.mat", "w") as file:
        group = file.create_group("gt")
        group.attrs["MATLAB_sparse"] = np.uint64(2**60)
        group["data"], group["ir"], group["jc"] = [1.0], [0], [0, 1, 1]
    refused(tmp_path / "b.mat", use="labels")


def test_matlab_cells_that_hold_themselves(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "scene.mat", "w") as file:
        for name, size in (("loop", 1), ("huge", 10**5)):
            cell = file.create_dataset(name, (size, size), h5py.ref_dtype, chunks=(1, 1))
            cell.attrs["MATLAB_class"] = np.bytes_("cell")
            cell[0, 0] = cell.ref
        file["cube"] = np.ones((4, 5, 6))
    assert tried(tmp_path / "scene.mat") == ("opened", "")


def test_attributes_of_a_hundred_megabytes(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "scene.h5", "w", libver="latest") as file:
        cube = file.create_dataset("cube", data=np.ones((6, 5, 4), np.float32))
        cube.attrs["wavelength"] = np.zeros(100 << 17)
        cube.attrs["_FillValue"] = "9" * (100 << 20)
    kind, text = tried(tmp_path / "scene.h5")
    assert kind in ("opened", "refused"), text


@pytest.mark.parametrize("file", ["scene.hdr", "METADATA.XML", "area.geojson"])
def test_texts_of_a_gigabyte(tmp_path: Path, file: str) -> None:
    name = {"scene.hdr": "envi", "METADATA.XML": "enmap", "area.geojson": "geojson"}[file]
    seed = known()[name]
    mutations.write_case(seed.files, tmp_path / "it")
    changed = next(f for f in seed.files if f.endswith(file))
    with (tmp_path / "it" / changed).open("r+b") as stream:
        stream.truncate(1 << 30)
    refused(tmp_path / "it" / seed.entry, use=seed.use)


# --- files that lead elsewhere --------------------------------------------------------------------


@pytest.mark.parametrize("way", ["link", "storage", "virtual"])
@pytest.mark.parametrize("name", ["scene.h5", "scene.mat"])
def test_hdf5_that_leads_to_other_files(tmp_path: Path, way: str, name: str) -> None:
    values = np.arange(120, dtype=np.float32).reshape(6, 5, 4)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["cube"] = values
    values.tofile(tmp_path / "other.raw")
    with h5py.File(tmp_path / name, "w") as file:
        if way == "link":
            file["cube"] = h5py.ExternalLink("other.h5", "/cube")
        elif way == "storage":
            file.create_dataset(
                "cube", (6, 5, 4), "f4", external=[("other.raw", 0, h5py.h5f.UNLIMITED)]
            )
        else:
            layout = h5py.VirtualLayout((6, 5, 4), "f4")
            layout[:] = h5py.VirtualSource("other.h5", "cube", (6, 5, 4))
            file.create_virtual_dataset("cube", layout)
    refused(tmp_path / name)


def test_a_product_with_a_link_to_another_file_is_none(tmp_path: Path) -> None:
    seed = known()["emit"]
    mutations.write_case(seed.files, tmp_path / "it")
    path = tmp_path / "it" / seed.entry
    with h5py.File(path, "r+") as file:
        file.move("sensor_band_parameters/fwhm", "fwhm")
        file["sensor_band_parameters/fwhm"] = h5py.ExternalLink("other.h5", "/fwhm")
    with suppress(UserError):
        assert open_source(path).kind != "EMIT L2A"


@pytest.mark.parametrize(
    "odd", [3, np.array([b"", b"y"]), np.zeros(3), h5py.Empty("S4"), np.array(["", "", ""], "O")]
)
@pytest.mark.parametrize("attribute", ["DIMENSION_LIST", "DIMENSION_LABELS", "NAME", "CLASS"])
def test_names_of_axes_that_are_none(tmp_path: Path, attribute: str, odd: object) -> None:
    """HDF5's own functions end the process over them."""
    seed = known()["cf"]
    mutations.write_case(seed.files, tmp_path / "it")
    path = tmp_path / "it" / seed.entry
    with h5py.File(path, "r+") as file:
        items = list(file.values())
        for item in items:
            if attribute in item.attrs or attribute == "DIMENSION_LABELS":
                item.attrs[attribute] = odd
    kind, text = tried(path)
    assert kind in ("opened", "refused"), text


class Runs:
    """Its pickle would make a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, (str(self.file),)


def test_pickles_are_not_run(tmp_path: Path) -> None:
    made = tmp_path / "made"
    array = np.array([Runs(made)], object)
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    np.savez(tmp_path / "b.npz", cube=array)
    (tmp_path / "c.npy").write_bytes(pickle.dumps(Runs(made)))
    for name in ("a.npy", "b.npz", "c.npy"):
        refused(tmp_path / name)
    assert not made.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes with names")
@pytest.mark.parametrize(
    ("name", "file"),
    [("envi", "scene.hdr"), ("envi", "scene.img"), ("tiff", "scene.tif"), ("npy", "scene.npy"), ("hdf5", "scene.h5"),
     ("mat5", "scene.mat"), ("tiff-sidecars", "scene.tif.aux.xml"), ("tiff-envi", "scene.hdr"), ("shp", "area.prj"),
     ("enmap", "SPECTRAL_IMAGE.TIF"), ("enmap", "QL_QUALITY_CLOUD.TIF"), ("enmap", "METADATA.XML"),
     ("hyperion", "_MTL_L1T.TXT"), ("mask-tif", "mask.tif"), ("geojson", "area.geojson"), ("shp", "area.shp"),
     ("zip", "scene.zip"), ("probabilities-npz", "p.npz"), ("probabilities-tif", "p.tif"), ("labels-mat", "gt.mat")],
)  # fmt: skip
def test_pipes_do_not_hang(tmp_path: Path, name: str, file: str) -> None:
    seed = known()[name]
    mutations.write_case(seed.files, tmp_path / "it")
    changed = next(f for f in seed.files if f.endswith(file))
    (tmp_path / "it" / changed).unlink()
    os.mkfifo(tmp_path / "it" / changed)
    kind, text = tried(tmp_path / "it" / seed.entry, seed.use)
    assert kind in ("opened", "refused"), text


def test_links_in_a_loop(tmp_path: Path) -> None:
    for name in ("scene.hdr", "scene.tif", "scene.npy"):
        (tmp_path / name).symlink_to(tmp_path / name)
        refused(tmp_path / name)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "again").symlink_to(folder)
    refused(folder)


# --- archives -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../out.img", "/tmp/out.img", "a/../../out.img", "..\\out.img", "C:\\out.img"]
)
def test_archives_that_write_elsewhere(tmp_path: Path, name: str) -> None:
    at = tmp_path / "it"
    at.mkdir()
    with zipfile.ZipFile(at / "a.zip", "w") as packed:
        packed.writestr(name, b"x")
    with tarfile.open(at / "b.tar", "w") as packed:
        packed.addfile(tarfile.TarInfo(name), io.BytesIO())
    refused(at / "a.zip", use="archive")
    (at / "unpacked").rmdir()
    refused(at / "b.tar", use="archive")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_archives_with_links_and_devices(tmp_path: Path, kind: bytes) -> None:
    at = tmp_path / "it"
    at.mkdir()
    with tarfile.open(at / "b.tar", "w") as packed:
        info = tarfile.TarInfo("scene.img")
        info.type, info.linkname = kind, "/etc/passwd"
        packed.addfile(info)
    refused(at / "b.tar", "link or device", use="archive")


def test_archives_that_unpack_to_more_than_the_disk_holds(tmp_path: Path) -> None:
    at = tmp_path / "it"
    at.mkdir()
    with zipfile.ZipFile(at / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("scene.img", bytes(1 << 20))
    data = (at / "a.zip").read_bytes()
    central = data.rindex(b"PK\1\2")
    lied = data[: central + 24] + (2**32 - 2).to_bytes(4, "little") + data[central + 28 :]
    (at / "a.zip").write_bytes(lied)  # one file of 4 GiB by its own account
    refused(at / "a.zip", use="archive")
    with tarfile.open(at / "b.tar", "w") as packed:
        info = tarfile.TarInfo("scene.img")
        packed.addfile(info)
    data = bytearray((at / "b.tar").read_bytes())
    data[124:136] = b"\x80" + (2**60).to_bytes(11)
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + 8 * 32 + sum(data[156:512]))
    (at / "b.tar").write_bytes(data)
    (at / "unpacked").rmdir()
    refused(at / "b.tar", use="archive")


def test_archives_whose_names_are_bombs(tmp_path: Path) -> None:
    at = tmp_path / "it"
    at.mkdir()
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 3 << 30
    with gzip.open(at / "b.tar.gz", "wb") as stream:
        stream.write(info.tobuf() + bytes(1 << 20))
    refused(at / "b.tar.gz", "a name or other attribute of", use="archive")


# --- texts that grow, nest, or name files ---------------------------------------------------------

LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12))


@pytest.mark.parametrize(
    "entities", [f'<!ENTITY l0 "ha">{LAUGHS}', '<!ENTITY l11 SYSTEM "file:///etc/passwd">']
)
def test_entities_in_metadata(tmp_path: Path, entities: str) -> None:
    seed = known()["enmap"]
    mutations.write_case(seed.files, tmp_path / "it")
    path = next((tmp_path / "it").rglob("*METADATA.XML"))
    text = path.read_text()
    body = text[text.index("?>") + 2 :] if text.startswith("<?xml") else text
    path.write_text(f"<!DOCTYPE x [{entities}]>{body.replace('</', '&l11;</', 1)}")
    kind, told = tried(tmp_path / "it" / seed.entry)
    assert kind == "refused", told
    assert "root:" not in told


def test_json_nested_deeply(tmp_path: Path) -> None:
    path = tmp_path / "area.geojson"
    path.write_text(
        '{"type": "FeatureCollection", "features": ' + "[" * 200_000 + "]" * 200_000 + "}"
    )
    refused(path, use="area")
    inner = '{"type": "GeometryCollection", "geometries": [' * 400
    path.write_text(f"{inner}{']}' * 400}")
    refused(path, use="area")


def test_polygon_of_many_vertices(tmp_path: Path) -> None:
    count, (left, top) = 100_000, (mutations.TRANSFORM[2] + 75, mutations.TRANSFORM[5] - 90)
    angle = np.linspace(0, 2 * np.pi, count)
    radius = 40 + np.sin(angle * 1000)
    ring = np.stack([left + radius * np.cos(angle), top + radius * np.sin(angle)], 1)
    ring[-1] = ring[0]
    crs = {"type": "name", "properties": {"name": f"EPSG:{mutations.EPSG}"}}
    path = tmp_path / "area.geojson"
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring.tolist()], "crs": crs}))
    assert tried(path, "area") == ("opened", "")


def test_error_texts_are_one_line_that_a_terminal_does_not_obey() -> None:
    assert str(UserError("a\nb\x1b[31m\u2028c\ud800 d")) == "a b?[31m c? d"
