"""Mistakes: one clear message that names file and fix, no training, nothing half-written. And what is no mistake."""

import numpy as np
import pytest
import scipy.io
from PIL import Image
from runs import SMALL

from special_steps.core.store import open_store

BANDS = 30
NANOMETRES = {"first": 420, "last": 1000}


def scene(height=40, width=36) -> np.ndarray:
    """Two kinds of spectra, dark and bright, with noise: (y, x, band)."""
    rng = np.random.default_rng(0)
    dark, bright = np.linspace(0.05, 0.02, BANDS), np.linspace(0.2, 0.6, BANDS)
    left = (np.arange(width) < width // 2)[None, :, None]
    return (np.where(left, dark, bright) + rng.normal(0, 0.01, (height, width, BANDS))).clip(0.001)


def config(cube=None, classes=("water", "bare soil"), truth=None, **settings) -> dict:
    cube = {"path": "scene.mat", "wavelengths": NANOMETRES} | (cube or {})
    entry = {"cube": cube, "classes": list(classes)}
    if truth:
        entry["ground_truth"] = {
            "path": "truth.mat",
            "labels": {"water": 1, "bare soil": 2},
        } | truth
    small = {k: v for k, v in SMALL.items() if k != "scenes"}
    return small | {"scenes": {"mine": entry}} | settings


def with_scene(**given) -> dict:
    found = config()
    found["scenes"]["mine"] |= given
    return found


def write(folder, data, truth=None):
    scipy.io.savemat(folder / "scene.mat", {"cube": data, "other": np.eye(3)})
    if truth is not None:
        scipy.io.savemat(folder / "truth.mat", {"labels": truth})


def vit(weights):
    return {"clips": {"other": {"model": "ViT-B-32", "weights": weights}}, "clip": "other"}


MISTAKES = {
    "missing file": (config({"path": "nowhere.mat"}), ["nowhere.mat"]),
    "wrong variable": (config({"variable": "cub"}), ["scene.mat", "cub", "cube", "other"]),
    "two dimensions": (config({"variable": "other"}), ["scene.mat", "other"]),
    "no wavelengths": (config({"wavelengths": None}), ["scene.mat", "wavelengths"]),
    "wavelengths without RGB": (
        config({"wavelengths": {"first": 900, "last": 1700}}),
        ["900", "1700", "rgb.wavelengths"],
    ),
    "unknown CLIP": (
        config(clips={"x": {"model": "ViT-B-61", "weights": "openai"}}, clip="x"),
        ["ViT-B-61", "ViT-B-16"],
    ),
    "quickgelu": (config(**vit("openai")), ["ViT-B-32-quickgelu"]),
    "corrupt checkpoint": (config(**vit("broken.safetensors")), ["broken.safetensors"]),
    "no class": (config(classes=[]), ["scenes.mine.classes", "empty"]),
    "class twice": (config(classes=["water", "Water"]), ["scenes.mine.classes", "twice"]),
    "materials of an unknown class": (
        with_scene(materials={"watr": ["clear_water"]}),
        ["scenes.mine.materials", "watr", "'water'"],
    ),
    "unknown material": (
        with_scene(materials={"water": ["clear_watr"]}),
        ["scenes.mine.materials", "clear_watr", "'clear_water'"],
    ),
    "spectra of an unknown class": (
        with_scene(spectra={"watr": "w.csv"}),
        ["scenes.mine.spectra", "watr", "'water'"],
    ),
    "spectra that are not there": (
        with_scene(spectra={"water": "w.csv"}),
        ["scenes.mine.spectra", "'water' has w.csv", "no file"],
    ),
    "labels that are not there": (
        with_scene(labels="mine.gpkg"),
        ["scenes.mine.labels", "mine.gpkg is no file"],
    ),
    "labels of an unknown class": (
        with_scene(labels="mine.csv"),
        ["mine.csv", "'watr'", "did you mean 'water'"],
    ),
    "nothing to label with": (config(clip="none", evidence="none"), ["runs.hsi", "library"]),
    "words without materials and no CLIP": (
        config(classes=["car", "person"], clip="none", runs={"hsi": {}}),
        ["nothing to label this scene with", "fewer than two classes have materials"],
    ),
    "mask of another size": (with_scene(mask={"path": "small.png"}), ["small.png", "40", "36"]),
    "unknown quality layer": (
        with_scene(mask_quality=["cloud"]),
        ["mask_quality", "'cloud'", "none"],
    ),
    "area that is not there": (with_scene(area="no.geojson"), ["no.geojson"]),
    "band that is not there": (
        config({"drop_bands": ["30-31"]}),
        ["drop_bands", "30-31", "1 to 30"],
    ),
    "damaged archive": (config({"path": "damaged.zip"}), ["damaged.zip"]),
    "unknown setting": (config(scale=[1]), ["scale", "scales"]),
    "truth of another shape": (config(truth={"path": "small.mat"}), ["small.mat", "40", "36"]),
    "truth with an unknown class": (
        config(truth={"labels": {"water": 1, "lava": 2}}),
        ["lava", "bare soil"],
    ),
    "truth with an unknown label": (config(truth={"labels": {"water": 1}}), ["truth.mat", "2"]),
    "truth is missing": (config(truth={"path": "no_truth.mat"}), ["no_truth.mat"]),
    "all NaN": (config({"path": "nan.mat"}), ["nan.mat"]),
    "pseudo-labels of another shape": (
        config(pseudo_labels="probs.npz"),
        ["probs.npz", "40", "36"],
    ),
}


@pytest.mark.parametrize(("wrong", "words"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_before_any_training(run, tmp_path, wrong, words):
    data = scene()
    truth = np.ones(data.shape[:2], np.uint8)
    truth[:, 18:] = 2
    write(tmp_path, data, truth)
    scipy.io.savemat(tmp_path / "small.mat", {"labels": truth[:9]})
    scipy.io.savemat(tmp_path / "nan.mat", {"cube": np.full(data.shape, np.nan)})
    np.savez(tmp_path / "probs.npz", probs=np.ones((5, 5, 2), np.float32))
    Image.fromarray(truth[:9]).save(tmp_path / "small.png")
    (tmp_path / "damaged.zip").write_bytes(b"PK" + bytes(99))
    (tmp_path / "mine.csv").write_text("x,y,class\n0.5,-0.5,watr\n")
    (tmp_path / "broken.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{broken}")

    done = run(tmp_path, wrong)
    assert done.returncode != 0
    lines = [line for line in done.stdout.splitlines() if all(w in line for w in words)]
    assert lines, f"no line names all of {words}"
    assert "Traceback" not in done.stdout
    assert not list(tmp_path.glob("results/*/*/seed-*/*")), "training has begun"
    assert not list(tmp_path.glob("results/*/*/cotrain*")), "training has begun"
    assert not list(tmp_path.glob("**/.tmp-*")), "something half-written is left"


def final_labels(folder):
    """Of each method."""
    names = ("hsi/consensus", "published/seed-0/final", "lda/baseline", "labels/pseudo")
    return {n: open_store(folder / f"results/mine/{n}.zarr")["labels"][:] for n in names}


def test_what_to_know_is_said_at_the_end_and_kept(run, tmp_path):
    """Of the file, once, with settings that work."""
    data = scene()
    data[:8] = -9999
    data[8:, :, 5] = np.nan
    data[8:12, :, 5] = 0.1
    write(tmp_path, data)
    settings = config(runs={"labels": {"method": "none"}})
    del settings["network"]
    done = run(tmp_path, settings)
    assert done.returncode == 0
    _, _, end = done.stdout.partition("What you should know:")
    assert end.count("to keep them, set scenes.mine.cube.nodata: []") == 1
    assert end.count("set scenes.mine.cube.bad_ranges: [[520, 520]]") == 1
    told = open_store(tmp_path / "results/mine/cube.zarr").attrs["warnings"]
    assert len(told) == 2
    for text in told:
        text = text.replace("<name>", "mine")
        assert f"warning: mine: {text}" in end
        assert text in (tmp_path / "results/summary.md").read_text()
        assert text in (tmp_path / "results/summary.html").read_text()


def test_one_class_is_no_mistake(run, tmp_path):
    write(tmp_path, scene())
    assert run(tmp_path, config(classes=["water"])).returncode == 0
    for name, labels in final_labels(tmp_path).items():
        assert (labels == 1).all(), name


@pytest.mark.parametrize("shape", [(7, 5), (1, 1), (3, 200)])
def test_a_tiny_scene_is_no_mistake(run, tmp_path, shape):
    write(tmp_path, scene(*shape))
    assert run(tmp_path, config({"variable": "cube", "axes": "y x band"})).returncode == 0
    for name, labels in final_labels(tmp_path).items():
        assert labels.shape == shape, name
        assert (labels > 0).all(), name


def test_a_class_that_no_pixel_gets_is_no_mistake(run, tmp_path):
    write(tmp_path, scene())
    probabilities = np.zeros((40, 36, 3), np.float32)
    probabilities[:, :18, 0] = probabilities[:, 18:, 1] = 0.9
    probabilities[..., 2] = 0.1
    np.savez(tmp_path / "probs.npz", probs=probabilities)
    settings = config(classes=["water", "bare soil", "snow"], pseudo_labels="probs.npz")
    done = run(tmp_path, settings)
    assert done.returncode == 0
    for stage in ("hsi/cotrain", "hsi/seed-0/network", "published/seed-0/warmup"):
        assert "snow" in (tmp_path / f"logs/mine/{stage}.log").read_text(), stage
    for name, labels in final_labels(tmp_path).items():
        assert 3 not in labels, name
    assert "snow" in (tmp_path / "results/summary.md").read_text()
