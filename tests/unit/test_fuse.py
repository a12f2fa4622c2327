"""Fusing scales and the spectral library, and bringing one's own pseudo-labels."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import rasterio
from stores import make_prediction, make_rgb, make_store, one_hot

from special_steps.core.errors import UserError
from special_steps.core.prediction import given_labels
from special_steps.core.store import (
    Grid,
    class_names,
    grid_of,
    new_store,
    open_store,
    write_array,
)
from special_steps.core.witnesses import LIBRARY, witnesses_told
from special_steps.fuse import changed, compared, fused, joined
from special_steps.fuse import fuse as step

NAMES = ["soil", "tree", "water"]
HERE = np.zeros((4, 5), bool)  # no pixel without data


def fuse(
    *,
    out: Path,
    evidence: tuple[Path, ...] = (),
    features: Path | None = None,
    labels: tuple[Path, ...] = (),
    **given,
) -> dict:
    """Run the step, and return what it says of the witnesses."""
    step(
        evidence=list(evidence),
        given=list(labels),
        features=features,
        out=out,
        witnesses=out.with_suffix(".json"),
        **{"align": False} | given,
    )
    return json.loads(out.with_suffix(".json").read_text())


def probabilities(seed: int = 0, shape: tuple[int, ...] = (3, 4, 5)) -> np.ndarray:
    drawn = np.random.default_rng(seed).random(shape, np.float32)
    return drawn / drawn.sum(0)


def result(path):
    found = open_store(
        path, probabilities=("class", "y", "x"), labels=("y", "x"), margin=("y", "x")
    )
    return found["probabilities"][:], found["labels"][:], found["margin"][:]


def heard(path):
    """Which witnesses have a say."""
    return {witness.name: witness.heard for witness in witnesses_told(open_store(path))}


# --- the mean -------------------------------------------------------------------------------------


def test_the_mean_of_scales_by_hand():
    first = np.array([[[0.8, 0.1]], [[0.2, 0.9]]], "f4")
    second = np.array([[[0.4, 0.3]], [[0.6, 0.7]]], "f4")
    found = fused([first, second])
    np.testing.assert_allclose(found, [[[0.6, 0.2]], [[0.4, 0.8]]], atol=1e-7)
    assert found.dtype == np.float32


def test_three_scales_count_the_same():
    maps = [probabilities(seed) for seed in range(3)]
    np.testing.assert_allclose(fused(maps), np.mean(maps, axis=0), atol=1e-6)


def test_the_inputs_are_left_alone():
    maps = [probabilities(0), probabilities(1)]
    before = [m.copy() for m in maps]
    fused(maps)
    np.testing.assert_array_equal(maps, before)


def test_scores_that_do_not_sum_to_1_are_normalised():
    scores = np.array([[[2, 30]], [[6, 10]]], "f4")
    np.testing.assert_allclose(fused([scores]), [[[0.25, 0.75]], [[0.75, 0.25]]])


def test_a_pixel_of_zeros_becomes_uniform():
    scores = np.array([[[0.0, 1]], [[0, 0]], [[0, 0]], [[0, 3]]], "f4")
    np.testing.assert_allclose(fused([scores])[:, 0], [[0.25, 0.25], [0.25, 0], [0.25, 0], [0.25, 0.75]])  # fmt: skip


# --- the step -------------------------------------------------------------------------------------


def test_two_scales_end_to_end(tmp_path):
    nodata = HERE.copy()
    nodata[0, :2] = True
    maps = [
        make_store(tmp_path / f"scale-{i}.zarr", probabilities=probabilities(i)) for i in (1, 2)
    ]
    fuse(
        maps=maps,
        rgb=make_rgb(tmp_path / "rgb.zarr", nodata),
        out=tmp_path / "p.zarr",
        class_names=NAMES,
    )
    found, labels, margin = result(tmp_path / "p.zarr")
    wanted = (probabilities(1) + probabilities(2)) / 2
    np.testing.assert_allclose(found[:, ~nodata], wanted[:, ~nodata], atol=1e-6)
    np.testing.assert_array_equal(labels[~nodata], wanted.argmax(0)[~nodata] + 1)
    ordered = np.sort(wanted, 0)
    np.testing.assert_allclose(margin[~nodata], (ordered[-1] - ordered[-2])[~nodata], atol=1e-6)
    assert (labels[nodata] == 0).all()
    assert (found[:, nodata] == 0).all()
    store = open_store(tmp_path / "p.zarr")
    assert class_names(store) == NAMES
    assert set(store.attrs["provenance"]["inputs"]) == {*map(str, maps), str(tmp_path / "rgb.zarr")}


GRID = Grid("a CRS", (1.0, 0.0, 2.0, 0.0, -1.0, 3.0))


def test_the_georeference_is_passed_on(tmp_path):
    rgb = make_store(
        tmp_path / "rgb.zarr",
        GRID,
        rgb=np.zeros((3, 4, 5), "f4"),
        nodata=HERE,
    )
    scale = make_store(tmp_path / "s.zarr", probabilities=probabilities())
    fuse(maps=[scale], rgb=rgb, out=tmp_path / "p.zarr", class_names=NAMES)
    assert grid_of(open_store(tmp_path / "p.zarr")) == GRID


def test_one_class(tmp_path):
    scale = make_store(tmp_path / "s.zarr", probabilities=np.ones((1, 4, 5), "f4"))
    fuse(
        maps=[scale],
        rgb=make_rgb(tmp_path / "rgb.zarr", HERE),
        out=tmp_path / "p.zarr",
        class_names=["water"],
    )
    found, labels, margin = result(tmp_path / "p.zarr")
    assert (found == 1).all()
    assert (labels == 1).all()
    assert (margin == 1).all()


# --- two witnesses --------------------------------------------------------------------------------


def test_both_witnesses_by_hand():
    clip = np.array([[[0.64, 0.5, 0.9]], [[0.36, 0.5, 0.1]]], "f4")
    library = np.array([[[0.5, 0.2, 0.1]], [[0.5, 0.8, 0.9]]], "f4")
    before = clip.copy(), library.copy()
    found = joined(clip, library, [True] * 2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-6)
    np.testing.assert_allclose(found[0, 0, 0], 0.8 / 1.4, atol=1e-4)  # an even one changes no order
    np.testing.assert_allclose(found[0, 0, 1], 0.04 / 0.68, atol=1e-4)
    assert found[:, 0, 2].argmax() == 1, "spectra that are sure outweigh words that are"
    np.testing.assert_array_equal((clip, library), before)


def test_neither_witness_rules_out_a_class():
    zero = np.array([[[1, 0]], [[0, 1]]], "f4")
    found = joined(zero, zero[::-1].copy(), [True] * 2)
    assert np.isfinite(found).all()
    assert (found > 0).all()
    both = joined(zero, np.full((2, 1, 2), 0.5, "f4"), [True] * 2)
    np.testing.assert_array_equal(both.argmax(0), [[0, 1]])


def test_a_class_without_spectra_keeps_what_clip_gives_it():
    """The library can't find it, and must not rule it out: its say is about the other classes."""
    clip = np.array([[[0.6, 0.1]], [[0.3, 0.6]], [[0.1, 0.3]]], "f4")
    library = np.array([[[0.3, 0.3]], [[0.6, 0.2]], [[0.1, 0.5]]], "f4")
    found = joined(clip, library, [False, True, True])
    np.testing.assert_allclose(found[0], clip[0], atol=1e-5)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-6)
    others = joined(clip[1:], library[1:], [True, True])
    np.testing.assert_allclose(found[1:], others * (1 - clip[0]), atol=1e-5)


