"""A scene mapped by what another one's run has learned: the same map of the same scene, other bands, refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
from small_training import CLASSIFIER, NETWORK
from stores import make_cube, make_prediction, make_store

from special_steps.apply import apply, far_share
from special_steps.consensus import consensus
from special_steps.core.calibration import confidence, known_of
from special_steps.core.errors import UserError
from special_steps.core.store import class_names, open_store
from special_steps.cotrain import cotrain
from special_steps.features import features
from special_steps.network import network

NM = np.arange(450.0, 850, 20)
CLASSES = ["water", "trees", "roof"]


def spectra(nm):
    """Of the three classes, (class, band): smooth functions of the wavelength."""
    green = 0.05 + 0.4 / (1 + np.exp((700 - nm) / 15)) + 0.05 * np.exp(-(((nm - 550) / 30) ** 2))
    return np.stack([0.08 - 0.00008 * (nm - 450), green, 0.2 + 0.0005 * (nm - 450)])


def landscape(nm=NM, shape=(40, 30), seed=0, scale=1.0):
    """Reflectance (band, y, x) of stripes and blocks, their classes (y, x) from 0, and a corner without data."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape)
    truth = ((y // 6 + x // 7) % 3 + seed) % 3
    light = rng.uniform(0.8, 1.2, shape)
    cube = spectra(nm)[truth].transpose(2, 0, 1) * light + rng.normal(0, 0.01, (len(nm), *shape))
    nodata = np.zeros(shape, bool)
    nodata[:5, :4] = True
    return (np.where(nodata, 0, cube) * scale).astype("f4"), truth, nodata


def make_scene(folder: Path, name: str, nm=NM, good=None, **how):
    cube, truth, nodata = landscape(nm, **how)
    return make_cube(folder / f"{name}.zarr", cube, nm, good, nodata), truth, nodata


@pytest.fixture(scope="module")
def known(tmp_path_factory) -> Path:
    """A folder in which a run has learned from a scene, by the steps themselves."""
    folder = tmp_path_factory.mktemp("known")
    cube, truth, nodata = make_scene(folder, "cube")
    wrong = np.random.default_rng(1).random(truth.shape) < 0.1
    labels = np.where(wrong, (truth + 1) % 3, truth)
    given = np.where(np.arange(3)[:, None, None] == labels, 0.7, 0.15).astype("f4")
    pseudo = make_prediction(folder / "pseudo.zarr", given, CLASSES, nodata)
    features(
        source=cube, out=folder / "features.zarr", input="hsi", percentiles=[0, 100], components=3
    )
    cotrain(
        features=folder / "features.zarr",
        pseudo=pseudo,
        out=folder / "cotrain.zarr",
        model=folder / "cotrain.safetensors",
        diagnosis=folder / "cotrain.json",
    )
    for seed in (0, 1):
        network(
            features=folder / "features.zarr",
            pseudo=pseudo,
            cotrain=folder / "cotrain.zarr",
            seed=seed,
            classifier=CLASSIFIER,
            training=NETWORK,
            checkpoint=folder / ".checkpoint",
            out=folder / f"network-{seed}.zarr",
            state=folder / f"network-{seed}.safetensors",
            epochs=folder / "epochs.csv",
        )
    networks = [folder / f"network-{seed}.zarr" for seed in (0, 1)]
    made = {"cotrain": folder / "cotrain.zarr", "networks": networks}
    consensus(**made, out=folder / "consensus.zarr")
    return folder


def applied(known: Path, cube: Path, **changed):
    """Map a scene by what was learned; the store, and what it told."""
    out, told = cube.with_name("applied.zarr"), cube.with_name("applied.json")
    apply(
        **{
            "cube": cube,
            "scene": "line2",
            "units": "auto",
            "features": known / "features.zarr",
            "source": known / "consensus.zarr",
            "source_scene": "line1",
            "source_units": "auto",
            "cotrain": known / "cotrain.safetensors",
            "networks": [known / f"network-{seed}.safetensors" for seed in (0, 1)],
            "classifier": CLASSIFIER,
            "tile": None,
            "given": None,
            "out": out,
            "told": told,
        }
        | changed
    )
    return open_store(out), json.loads(told.read_text())


def test_how_sure_it_is_follows_from_the_scene_that_was_learned_from(known, tmp_path):
    cube, _, _ = make_scene(tmp_path, "new")
    store, _ = applied(known, cube)
    found = store["probabilities"][:]
    wanted = confidence(found, known_of(open_store(known / "consensus.zarr")))
    sure, nodata = store["confidence"][:], store["nodata"][:]
    np.testing.assert_allclose(sure[~nodata], wanted[~nodata], atol=1e-6)
    assert nodata.any() and not sure[nodata].any()


def test_labels_that_people_gave_are_certain(known, tmp_path):
    cube, truth, _ = make_scene(tmp_path, "new")
    given = np.zeros(truth.shape, np.uint8)
    given[5, 5:8] = (truth[5, 5:8] + 1) % 3 + 1
    labels = make_store(tmp_path / "labels.zarr", labels=given)
    store, _ = applied(known, cube, given=labels)
    marked = (given > 0) & ~store["nodata"][:]
    assert (store["labels"][:][marked] == given[marked]).all() and marked.any()
    assert (store["confidence"][:][marked] == 1).all()


def right(store, truth, nodata):
    return (store["labels"][:] - 1 == truth)[~nodata].mean()


# --- what it gives --------------------------------------------------------------------------------


def test_the_scene_that_was_learned_from_gets_the_runs_own_map(known, tmp_path):
    cube, _, nodata = make_scene(tmp_path, "same")
    found, told = applied(known, cube)
    own = open_store(known / "consensus.zarr")
    np.testing.assert_allclose(found["probabilities"][:], own["probabilities"][:], atol=1e-6)
    np.testing.assert_array_equal(found["labels"][:], own["labels"][:])
    np.testing.assert_array_equal(found["nodata"][:], nodata)
    assert class_names(found) == CLASSES
    assert told["warnings"] == []
    assert told["far"] < 0.02


def test_co_training_or_networks_alone(known, tmp_path):
    cube, *_ = make_scene(tmp_path, "same")
    for stores, changed in (
        (["cotrain"], {"networks": []}),
        (["network-0", "network-1"], {"cotrain": None}),
    ):
        found, _ = applied(known, cube, **changed)
        maps = [open_store(known / f"{name}.zarr")["probabilities"][:] for name in stores]
        np.testing.assert_allclose(found["probabilities"][:], np.mean(maps, 0), atol=1e-6)


def test_another_scene_is_mapped(known, tmp_path):
    cube, truth, nodata = make_scene(tmp_path, "other", shape=(50, 44), seed=2)
    found, told = applied(known, cube)
    assert right(found, truth, nodata) > 0.95
    assert (found["labels"][:][nodata] == 0).all()
    assert told["far"] < 0.1


def test_tiles_give_nearly_the_same(known, tmp_path):
    cube, truth, nodata = make_scene(tmp_path, "other", shape=(50, 44), seed=2)
    found, _ = applied(known, cube, tile=32)
    assert right(found, truth, nodata) > 0.95
    np.testing.assert_allclose(found["probabilities"][:].sum(0)[~nodata], 1, atol=1e-4)


@pytest.mark.parametrize(
    ("nm", "good"),
    [
        (np.arange(440.0, 900, 20), None),  # half a band aside, and more of them
        (np.arange(450.0, 850, 4), None),  # much finer
        (np.arange(400.0, 1000, 10), np.arange(60) % 7 != 0),  # with dead bands
    ],
    ids=["shifted", "finer", "dead bands"],
)
def test_other_bands_are_matched_by_wavelength(known, tmp_path, nm, good):
    cube, truth, nodata = make_scene(tmp_path, "other", nm, good, shape=(50, 44), seed=2)
    found, _ = applied(known, cube)
    assert right(found, truth, nodata) > 0.95


# --- what it refuses or warns of ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nm", "words"),
    [
        (np.arange(450.0, 690, 20), "around 690 nm.*8 of the 20 bands.*bad_ranges: .*690, 830"),
        (np.r_[450.0:600:20, 700:850:20], "around 610 nm"),
    ],
    ids=["range", "gap"],
)
def test_bands_that_are_missing_are_refused(known, tmp_path, nm, words):
    cube, *_ = make_scene(tmp_path, "other", nm)
    with pytest.raises(UserError, match=words):
        applied(known, cube)
    assert not (tmp_path / "applied.zarr").exists()


def test_another_scale_is_refused_and_a_doubtful_one_is_told(known, tmp_path):
    cube, *_ = make_scene(tmp_path, "percent", scale=100)
    with pytest.raises(UserError, match=r"line2.*100 times as bright as those of line1.*scale"):
        applied(known, cube)
    cube, *_ = make_scene(tmp_path, "dark", scale=0.2)
    _, told = applied(known, cube)
    assert any("1/5 as bright as line1" in warning for warning in told["warnings"])


def test_radiance_is_no_match_for_reflectance(known, tmp_path):
    cube, *_ = make_scene(tmp_path, "other", seed=2)
    with pytest.raises(UserError, match=r"line2: its values are radiance.*units: reflectance"):
        applied(known, cube, units="radiance")


def test_spectra_that_nobody_has_seen_are_told(known, tmp_path, caplog):
    values, _, nodata = landscape(seed=2)
    wave = 0.3 + 0.2 * np.sin(NM / 30)
    values[:, 20:] = wave[:, None, None] + np.random.default_rng(0).normal(0, 0.01, (20, 20, 30))
    cube = make_cube(tmp_path / "other.zarr", values, NM, None, nodata)
    _, told = applied(known, cube)
    assert told["far"] > 0.4
    assert "unlike all that the model has learned from in line1" in told["warnings"][0]
    assert told["warnings"][0] in caplog.text


def test_of_the_same_kind_of_pixels_few_are_far():
    rng = np.random.default_rng(0)
    draw = lambda shift: (rng.normal(0.5 + shift, 0.05, (2000, 12))).astype("f4")  # noqa: E731
    labels = np.zeros(2000, int)
    assert far_share(draw(0), labels, 1, draw(0)) < 0.03
    assert far_share(draw(0), labels, 1, draw(0.3)) > 0.9


def test_models_that_do_not_fit_are_refused(known, tmp_path):
    cube, *_ = make_scene(tmp_path, "other")
    (tmp_path / "damaged").write_bytes(b"no tensors")
    with pytest.raises(UserError, match=r"damaged: not what co-training writes"):
        applied(known, cube, cotrain=tmp_path / "damaged")
    with pytest.raises(UserError, match=r"network-0.*not a training state"):
        applied(known, cube, classifier={"hidden": 16, "tokens": 4})
