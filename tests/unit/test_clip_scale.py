import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny_clip import CONVNEXT, random_clip
from torch.nn import functional as F

from special_steps.clip_scale import (
    class_scores,
    clip_scale,
    mean_colour,
    resized_back,
    resized_rows,
)
from special_steps.core.errors import UserError
from special_steps.core.store import new_store, open_store, write_array
from special_steps.text import text

CLASSES = {"water": ["river", "lake"], "trees": [], "bare soil": ["sand"]}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Model and weights of a tiny random ViT (patch 8), as options."""
    model, weights = random_clip(tmp_path_factory.mktemp("clip")).name.split()
    return {"model": model, "weights": weights}


@pytest.fixture(scope="module")
def embedded(clip, tmp_path_factory):
    out = tmp_path_factory.mktemp("text") / "text.npz"
    text(classes=CLASSES, out=out, **clip)
    return out


def scene(path, shape, masked=0):
    rng = np.random.default_rng(1)
    image = rng.random((3, *shape), np.float32)
    nodata = np.zeros(shape, bool)
    nodata[:masked] = True
    image[:, nodata] = 0
    with new_store(path, step="rgb", settings={}, inputs=[]) as group:
        write_array(group, "rgb", image, ("band", "y", "x"))
        write_array(group, "nodata", nodata, ("y", "x"))
    return path


def probabilities(path):
    return open_store(path, probabilities=("class", "y", "x"))["probabilities"][:]


# --- pure parts --------------------------------------------------------------------------------


def test_class_scores_are_the_maximum_over_phrases():
    cosines = np.array([0.1, 0.2, 0.3, -0.4], np.float32).reshape(4, 1, 1)
    scores = class_scores(cosines, np.array([0, 0, 1, 2]), 10.0)[:, 0, 0]
    e = np.exp([1, 2, 3, -4])
    assert scores == pytest.approx(np.array([e[1], e[2], e[3]]) / e.sum(), abs=1e-6)
    assert (class_scores(cosines[:1], np.array([0]), 50.0) == 1).all()


def test_masked_pixels_get_the_mean_colour():
    rgb = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    nodata = np.array([[True, False], [False, False]])
    assert mean_colour(rgb, nodata).ravel().tolist() == [2, 6, 10]
    with pytest.raises(UserError, match="no valid pixel"):
        mean_colour(rgb, np.ones((2, 2), bool))


SIZES = [(20, 30), (10, 15), (30, 45), (60, 90), (13, 41), (47, 17), (1, 1)]


@pytest.mark.parametrize("target", SIZES)
def test_resized_rows_are_those_of_the_whole_image(target):
    image = np.random.default_rng(0).random((3, 20, 30), np.float32)
    whole = F.interpolate(
        torch.from_numpy(image)[None], target, mode="bicubic", antialias=True
    )[0].clamp(0, 1)  # fmt: skip
    asked = []

    def read(first, last):
        asked.append(last - first)
        return image[:, first:last]

    for first in range(0, target[0], 4):
        last = min(first + 4, target[0])
        rows = resized_rows(read, (20, 30), target, first, last)
        assert np.abs(rows - whole[:, first:last].numpy()).max() < 1e-5
    if target[0] >= 40:
        assert max(asked) < 20


@pytest.mark.parametrize("source", SIZES)
@pytest.mark.parametrize("strip", [1, 7, 100])
def test_resized_back_is_that_of_the_whole_map(source, strip):
    maps = np.random.default_rng(0).random((2, *source), np.float32)
    shrinks = source[0] >= 20 and source[1] >= 30
    mode = "area" if shrinks else "bilinear"
    whole = F.interpolate(torch.from_numpy(maps)[None], (20, 30), mode=mode)[0].numpy()
    strips = [maps[:, y : y + strip] for y in range(0, source[0], strip)]
    found = np.concatenate(list(resized_back(strips, source, (20, 30))), 1)
    assert np.abs(found - whole).max() < 1e-5


def test_resizing_there_and_back_keeps_the_place():
    y, x = np.mgrid[:20, :30] / 30
    smooth = np.stack([y, x, (y + x) / 2]).astype(np.float32)
    for scale in (0.5, 1, 1.5, 2, 3):
        size = round(20 * scale), round(30 * scale)
        there = resized_rows(lambda a, b: smooth[:, a:b], (20, 30), size, 0, size[0])
        assert there.min() >= 0 <= 1 >= there.max()
        back = np.concatenate(list(resized_back([there], size, (20, 30))), 1)
        assert np.abs(back - smooth)[:, 3:-3, 3:-3].max() < 0.01, scale


# --- the step ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (50, 37)])
@pytest.mark.parametrize("upsampling", ["bilinear", "guided", "none"])
def test_step(clip, embedded, tmp_path, shape, upsampling):
    rgb = scene(tmp_path / "rgb.zarr", shape)
    out = tmp_path / "scale-2.zarr"
    clip_scale(
        rgb=rgb, text=embedded, out=out, scale=2, window=32, stride=16, upsampling=upsampling, **clip
    )  # fmt: skip
    found = probabilities(out)
    assert found.shape == (3, *shape)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert (found.sum(0) <= 1 + 1e-5).all()
    store = open_store(out)
    assert store.attrs["class_names"] == list(CLASSES)
    settings = store.attrs["provenance"]["settings"]
    assert (settings["scale"], settings["attention"], settings["window"]) == (2, "segearth", 32)


def test_convolutional_tower(tmp_path):
    model, weights = random_clip(tmp_path, **CONVNEXT).name.split()
    options = {"model": model, "weights": weights}
    text(classes=CLASSES, out=tmp_path / "text.npz", **options)
    rgb, out = scene(tmp_path / "rgb.zarr", (40, 70)), tmp_path / "out.zarr"
    clip_scale(rgb=rgb, text=tmp_path / "text.npz", out=out, window=64, stride=32, **options)
    first = probabilities(out)
    assert first.std() > 0
    # The pooled embedding of a window stands in for the class token that there is not.
    options |= {"global_bias": 0.3}
    clip_scale(rgb=rgb, text=tmp_path / "text.npz", out=out, window=64, stride=32, **options)
    assert np.abs(probabilities(out) - first).max() > 1e-4


def test_one_class_is_certain(clip, tmp_path):
    text(classes={"water": []}, out=tmp_path / "text.npz", **clip)
    rgb, out = scene(tmp_path / "rgb.zarr", (9, 9)), tmp_path / "out.zarr"
    clip_scale(rgb=rgb, text=tmp_path / "text.npz", out=out, window=32, stride=16, **clip)
    assert (probabilities(out) == 1).all()


def test_settings_matter(clip, embedded, tmp_path):
    rgb = scene(tmp_path / "rgb.zarr", (40, 40))

    def of(**settings):
        options = {"window": 32, "stride": 16} | settings
        clip_scale(rgb=rgb, text=embedded, out=tmp_path / "out.zarr", **options, **clip)
        return probabilities(tmp_path / "out.zarr")

    first = of()
    assert (of() == first).all()
    changes = [
        {"scale": 0.5}, {"attention": "sclip"}, {"stride": 4}, {"window": 40}, {"logit_scale": 20.0},
        {"upsampling": "bilinear"}, {"global_bias": 0.3},
    ]  # fmt: skip
    for change in changes:
        assert np.abs(of(**change) - first).max() > 1e-4, change


def test_masked_pixels_do_not_look_like_black(clip, embedded, tmp_path):
    """What lies under the mask does not matter."""
    out = tmp_path / "out.zarr"
    options = {"text": embedded, "out": out, "window": 32, "stride": 16, **clip}
    clip_scale(rgb=scene(tmp_path / "rgb.zarr", (40, 40), masked=10), **options)
    first = probabilities(out)
    path = tmp_path / "other.zarr"
    store = open_store(tmp_path / "rgb.zarr")
    image, nodata = store["rgb"][:], store["nodata"][:]
    image[:, nodata] = 1
    with new_store(path, step="rgb", settings={}, inputs=[]) as group:
        write_array(group, "rgb", image, ("band", "y", "x"))
        write_array(group, "nodata", nodata, ("y", "x"))
    clip_scale(rgb=path, **options)
    assert (probabilities(out) == first).all()


def test_jbu_from_a_file(clip, embedded, tmp_path, parity):
    rgb, out = scene(tmp_path / "rgb.zarr", (32, 32)), tmp_path / "out.zarr"
    options = {"rgb": rgb, "text": embedded, "out": out, "window": 64, "stride": 32, **clip}
    with pytest.raises(UserError, match="needs jbu_weights"):
        clip_scale(upsampling="jbu", **options)
    want = np.load(parity / "jbu_one_4_64.npz")
    state = {k[6:]: torch.from_numpy(want[k]) for k in want.files if k.startswith("state/")}
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(UserError, match="32 feature channels, the CLIP model has 24"):
        clip_scale(upsampling="jbu", jbu_weights=tmp_path / "other.pt", **options)
    assert not out.exists()
    torch.manual_seed(0)
    state["fixup_proj.1.weight"] = torch.randn(24, 24, 1, 1)
    state["fixup_proj.1.bias"] = torch.randn(24)
    torch.save(state, tmp_path / "jbu.pt")
    clip_scale(upsampling="jbu", jbu_weights=tmp_path / "jbu.pt", **options)
    found = probabilities(out)
    assert np.isfinite(found).all()
    provenance = open_store(out).attrs["provenance"]
    assert str(tmp_path / "jbu.pt") in provenance["inputs"]


def test_wrong_input(clip, embedded, tmp_path):
    rgb = scene(tmp_path / "rgb.zarr", (9, 9))
    out = tmp_path / "out.zarr"
    options = {"rgb": rgb, "text": embedded, "out": out, "window": 32, "stride": 16, **clip}
    (tmp_path / "text.npz").write_bytes(b"PK nothing")
    other = random_clip(tmp_path)
    model, weights = other.name.split()
    for change, message in [
        ({"rgb": tmp_path / "none.zarr"}, "none.zarr: no such store"),
        ({"text": tmp_path / "none.npz"}, "none.npz: not a file of the text step"),
        ({"text": tmp_path / "text.npz"}, "text.npz: not a file of the text step"),
        ({"model": model, "weights": weights}, "run the text step again"),
        ({"scale": 0}, "scale 0 must be positive"),
        ({"stride": 40}, "stride 40"),
        ({"attention": "x"}, "unknown attention 'x'"),
        ({"upsampling": "x"}, "unknown upsampling 'x'"),
    ]:
        with pytest.raises(UserError, match=message):
            clip_scale(**(options | change))
        assert not out.exists()


def test_precision_on_the_cpu_is_noted(clip, embedded, tmp_path, caplog):
    rgb = scene(tmp_path / "rgb.zarr", (9, 9))
    with caplog.at_level(logging.WARNING, "special"):
        clip_scale(
            rgb=rgb, text=embedded, out=tmp_path / "out.zarr", window=32, stride=16,
            precision="fp16", **clip,
        )  # fmt: skip
    assert "fp32 is used" in caplog.text


def test_command_line(clip, embedded, tmp_path):
    rgb, out = scene(tmp_path / "rgb.zarr", (9, 9)), tmp_path / "out.zarr"
    command = [sys.executable, "-m", "special_steps.clip_scale", "--rgb", rgb, "--text", embedded]
    command += ["--out", out, "--scale", "2", "--window", "32", "--stride", "16"]
    command += ["--jbu_weights", "null", "--logit_scale", "null"]
    command += [f"--{name}={value}" for name, value in clip.items()]
    subprocess.run(command, check=True, capture_output=True)
    assert probabilities(out).shape == (3, 9, 9)
