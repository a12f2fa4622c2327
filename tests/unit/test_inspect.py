"""Inspect: what it says of each format is right, and the config that it prints works as it is."""

import subprocess
import sys
import zipfile
from pathlib import Path

import aviris3_files
import aviris_files
import cf_files
import desis_files
import emit_files
import enmap_files
import hyperion_files
import neon_files
import numpy as np
import prisma_files
import pytest
import tanager_files
import yaml
from defaults import INGEST
from PIL import Image
from rasters import write_envi, write_tiff
from scipy.io import savemat

from special_steps.core import cli
from special_steps.core.errors import UserError
from special_steps.core.settings import load
from special_steps.core.store import open_store
from special_steps.ingest import ingest
from special_steps.inspect import inspect

ROOT = Path(cli.__file__).resolve().parents[2]
PRODUCTS = {
    "aviris3": lambda f: aviris3_files.write(f).path,
    "aviris_ng": lambda f: aviris_files.write_ng(f).header,
    "aviris_classic": lambda f: aviris_files.write_classic(f).data,
    "cf": lambda f: cf_files.write(f / "cube.nc").path,
    "desis": lambda f: desis_files.write(f).folder,
    "emit": lambda f: emit_files.write(f).path,
    "enmap": lambda f: enmap_files.write(f / "enmap").folder,
    "hyperion": lambda f: hyperion_files.write(f / "hyperion").folder,
    "neon": lambda f: neon_files.write(f).path,
    "prisma": lambda f: prisma_files.write(f).path,
    "tanager": lambda f: tanager_files.write(f).path,
    "envi": lambda f: write_envi(f, wavelength="{500, 600, 700}"),
    "tiff": lambda f: write_tiff(f / "2020-01-01 on.tif"),
}


def config_in(text: str) -> dict:
    """The printed config, as the workflow takes it."""
    _, _, rest = text.partition("my.yaml:\n\n")
    return load(yaml.safe_load(rest.partition("\n\nThen run")[0]))