def said(path: Path, used: bool = True, spectra: tuple[int, ...] = (5, 9, 3)) -> Path:
    """What evidence writes beside its store, as far as fuse reads it."""
    classes = [{"class": n, "spectra": s} for n, s in zip(NAMES, spectra, strict=True)]
    warnings = ["a word", "the spectral library has no say on this scene: no class has materials"]
    told = {"used": used, "classes": classes, "warnings": [] if used else warnings}
    path.write_text(json.dumps(told))
    return path


@pytest.fixture
def given(tmp_path) -> dict:
    """What the step is given in all of these."""
    nodata = HERE.copy()
    nodata[0, 0] = True
    rgb = make_rgb(tmp_path / "rgb.zarr", nodata)
    return {"rgb": rgb, "out": tmp_path / "p.zarr", "class_names": NAMES}


def scale_of(folder: Path, seed: int = 1) -> Path:
    return make_store(folder / f"scale-{seed}.zarr", probabilities=probabilities(seed))


def test_words_and_spectra_are_joined(tmp_path, given):
    maps = [scale_of(tmp_path, 1), scale_of(tmp_path, 2)]
    library = make_prediction(tmp_path / "e.zarr", probabilities(3), NAMES)
    told = fuse(maps=maps, evidence=(library, said(tmp_path / "e.json")), **given)
    found, labels, _ = result(given["out"])
    wanted = joined(fused([probabilities(1), probabilities(2)]), probabilities(3), [True] * 3)
    np.testing.assert_allclose(found[:, 1:], wanted[:, 1:], atol=1e-6)
    assert labels[0, 0] == 0
    witnesses = open_store(given["out"])["witnesses"][:]
    clip = fused([probabilities(1), probabilities(2)]).argmax(0) + 1
    spectra = probabilities(3).argmax(0) + 1
    np.testing.assert_array_equal(witnesses[:, 1:], np.stack([clip, spectra])[:, 1:])
    assert not witnesses[:, 0, 0].any()
    assert told["between"] == "CLIP and the spectral library"
    counted = sum(sum(one["library"].values()) for one in told["classes"])
    assert counted == 19, "all pixels with data"
    inputs = open_store(given["out"]).attrs["provenance"]["inputs"]
    assert {str(library), str(tmp_path / "e.json")} <= set(inputs)


