import inspect
import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny_clip import CONVNEXT, random_clip

from special_steps.clip_scale import class_scores, clip_scale, mean_colour
from special_steps.core.errors import UserError
from special_steps.core.settings import default_of
from special_steps.core.store import class_names, new_store, open_store, write_array
from special_steps.text import text

CLASSES = {"water": ["river", "lake"], "trees": [], "bare soil": ["sand"]}
# What the workflow passes, with windows of the tiny models' size.
SETTINGS = {
    name: default_of(f"clips.NAME.{name}")
    for name in (
        "attention",
        "upsampling",
        "jbu_weights",
        "global_bias",
        "logit_scale",
        "precision",
    )
} | {"scale": 1, "window": 32, "stride": 16}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Settings with a tiny random ViT (patch 8)."""
    model, weights = random_clip(tmp_path_factory.mktemp("clip")).name.split()
    return SETTINGS | {"model": model, "weights": weights}


def embed(classes, out, clip):
    text(classes=classes, out=out, model=clip["model"], weights=clip["weights"], templates=None)
    return out


@pytest.fixture(scope="module")
def embedded(clip, tmp_path_factory):
    return embed(CLASSES, tmp_path_factory.mktemp("text") / "text.npz", clip)


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


# --- the step ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (50, 37)])
@pytest.mark.parametrize("upsampling", ["bilinear", "joint_bilateral"])
def test_step(clip, embedded, tmp_path, shape, upsampling):
    rgb = scene(tmp_path / "rgb.zarr", shape)
    out = tmp_path / "scale-2.zarr"
    changes = {"scale": 2, "upsampling": upsampling}
    clip_scale(rgb=rgb, text=embedded, out=out, **clip | changes)
    found = probabilities(out)
    assert found.shape == (3, *shape)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert (found.sum(0) <= 1 + 1e-5).all()
    store = open_store(out)
    assert class_names(store) == list(CLASSES)
    settings = store.attrs["provenance"]["settings"]
    assert (settings["scale"], settings["attention"], settings["window"]) == (2, "segearth", 32)


def test_convolutional_tower(tmp_path):
    model, weights = random_clip(tmp_path, **CONVNEXT).name.split()
    options = SETTINGS | {"model": model, "weights": weights, "window": 64, "stride": 32}
    options["text"] = embed(CLASSES, tmp_path / "text.npz", options)
    rgb, out = scene(tmp_path / "rgb.zarr", (40, 70)), tmp_path / "out.zarr"
    clip_scale(rgb=rgb, out=out, **options)
    first = probabilities(out)
    assert first.std() > 0
    # The pooled embedding of a window stands in for the class token that there is not.
    clip_scale(rgb=rgb, out=out, **options | {"global_bias": 0.3})
    assert np.abs(probabilities(out) - first).max() > 1e-4


def test_one_class_is_certain(clip, tmp_path):
    phrases = embed({"water": []}, tmp_path / "text.npz", clip)
    rgb, out = scene(tmp_path / "rgb.zarr", (9, 9)), tmp_path / "out.zarr"
    clip_scale(rgb=rgb, text=phrases, out=out, **clip)
    assert (probabilities(out) == 1).all()


def test_settings_matter(clip, embedded, tmp_path):
    rgb = scene(tmp_path / "rgb.zarr", (40, 40))

    def of(**settings):
        clip_scale(rgb=rgb, text=embedded, out=tmp_path / "out.zarr", **clip | settings)
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
    options = {"text": embedded, "out": out, **clip}
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
    options = {"rgb": rgb, "text": embedded, "out": out, **clip}
    options |= {"window": 64, "stride": 32, "upsampling": "jbu"}
    with pytest.raises(UserError, match="needs jbu_weights"):
        clip_scale(**options)
    want = np.load(parity / "jbu_one_4_64.npz")
    state = {k[6:]: torch.from_numpy(want[k]) for k in want.files if k.startswith("state/")}
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(UserError, match="32 feature channels, the CLIP model has 24"):
        clip_scale(**options | {"jbu_weights": tmp_path / "other.pt"})
    assert not out.exists()
    torch.manual_seed(0)
    state["fixup_proj.1.weight"] = torch.randn(24, 24, 1, 1)
    state["fixup_proj.1.bias"] = torch.randn(24)
    torch.save(state, tmp_path / "jbu.pt")
    clip_scale(**options | {"jbu_weights": tmp_path / "jbu.pt"})
    found = probabilities(out)
    assert np.isfinite(found).all()
    provenance = open_store(out).attrs["provenance"]
    assert str(tmp_path / "jbu.pt") in provenance["inputs"]


def test_wrong_input(clip, embedded, tmp_path):
    rgb = scene(tmp_path / "rgb.zarr", (9, 9))
    out = tmp_path / "out.zarr"
    options = {"rgb": rgb, "text": embedded, "out": out, **clip}
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
        out = tmp_path / "out.zarr"
        clip_scale(rgb=rgb, text=embedded, out=out, **clip | {"precision": "fp16"})
    assert "fp32 is used" in caplog.text


def test_command_line(clip, embedded, tmp_path):
    rgb, out = scene(tmp_path / "rgb.zarr", (9, 9)), tmp_path / "out.zarr"
    options = {"rgb": rgb, "text": embedded, "out": out, **clip}
    command = [sys.executable, "-m", "special_steps.clip_scale"]
    command += [f"--{name}={'null' if v is None else v}" for name, v in options.items()]
    subprocess.run(command, check=True, capture_output=True)
    assert probabilities(out).shape == (3, 9, 9)


@pytest.mark.parametrize("step", [text, clip_scale])
def test_defaults_live_in_the_schema_only(step):
    parameters = inspect.signature(step).parameters.values()
    assert all(parameter.default is parameter.empty for parameter in parameters)
