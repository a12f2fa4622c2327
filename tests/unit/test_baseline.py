"""The simple classifiers: what they learn, and that every odd input has a defined result."""

import logging

import numpy as np
import pytest
from stores import make_prediction

from special_steps.baseline import (
    COMPONENTS,
    baseline,
    classify,
    principal_components,
    surest_pixels,
)
from special_steps.core.store import Grid, class_names, grid_of, new_store, open_store, write_array

METHODS = ["lda", "qda", "spectral_angle", "kmeans"]
every_method = pytest.mark.parametrize("method", METHODS)


def scene(pixels=900, bands=30, classes=3, wrong=0.2, seed=0):
    """Spectra of classes that lie apart, and probabilities of which a share is wrong, with smaller margins."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=pixels)
    means = 0.4 + 0.2 * rng.standard_normal((classes, bands)).cumsum(1) / np.sqrt(bands)
    spectra = means[truth] * rng.uniform(0.8, 1.2, (pixels, 1))
    spectra += 0.01 * rng.standard_normal(spectra.shape)
    flipped = rng.random(pixels) < wrong
    label = np.where(flipped, (truth + 1) % classes, truth)
    sure = np.where(flipped, rng.uniform(0.1, 0.5, pixels), rng.uniform(0.2, 0.9, pixels))
    probabilities = np.repeat((1 - sure[:, None]) / classes, classes, 1)
    probabilities[np.arange(pixels), label] += sure
    return spectra.astype("f4"), probabilities.astype("f4"), truth


def check(found, probabilities):
    """What holds of every result."""
    assert found.shape == probabilities.shape
    assert found.dtype == np.float32
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


# --- what they learn ------------------------------------------------------------------------------


@every_method
def test_it_corrects_wrong_labels(method):
    spectra, probabilities, truth = scene()
    found = classify(method, spectra, probabilities)
    check(found, probabilities)
    assert (probabilities.argmax(1) == truth).mean() < 0.85
    assert (found.argmax(1) == truth).mean() > 0.97


@every_method
def test_the_same_for_the_same_input(method):
    spectra, probabilities, _ = scene()
    before = spectra.copy(), probabilities.copy()
    first = classify(method, spectra, probabilities)
    np.testing.assert_array_equal(classify(method, spectra, probabilities), first)
    np.testing.assert_array_equal(spectra, before[0])
    np.testing.assert_array_equal(probabilities, before[1])


@pytest.mark.parametrize("method", ["lda", "qda", "spectral_angle"])
def test_the_order_of_pixels_does_not_matter(method):
    spectra, probabilities, _ = scene()
    order = np.random.default_rng(1).permutation(len(spectra))
    found = classify(method, spectra[order], probabilities[order])
    np.testing.assert_allclose(found, classify(method, spectra, probabilities)[order], atol=1e-4)


def test_the_angle_ignores_brightness():
    spectra, probabilities, _ = scene()
    pixels, _ = surest_pixels(probabilities, 0.2)
    others = np.setdiff1d(np.arange(len(spectra)), pixels)
    darker = spectra.copy()
    darker[others] *= 0.1
    found = classify("spectral_angle", darker, probabilities)
    wanted = classify("spectral_angle", spectra, probabilities)
    np.testing.assert_array_equal(found.argmax(1), wanted.argmax(1))


def test_clusters_share_their_mean_probabilities():
    spectra = np.repeat(np.eye(2, 5, dtype="f4"), 2, 0)
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.1, 0.9]], "f4")
    found = classify("kmeans", spectra, probabilities)
    np.testing.assert_allclose(found, [[0.65, 0.35]] * 2 + [[0.2, 0.8]] * 2, atol=1e-6)


@pytest.mark.parametrize(
    ("scene_name", "method", "wanted"),
    [
        ("samson_50", "lda", 0.83),
        ("samson_65", "spectral_angle", 0.94),
        ("samson_80", "spectral_angle", 0.965),
        ("muufl_50", "lda", 0.85),
        ("muufl_65", "lda", 0.885),
        ("muufl_80", "kmeans", 0.905),
    ],
)
def test_as_good_as_simple_methods_are(shared, tmp_path, scene_name, method, wanted):
    """The best simple method of each row of ../shared/pseudo/README.md, mean of three maps."""
    import noisy_labels

    name, level = scene_name.split("_")
    real = noisy_labels.real_scene(name, shared / "data" / "scenes", tmp_path)
    truth = np.load(shared / "pseudo" / f"{name}_gt.npz")["gt"]
    scores = []
    for seed in range(3):
        given = np.load(shared / "pseudo" / f"{name}_{level}_{seed}.npz")["probs"]
        found = classify(method, real.cube[:, real.valid].T, given[real.valid])
        scores.append((found.argmax(1) + 1 == truth[real.valid]).mean())
    assert np.mean(scores) > wanted


# --- the surest pixels ----------------------------------------------------------------------------


def test_the_surest_share_of_each_class():
    sure = np.linspace(0.51, 0.99, 100)
    probabilities = np.concatenate([np.stack([sure, 1 - sure], 1), np.stack([1 - sure, sure], 1)])
    pixels, labels = surest_pixels(probabilities, 0.4)
    np.testing.assert_array_equal(pixels, [*range(60, 100), *range(160, 200)])
    np.testing.assert_array_equal(labels, [0] * 40 + [1] * 40)


def test_small_classes_give_thirty_pixels_or_all():
    sure = np.linspace(0.6, 0.9, 60)
    probabilities = np.stack([sure, 1 - sure], 1)
    probabilities[50:] = probabilities[50:, ::-1]
    _, labels = surest_pixels(probabilities, 0.1)
    np.testing.assert_array_equal(np.bincount(labels), [30, 10])


def test_equal_margins_are_all_taken():
    probabilities = np.eye(2)[np.arange(200) % 2]
    pixels, _ = surest_pixels(probabilities, 0.1)
    assert len(pixels) == 200


# --- components -----------------------------------------------------------------------------------


def test_components_are_scaled_by_whitening_only():
    spectra, _, _ = scene()
    plain = principal_components(spectra, whiten=False)
    white = principal_components(spectra, whiten=True)
    assert plain.shape == (900, COMPONENTS)
    np.testing.assert_allclose(white.std(0, ddof=1), 1, rtol=1e-6)
    np.testing.assert_allclose(white * plain.std(0, ddof=1), plain, atol=1e-9)


def test_components_of_rounding_errors_are_left_out():
    rng = np.random.default_rng(0)
    spectra = (rng.random((500, 2)) @ rng.random((2, 40))).astype("f4")
    assert principal_components(spectra, whiten=True).shape == (500, 2)


def test_components_of_a_sample(monkeypatch):
    """Of more pixels than are needed, some; a sample that is constant is none."""
    monkeypatch.setattr("special_steps.baseline.MOST", 100)
    spectra, _, _ = scene()
    assert principal_components(spectra, whiten=False).shape == (900, COMPONENTS)
    spectra[::9] = spectra[0]
    assert principal_components(spectra, whiten=False).shape == (900, COMPONENTS)


# --- odd input ------------------------------------------------------------------------------------


@every_method
def test_labels_of_one_class_stay(method, caplog):
    spectra, probabilities, _ = scene()
    probabilities = np.sort(probabilities, 1)
    found = classify(method, spectra, probabilities)
    np.testing.assert_array_equal(found, probabilities)
    assert "all are of class 3" in caplog.text


@every_method
def test_a_single_class(method):
    spectra, _, _ = scene()
    assert (classify(method, spectra, np.ones((900, 1), "f4")) == 1).all()


@every_method
def test_a_class_that_is_never_predicted_has_probability_0(method):
    spectra, probabilities, truth = scene()
    never = np.full((900, 1), 1e-3, "f4")
    probabilities = np.concatenate([probabilities[:, :1], never, probabilities[:, 1:]], 1)
    probabilities /= probabilities.sum(1, keepdims=True)
    found = classify(method, spectra, probabilities)
    check(found, probabilities)
    assert (found[:, 1] == 0).all()
    assert (found[:, [0, 2, 3]].argmax(1) == truth).mean() > 0.97


@every_method
@pytest.mark.parametrize("bands", [1, 2, 3])
def test_few_bands(method, bands):
    spectra, probabilities, _ = scene(bands=bands)
    check(classify(method, spectra, probabilities), probabilities)


@every_method
def test_constant_bands(method):
    spectra, probabilities, truth = scene()
    spectra[:, ::2] = 0.5
    found = classify(method, spectra, probabilities)
    check(found, probabilities)
    assert (found.argmax(1) == truth).mean() > 0.95


@every_method
def test_a_constant_scene_keeps_its_labels(method, caplog):
    _, probabilities, _ = scene()
    found = classify(method, np.full((900, 5), 0.5, "f4"), probabilities)
    np.testing.assert_array_equal(found, probabilities)
    assert "all spectra are equal" in caplog.text


@every_method
@pytest.mark.parametrize("pixels", [1, 2, 3, 10])
def test_few_pixels(method, pixels):
    """Fewer than components, than clusters, than bands."""
    spectra, probabilities, _ = scene(pixels)
    check(classify(method, spectra, probabilities), probabilities)


@every_method
def test_a_class_of_one_pixel(method):
    spectra, probabilities, truth = scene(wrong=0)
    probabilities = np.concatenate([probabilities, np.zeros((900, 1), "f4")], 1)
    spectra[7], probabilities[7] = 3 * spectra[7, ::-1], [0.1, 0.1, 0.1, 0.7]
    found = classify(method, spectra, probabilities)
    check(found, probabilities)
    others = np.arange(900) != 7
    assert (found.argmax(1) == truth)[others].mean() > 0.95


@every_method
def test_one_hot_labels(method):
    spectra, probabilities, truth = scene(wrong=0.1)
    one_hot = np.eye(3, dtype="f4")[probabilities.argmax(1)]
    found = classify(method, spectra, one_hot)
    check(found, probabilities)
    assert (found.argmax(1) == truth).mean() > 0.95


@every_method
def test_margins_of_zero(method):
    """Two classes tie at every pixel: the first of them is the label."""
    spectra, probabilities, truth = scene(wrong=0)
    tied = np.full_like(probabilities, 0.5)
    tied[np.arange(900), (truth + 2) % 3] = 0
    found = classify(method, spectra, tied)
    check(found, tied)
    assert len(np.unique(found.argmax(1))) == 2


@every_method
def test_equal_pixels_of_each_class(method):
    """No spread within a class: nothing to divide by."""
    _, probabilities, truth = scene(wrong=0.1)
    spectra = np.eye(3, 8, dtype="f4")[truth] + 0.1
    found = classify(method, spectra, probabilities)
    check(found, probabilities)
    assert (found.argmax(1) == truth).all()


def test_black_pixels_keep_their_labels_by_angle():
    spectra, probabilities, _ = scene()
    spectra[:50] = 0
    found = classify("spectral_angle", spectra, probabilities)
    np.testing.assert_allclose(found[:50], probabilities[:50], atol=1e-6)


def test_a_class_of_black_pixels_has_no_angle():
    spectra, probabilities, truth = scene(wrong=0)
    spectra[truth == 1] = 0
    found = classify("spectral_angle", spectra, probabilities)
    check(found, probabilities)
    assert (found.argmax(1) == truth).mean() > 0.97


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match=r"no method 'svm'; there are lda, qda"):
        classify("svm", *scene()[:2])  # type: ignore[arg-type]


# --- the step -------------------------------------------------------------------------------------

NAMES = ["soil", "tree", "water"]
GRID = Grid("a CRS", (1.0, 0.0, 2.0, 0.0, -1.0, 3.0))


def stores(tmp_path, nodata):
    """features.zarr and pseudo.zarr of the scene, 30 x 30 pixels, with wild values where there is no data."""
    spectra, probabilities, truth = scene()
    cube = spectra.T.reshape(-1, 30, 30).copy()
    cube[:, nodata] = 0
    with new_store(tmp_path / "f.zarr", step="test", settings={}, inputs=[], grid=GRID) as group:
        write_array(group, "features", cube, ("band", "y", "x"))
        write_array(group, "nodata", nodata, ("y", "x"))
    pseudo = make_prediction(
        tmp_path / "p.zarr",
        probabilities.T.reshape(3, 30, 30),
        NAMES,
        nodata,
        GRID.crs,
        list(GRID.transform or ()),
    )
    return {"features": tmp_path / "f.zarr", "pseudo": pseudo}, truth.reshape(30, 30)


@every_method
def test_the_step_end_to_end(tmp_path, method, caplog):
    nodata = np.zeros((30, 30), bool)
    nodata[:4, :7] = True
    inputs, truth = stores(tmp_path, nodata)
    with caplog.at_level(logging.INFO):
        baseline(**inputs, method=method, out=tmp_path / "b.zarr")
    store = open_store(
        tmp_path / "b.zarr",
        probabilities=("class", "y", "x"),
        labels=("y", "x"),
        margin=("y", "x"),
        nodata=("y", "x"),
    )
    labels, probabilities = store["labels"][:], store["probabilities"][:]
    assert (labels == truth + 1)[~nodata].mean() > 0.97
    np.testing.assert_allclose(probabilities.sum(0)[~nodata], 1, atol=1e-5)
    assert (probabilities[:, nodata] == 0).all()
    assert (labels[nodata] == 0).all()
    assert (store["margin"][:][nodata] == 0).all()
    np.testing.assert_array_equal(store["nodata"][:], nodata)
    assert class_names(store) == NAMES
    assert grid_of(store) == GRID
    said = store.attrs["provenance"]
    assert said["step"] == "baseline"
    assert said["settings"] == {"method": method}
    assert set(said["inputs"]) == {str(path) for path in inputs.values()}
    assert f"{method}: soil 3" in caplog.text  # about a third


def test_masked_pixels_take_no_part(tmp_path):
    nodata = np.zeros((30, 30), bool)
    nodata[5:9] = True
    inputs, _ = stores(tmp_path, nodata)
    baseline(**inputs, method="lda", out=tmp_path / "b.zarr")
    spectra, probabilities, _ = scene()
    valid = ~nodata.ravel()
    wanted = classify("lda", spectra[valid], probabilities[valid])
    found = open_store(tmp_path / "b.zarr")["probabilities"][:]
    np.testing.assert_allclose(found[:, ~nodata], wanted.T, atol=1e-6)