@pytest.mark.parametrize("useful", [True, False])
def test_clip_has_no_say_where_its_labels_say_nothing_about_the_spectra(tmp_path, useful):
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=(40, 50))
    spectra = rng.random((3, 20))[truth] + 0.02 * rng.standard_normal((40, 50, 20))
    features = make_store(
        tmp_path / "f.zarr",
        features=spectra.transpose(2, 0, 1).clip(0, 1).astype("f4"),
        nodata=np.zeros(truth.shape, bool),
    )
    guessed = np.where(rng.random(truth.shape) < 0.7, truth, 0) if useful else rng.permuted(truth)
    clip = 0.7 * np.eye(3, dtype="f4")[guessed].transpose(2, 0, 1) + np.float32(0.1)
    known = 0.4 * np.eye(3, dtype="f4")[truth].transpose(2, 0, 1) + np.float32(0.2)
    library = make_prediction(tmp_path / "e.zarr", known, NAMES)
    told = fuse(
        maps=[make_store(tmp_path / "scale-1.zarr", probabilities=clip)],
        evidence=(library, said(tmp_path / "e.json")),
        features=features,
        rgb=make_rgb(tmp_path / "rgb.zarr", np.zeros(truth.shape, bool)),
        out=tmp_path / "p.zarr",
        class_names=NAMES,
    )
    found, _, _ = result(tmp_path / "p.zarr")
    np.testing.assert_allclose(
        found, joined(clip, known, [True] * 3) if useful else known, atol=1e-6
    )
    assert any("little information" in warning for warning in told["warnings"]) != useful
    assert heard(tmp_path / "p.zarr") == {"CLIP": useful, LIBRARY: True}


def test_the_library_alone(tmp_path, given):
    library = make_prediction(tmp_path / "e.zarr", probabilities(3), NAMES)
    told = fuse(maps=[], evidence=(library, said(tmp_path / "e.json")), **given)
    found, _, _ = result(given["out"])
    np.testing.assert_allclose(found[:, 1:], probabilities(3)[:, 1:], atol=1e-6)
    assert told["agreement"] is None
    assert told["warnings"] == []
    assert heard(given["out"]) == {LIBRARY: True}


def test_a_library_without_a_say_changes_nothing(tmp_path, given):
    uniform = make_prediction(tmp_path / "e.zarr", np.full((3, 4, 5), 1 / 3, "f4"), NAMES)
    evidence = (uniform, said(tmp_path / "e.json", used=False))
    told = fuse(maps=[scale_of(tmp_path)], evidence=evidence, **given)
    with_it = result(given["out"])
    given["out"] = tmp_path / "q.zarr"
    fuse(maps=[scale_of(tmp_path, 1)], **given)
    for one, other in zip(with_it, result(given["out"]), strict=True):
        np.testing.assert_array_equal(one, other)
    assert told["agreement"] is None
    assert heard(tmp_path / "q.zarr") == heard(tmp_path / "p.zarr") == {"CLIP": True}


