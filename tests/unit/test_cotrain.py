"""Co-training: what it corrects, which way it takes, and that every odd input has a defined result."""

import json

import numpy as np
import pytest
from stores import make_prediction, make_store

from special_steps import cotrain as module
from special_steps.core.calibration import known_of
from special_steps.core.errors import UserError
from special_steps.core.store import class_names, open_store, read_array
from special_steps.cotrain import cotrain, cotrained, predict


def scene(pixels=3000, bands=40, classes=3, wrong=0.3, seed=0):
    """Spectra of classes that lie apart, and (class, pixel) probabilities of which a share is wrong."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=pixels)
    means = 0.4 + 0.2 * rng.standard_normal((classes, bands)).cumsum(1) / np.sqrt(bands)
    spectra = means[truth] * rng.uniform(0.8, 1.2, (pixels, 1))
    spectra += 0.02 * rng.standard_normal(spectra.shape)
    flipped = rng.random(pixels) < wrong
    label = np.where(flipped, (truth + 1) % classes, truth)
    sure = np.where(flipped, rng.uniform(0.1, 0.5, pixels), rng.uniform(0.2, 0.9, pixels))
    probabilities = np.repeat((1 - sure[None]) / classes, classes, 0)
    probabilities[label, np.arange(pixels)] += sure
    return spectra.clip(0, 1).astype("f4"), probabilities.astype("f4"), truth


def check(found, classes, pixels):
    assert found.shape == (classes, pixels)
    assert np.isfinite(found).all()
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-4)


# --- what it corrects -----------------------------------------------------------------------------


def test_it_corrects_wrong_labels():
    spectra, probabilities, truth = scene()
    found = cotrained(spectra, probabilities).probabilities
    check(found, 3, len(spectra))
    assert (probabilities.argmax(0) == truth).mean() < 0.75
    assert (found.argmax(0) == truth).mean() > 0.98


def test_it_has_no_randomness_and_leaves_its_input_alone():
    spectra, probabilities, _ = scene()
    before = spectra.copy(), probabilities.copy()
    first, again = (cotrained(spectra, probabilities).probabilities for _ in range(2))
    assert np.array_equal(first, again)
    assert np.array_equal(spectra, before[0])
    assert np.array_equal(probabilities, before[1])


def test_what_was_learned_says_the_same_of_the_same_pixels():
    spectra, probabilities, _ = scene()
    learned = cotrained(spectra, probabilities)
    parts = [predict(learned, part) for part in np.array_split(spectra, 7)]
    np.testing.assert_allclose(np.concatenate(parts, 1), learned.probabilities, atol=1e-5)


def test_where_the_anchored_way_goes_astray_the_agreement_decides(monkeypatch):
    spectra, probabilities, _ = scene()
    assert cotrained(spectra, probabilities).way == "anchored"

    def astray(joint, views, probabilities):
        ensemble, found = real(joint, views, probabilities)
        return ensemble, np.roll(found, 1, axis=0)

    real = module.anchored
    monkeypatch.setattr(module, "anchored", astray)
    assert cotrained(spectra, probabilities).way == "agreement"


# --- odd input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("pixels", [1, 2, 10, 60])
@pytest.mark.parametrize("bands", [1, 2, 3, 40])
def test_small_scenes(pixels, bands):
    spectra, probabilities, _ = scene(pixels, bands)
    check(cotrained(spectra, probabilities).probabilities, 3, pixels)


def test_spectra_that_are_all_equal():
    _, probabilities, _ = scene(200)
    check(cotrained(np.full((200, 5), 0.5, "f4"), probabilities).probabilities, 3, 200)


def test_one_class():
    spectra, _, _ = scene(100)
    assert (cotrained(spectra, np.ones((1, 100), "f4")).probabilities == 1).all()


def test_labels_of_one_class_only_stay_it():
    spectra, _, _ = scene(500)
    probabilities = np.zeros((3, 500), "f4")
    probabilities[1] = 1
    found = cotrained(spectra, probabilities).probabilities
    check(found, 3, 500)
    assert (found.argmax(0) == 1).all()


def test_no_margin_anywhere_keeps_the_labels():
    spectra, _, _ = scene(300)
    learned = cotrained(spectra, np.full((3, 300), 1 / 3, "f4"))
    assert learned.way == "none"
    assert (learned.probabilities == np.float32(1 / 3)).all()


def test_a_tiny_class_survives():
    spectra, probabilities, truth = scene(3000)
    keep = (truth != 2) | (np.cumsum(truth == 2) <= 8)
    keep &= (probabilities.argmax(0) == truth) | (truth == 0)  # no label of the tiny class is wrong
    found = cotrained(spectra[keep], probabilities[:, keep]).probabilities.argmax(0)
    assert (found == truth[keep]).mean() > 0.95
    assert (found[truth[keep] == 2] == 2).any()


# --- the step -------------------------------------------------------------------------------------


@pytest.fixture
def stores(tmp_path):
    """Stores of a scene of 300 x 10 pixels, two of its rows without data, and the truth."""
    spectra, probabilities, truth = scene()
    nodata = np.zeros((300, 10), bool)
    nodata[[3, 290]] = True
    cube = spectra.T.reshape(-1, 300, 10)
    features = make_store(tmp_path / "features.zarr", nodata=nodata, features=cube)
    pseudo = make_prediction(
        tmp_path / "pseudo.zarr", probabilities.reshape(3, 300, 10), ["a", "b", "c"], nodata
    )
    return features, pseudo, nodata, truth.reshape(300, 10)


def test_the_step_writes_a_prediction_and_a_diagnosis(stores, tmp_path):
    features, pseudo, nodata, truth = stores
    out, diagnosis = tmp_path / "out.zarr", tmp_path / "diagnosis.json"
    cotrain(features=features, pseudo=pseudo, out=out, diagnosis=diagnosis)
    store = open_store(out, probabilities=("class", "y", "x"), margin=("y", "x"))
    labels = read_array(store, "labels")
    assert (labels[~nodata] == truth[~nodata] + 1).mean() > 0.98
    assert not labels[nodata].any()
    assert class_names(store) == ["a", "b", "c"]
    told = json.loads(diagnosis.read_text())
    assert told["way"] == "anchored"
    assert told["agreement"] == pytest.approx(0.7, abs=0.03)
    assert sum(c["cotrain_share"] for c in told["classes"]) == pytest.approx(1)
    assert told["warnings"] == []


def test_the_step_says_how_sure_it_is(stores, tmp_path):
    """Surer where the labels agree; less sure of the whole scene where a second witness contradicts the first."""
    features, pseudo, nodata, _ = stores
    said = read_array(open_store(pseudo), "labels")
    guess = np.random.default_rng(5).integers(1, 4, said.shape).astype("u1")
    found = {}
    for name, both in (("one", None), ("agree", [said, said]), ("differ", [said, guess])):
        witnesses = None if both is None else np.stack(both)
        labelled = make_prediction(
            tmp_path / f"{name}-p.zarr",
            read_array(open_store(pseudo), "probabilities"),
            ["a", "b", "c"],
            nodata,
            witnesses=witnesses,
        )
        out = tmp_path / f"{name}.zarr"
        cotrain(features=features, pseudo=labelled, out=out, diagnosis=tmp_path / "d.json")
        store = open_store(out, confidence=("y", "x"))
        assert known_of(store).witnesses == (1 if both is None else 2)
        found[name] = confidence = read_array(store, "confidence")
        assert not confidence[nodata].any()
        assert confidence[~nodata].min() > 0
        same = (read_array(store, "labels") == said) & ~nodata
        assert confidence[same].mean() > confidence[~same & ~nodata].mean()
    assert found["agree"][~nodata].mean() > found["differ"][~nodata].mean() + 0.03


def test_a_bounded_sample_of_a_large_scene_says_nearly_the_same(stores, tmp_path, monkeypatch):
    features, pseudo, _, _ = stores
    labels = []
    for name, sample in (("all", 10**9), ("part", 1500)):
        monkeypatch.setattr(module, "SAMPLE", sample)
        out = tmp_path / f"{name}.zarr"
        cotrain(features=features, pseudo=pseudo, out=out, diagnosis=tmp_path / "d.json")
        labels.append(read_array(open_store(out), "labels"))
    assert (labels[0] == labels[1]).mean() > 0.99


@pytest.mark.parametrize(
    ("probabilities", "warning"),
    [
        (np.full((3, 300, 10), 1 / 3, "f4"), "no margin anywhere"),
        (np.eye(3, dtype="f4")[0][:, None, None] + np.zeros((3, 300, 10), "f4"), "labelled 'b'"),
        (
            np.random.default_rng(0).dirichlet([1, 1, 1], (300, 10)).transpose(2, 0, 1),
            "little information",
        ),
    ],
)
def test_labels_that_say_nothing_are_told(stores, tmp_path, caplog, probabilities, warning):
    features, _, nodata, _ = stores
    pseudo = make_prediction(
        tmp_path / "other.zarr", probabilities.astype("f4"), ["a", "b", "c"], nodata
    )
    diagnosis = tmp_path / "d.json"
    cotrain(features=features, pseudo=pseudo, out=tmp_path / "out.zarr", diagnosis=diagnosis)
    assert any(warning in told for told in json.loads(diagnosis.read_text())["warnings"])
    assert warning in caplog.text


def test_a_class_that_the_spectra_contradict_is_told():
    spectra, probabilities, _ = scene(wrong=0)
    learned = cotrained(spectra, probabilities)
    pairs = np.array([[900, 0, 0], [700, 200, 0], [0, 0, 1000]])
    (warning,) = module.diagnose(learned, pairs, ["a", "b", "c"])["warnings"]
    assert "78%" in warning
    assert "'b'" in warning
    assert "for 'a'" in warning


def test_a_scene_without_data_is_an_error(tmp_path):
    nodata = np.ones((4, 5), bool)
    features = make_store(tmp_path / "f.zarr", nodata=nodata, features=np.zeros((3, 4, 5), "f4"))
    pseudo = make_prediction(tmp_path / "p.zarr", np.ones((1, 4, 5), "f4"), ["a"], nodata)
    with pytest.raises(UserError, match="no pixel has data"):
        cotrain(features=features, pseudo=pseudo, out=tmp_path / "o", diagnosis=tmp_path / "d")
    assert not (tmp_path / "o").exists()