def ingested(folder: Path, config: dict):
    (scene,) = config["scenes"].values()
    cube = dict(scene["cube"])
    masks = {key: scene[key] for key in ("mask", "mask_quality", "area")}
    ingest(cube=[Path(cube.pop("path"))], out=folder / "cube.zarr", **INGEST | cube | masks)
    return open_store(folder / "cube.zarr")


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_config_works_as_it_is(tmp_path, monkeypatch, capsys, name):
    (tmp_path / "in").mkdir()
    path = PRODUCTS[name](tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    inspect(path, classes="open water, trees: all, #3")
    text = capsys.readouterr().out
    config = config_in(text)
    (scene,) = config["scenes"].values()
    assert list(scene["classes"]) == ["open water", "trees: all", "#3"]
    store = ingested(tmp_path, config)
    height, width = store["nodata"].shape
    assert f"{height} x {width} pixels" in text
    assert f"{store['band'][0]:g} to {store['band'][-1]:g} nm" in text
    share = next(line for line in text.splitlines() if line.startswith("  no data"))
    told = float(share.split(";")[1].split("%")[0])
    quality = store["nodata"][:].mean() * 100  # clouds are masked, too
    assert told <= quality + 0.06
    assert ("picture      none" in text) != Path(f"{Path(path).stem}.inspect.png").is_file()


def test_the_picture_has_the_right_colours(tmp_path, monkeypatch, capsys):
    """Red, green, blue and grey quarters, bands in reverse, scaled, a border without data."""
    nm = np.arange(440.0, 700, 20)
    bands = {"red": nm > 620, "green": (nm > 520) & (nm < 600), "blue": nm < 480}
    cube = np.full((len(nm), 40, 60), 0.1)
    for (y, x), colour in zip(((0, 0), (0, 30), (20, 0)), bands.values(), strict=True):
        cube[np.ix_(colour, range(y, y + 20), range(x, x + 30))] = 0.5
    noise = np.random.default_rng(0).integers(-20, 20, cube.shape)
    cube = np.round(cube * 10_000).astype("i2") + noise.astype("i2")
    cube[:, :3] = -999
    tags = [{"wavelength": f"{v:g}"} for v in nm[::-1]]
    write_tiff(tmp_path / "a.tif", cube[::-1], tags=tags, nodata=-999)
    monkeypatch.chdir(tmp_path)
    inspect(tmp_path / "a.tif")
    with Image.open("a.inspect.png") as picture:
        assert picture.format == "PNG" and picture.size == (480, 320)
        image = np.asarray(picture).astype(int)[4::8, 4::8]
    assert (image[:3] == 255).all()
    for (y, x), right in zip(((10, 15), (10, 45), (30, 15)), np.eye(3) * 255, strict=True):
        np.testing.assert_allclose(image[y, x], right, atol=6)
    assert np.ptp(image[30, 45]) < 6
    assert "7.5 % of the pixels have none" in capsys.readouterr().out


def test_a_large_scene_is_thinned(tmp_path, capsys):
    cube = np.random.default_rng(0).random((5, 1100, 30)).astype("f4")
    write_tiff(
        tmp_path / "a.tif",
        cube,
        tags=[{"wavelength": v} for v in ("440", "500", "555", "610", "660")],
    )
    inspect(tmp_path / "a.tif", picture=tmp_path / "p.png")
    assert Image.open(tmp_path / "p.png").size == (10, 367)
    assert "1100 x 30 pixels" in capsys.readouterr().out


def test_a_file_without_wavelengths(tmp_path, monkeypatch, capsys):
    savemat(tmp_path / "a.mat", {"cube": np.random.default_rng(0).random((6, 5, 9)) + 0.1})
    monkeypatch.chdir(tmp_path)
    inspect(tmp_path / "a.mat")
    text = capsys.readouterr().out
    assert "the file states no wavelengths" in text
    assert "picture      none" in text and not list(tmp_path.glob("*.png"))
    store = ingested(tmp_path, config_in(text))
    assert store["band"][:].tolist() == np.linspace(400, 2500, 9).tolist()


@pytest.mark.parametrize("value", [-9999, -0.9999, float(np.finfo("f4").min), 1e20])
def test_fill_that_nothing_states(tmp_path, monkeypatch, capsys, value):
    cube = np.random.default_rng(0).random((3, 20, 20)).astype("f4") + 0.1
    cube[:, :5], cube[:, 15:] = value, -5
    write_tiff(tmp_path / "a.tif", cube, nodata=-5)
    monkeypatch.chdir(tmp_path)
    inspect(tmp_path / "a.tif")
    text = capsys.readouterr().out
    assert "fills 25.0 % of the pixels" in text
    store = ingested(tmp_path, config_in(text))
    assert store["nodata"][:].sum() == 200 and store.attrs["warnings"] == []


def test_an_empty_band_masks_nothing(tmp_path, monkeypatch, capsys):
    cube = np.random.default_rng(0).random((4, 20, 20)).astype("f4") + 0.1
    cube[0] = np.nan
    write_tiff(tmp_path / "a.tif", cube)
    monkeypatch.chdir(tmp_path)
    inspect(tmp_path / "a.tif")
    assert "not stated; 0.0 % of the pixels" in capsys.readouterr().out


def test_an_archive(tmp_path, monkeypatch, capsys):
    folder = enmap_files.write(tmp_path / "enmap").folder
    with zipfile.ZipFile(tmp_path / "product.zip", "w") as packed:
        for file in folder.rglob("*"):
            packed.write(file, Path("inner", file.name))
    monkeypatch.chdir(tmp_path)
    inspect(Path("product.zip"))
    text = capsys.readouterr().out
    assert text.startswith("product.zip: EnMAP L2A\n")
    (scene,) = config_in(text)["scenes"].values()
    assert scene["cube"]["path"] == "product.zip"


def test_nothing_that_is_there_is_overwritten(tmp_path, monkeypatch, capsys):
    """A picture is a file that can be inspected, too."""
    Image.fromarray(np.zeros((5, 5, 3), np.uint8)).save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    monkeypatch.chdir(tmp_path)
    inspect(Path("a.png"))
    assert (tmp_path / "a.png").read_bytes() == before


def test_a_bad_file_is_one_line(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"x" * 99)
    (tmp_path / "a.zip").write_bytes(b"PK" + b"x" * 99)
    for name in ("a.h5", "a.zip", "none.tif"):
        with pytest.raises(UserError, match=name):
            inspect(tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-m", "special_steps.inspect", tmp_path / "a.h5"],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path}/a.h5: ")