def test_nothing_to_label_with(tmp_path, given):
    uniform = make_prediction(tmp_path / "e.zarr", np.full((3, 4, 5), 1 / 3, "f4"), NAMES)
    evidence = (uniform, said(tmp_path / "e.json", used=False))
    with pytest.raises(UserError, match=r"nothing to label this scene with: .*no class has mater"):
        fuse(maps=[], evidence=evidence, **given)
    with pytest.raises(UserError, match="no CLIP, and no evidence"):
        fuse(maps=[], **given)
    assert not given["out"].exists()
    assert not given["out"].with_suffix(".json").exists()


# --- what they say of each other ------------------------------------------------------------------

PAIRS = np.array([[80, 20, 0], [30, 60, 10], [0, 0, 0]])


def test_contradictions_by_hand():
    told = compared(PAIRS, NAMES, [True] * 3, "CLIP")
    assert told["between"] == "CLIP and the spectral library"
    assert told["agreement"] == 0.7
    assert told["classes"][1] == {"class": "tree", "library": {"soil": 30, "tree": 60, "water": 10}}
    (warning,) = told["warnings"]  # soil's 20 % to tree are not over 20 %
    assert warning.startswith("30% of what CLIP calls 'tree' is 'soil' by the spectral library")


def test_classes_without_spectra_contradict_nobody():
    told = compared(PAIRS, NAMES, [True, False, True], "CLIP")
    assert told["warnings"] == []
    assert told["agreement"] == 0.8
    assert compared(PAIRS, NAMES, [False] * 3, "CLIP")["agreement"] is None


def test_a_class_of_a_few_pixels_is_not_worth_a_sentence():
    pairs = np.array([[1000, 0], [5, 0]])
    assert compared(pairs, NAMES[:2], [True] * 2, "CLIP")["warnings"] == []


def test_contradictions_are_counted_where_there_is_data(tmp_path, given, caplog):
    words = np.ones((4, 5), int)
    words[0, 0] = 3  # no data
    spectra = words.copy()
    spectra[2:] = 2
    library = make_prediction(tmp_path / "e.zarr", one_hot(spectra, 3), NAMES)
    scale = make_store(tmp_path / "s.zarr", probabilities=one_hot(words, 3))
    with caplog.at_level(logging.WARNING, "special"):
        told = fuse(maps=[scale], evidence=(library, said(tmp_path / "e.json")), **given)
    assert told["agreement"] == pytest.approx(9 / 19)
    assert told["classes"][0]["library"] == {"soil": 9, "tree": 10, "water": 0}
    assert told["warnings"][0].startswith("53% of what CLIP calls 'soil' is 'tree'")
    assert told["warnings"][0] in caplog.text


def test_a_map_of_ones_own_is_called_so(tmp_path, given):
    np.savez(tmp_path / "own.npz", probs=probabilities().transpose(1, 2, 0))
    library = make_prediction(tmp_path / "e.zarr", probabilities(3), NAMES)
    evidence = (library, said(tmp_path / "e.json"))
    told = fuse(maps=[tmp_path / "own.npz"], evidence=evidence, **given)
    assert told["between"] == "your own map and the spectral library"
    assert list(heard(given["out"])) == ["your own map", LIBRARY]


# --- a map of one's own ---------------------------------------------------------------------------


@pytest.mark.parametrize("scene", ["samson_65_0", "muufl_50_2"])
def test_own_pseudo_labels_from_npz(tmp_path, shared, scene):
    file = shared / "pseudo" / f"{scene}.npz"
    given = np.load(file)
    truth = np.load(shared / "pseudo" / f"{scene.split('_')[0]}_gt.npz")
    height, width, count = given["probs"].shape
    fuse(
        maps=[file],
        rgb=make_rgb(tmp_path / "rgb.zarr", np.zeros((height, width), bool)),
        out=tmp_path / "p.zarr",
        class_names=[str(n) for n in truth["names"]],
    )
    found, labels, _ = result(tmp_path / "p.zarr")
    assert found.shape == (count, height, width)
    np.testing.assert_allclose(found, given["probs"].transpose(2, 0, 1), atol=1e-6)
    assert (labels == truth["gt"])[truth["gt"] > 0].mean() == pytest.approx(given["oa"], abs=1e-9)


def write_tiff(path, data):
    profile = {"driver": "GTiff", "count": data.shape[0], "dtype": data.dtype.name,
               "height": data.shape[1], "width": data.shape[2]}  # fmt: skip
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(data)
    return path


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_own_pseudo_labels_from_geotiff(tmp_path, dtype):
    data = (100 * probabilities()).astype(dtype)
    file = write_tiff(tmp_path / "own.tif", data)
    fuse(
        maps=[file],
        rgb=make_rgb(tmp_path / "rgb.zarr", HERE),
        out=tmp_path / "p.zarr",
        class_names=NAMES,
    )
    found, _, _ = result(tmp_path / "p.zarr")
    np.testing.assert_allclose(found, data / data.sum(0, dtype="f8"), atol=1e-6)


def test_nothing_is_written_when_a_map_does_not_fit(tmp_path):
    np.savez(tmp_path / "a.npz", probs=np.ones((4, 5, 2)))
    rgb = make_rgb(tmp_path / "rgb.zarr", HERE)
    with pytest.raises(UserError):
        fuse(maps=[tmp_path / "a.npz"], rgb=rgb, out=tmp_path / "p.zarr", class_names=NAMES)
    assert {p.name for p in tmp_path.iterdir()} == {"a.npz", "rgb.zarr"}


# --- labels that people give ------------------------------------------------------------------------


def clicked(folder: Path, pixels: dict[tuple[int, int], int], shape: tuple[int, int]) -> Path:
    labels = np.zeros(shape, np.uint8)
    for place, label in pixels.items():
        labels[place] = label
    with new_store(folder / "labels.zarr", step="labels", settings={}, inputs=[]) as group:
        write_array(group, "labels", labels, ("y", "x"))
        group.attrs["warnings"] = ["mine.gpkg: 1 of 6 shapes lie outside of the scene"]
    return folder / "labels.zarr"


def test_given_labels_are_certain_and_bring_back_a_class(tmp_path):
    """Water is never found; five of its pixels are given, in a scene of several rows of tiles."""
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=(300, 12))
    spectra = rng.random((3, 20))[truth] + 0.02 * rng.standard_normal((*truth.shape, 20))
    nodata = np.zeros(truth.shape, bool)
    nodata[5:7] = True
    features = make_store(
        tmp_path / "f.zarr",
        features=spectra.transpose(2, 0, 1).clip(0, 1).astype("f4"),
        nodata=nodata,
    )
    clip = 0.7 * np.eye(3, dtype="f4")[np.where(truth == 2, 0, truth)].transpose(2, 0, 1) + 0.1
    clip[2] = 1e-6
    places = list(zip(*np.nonzero((truth == 2) & ~nodata), strict=True))[::150][:5]
    labels = clicked(tmp_path, dict.fromkeys(places, 3), truth.shape)
    told = fuse(
        maps=[make_store(tmp_path / "s.zarr", probabilities=clip.astype("f4"))],
        labels=(labels, features),
        rgb=make_rgb(tmp_path / "rgb.zarr", nodata),
        out=tmp_path / "p.zarr",
        class_names=NAMES,
    )
    found, best, margin = result(tmp_path / "p.zarr")
    assert (best == truth + 1)[~nodata].mean() > 0.95
    for place in places:
        assert found[:, *place].tolist() == [0, 0, 1] and margin[place] == 1
    given = given_labels(open_store(tmp_path / "p.zarr"))
    assert given is not None and (given > 0).sum() == 5
    after = int((best == 3).sum())
    assert told["given"] == [{"class": "water", "given": 5, "before": 0, "after": after}]
    (note,) = told["notes"]
    assert (
        note
        == f"labels of 5 pixels of 1 class were given: 'water' had no pseudo-label and now has {after:,}"
    )
    assert "1 of 6 shapes lie outside" in told["warnings"][0]
    inputs = open_store(tmp_path / "p.zarr").attrs["provenance"]["inputs"]
    assert {str(labels), str(features)} <= set(inputs)


def test_what_changed_in_words():
    told = changed(np.array([10, 0, 5]), np.array([8, 2000, 5]), np.array([3, 1, 0]), NAMES)
    assert told["notes"] == [
        "labels of 4 pixels of 2 classes were given: 'soil' had 10 pseudo-labels and now has 8; 'tree' had no"
        " pseudo-label and now has 2,000"
    ]
