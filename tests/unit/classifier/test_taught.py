"""What labels of a few pixels teach: a class that pseudo-labels never find, and nothing where they are right."""

import numpy as np
import pytest

from special_steps.classifier.taught import corrected, learn


def scene(pixels=1500, bands=40, classes=4, seed=0):
    """Spectra of classes that lie apart, and pseudo-labels that are right of nine in ten."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=pixels)
    means = 0.4 + 0.2 * rng.standard_normal((classes, bands)).cumsum(1) / np.sqrt(bands)
    spectra = means[truth] * rng.uniform(0.8, 1.2, (pixels, 1))
    spectra += 0.02 * rng.standard_normal(spectra.shape)
    label = np.where(rng.random(pixels) < 0.1, rng.integers(classes, size=pixels), truth)
    sure = rng.uniform(0.2, 0.9, pixels)
    probabilities = np.repeat((1 - sure[None]) / classes, classes, 0)
    probabilities[label, np.arange(pixels)] += sure
    return spectra.clip(0, 1).astype("f4"), probabilities.astype("f4"), truth


def points(truth, classes, each=5, seed=0):
    rng = np.random.default_rng(seed)
    given = np.full(len(truth), -1)
    for k in classes:
        given[rng.choice(np.flatnonzero(truth == k), each, replace=False)] = k
    return given


def without(probabilities, k):
    probabilities = probabilities.copy()
    probabilities[k] = 1e-6
    return probabilities / probabilities.sum(0)


def recall(found, truth, k):
    return (found.argmax(0) == k)[truth == k].mean()


def test_a_class_that_was_never_found_appears_from_five_points():
    spectra, probabilities, truth = scene()
    lost = without(probabilities, 2)
    given = points(truth, [2])
    found = corrected(learn(spectra, lost, given), spectra, lost)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-4)
    assert recall(lost, truth, 2) == 0
    assert recall(found, truth, 2) > 0.9
    called = found.argmax(0) == 2
    assert (truth[called] == 2).mean() > 0.9
    others = truth != 2
    assert (found.argmax(0) == truth)[others].mean() > (lost.argmax(0) == truth)[others].mean() - 0.02  # fmt: skip


def test_labels_that_agree_with_sure_pseudo_labels_change_nothing():
    spectra, _, truth = scene()
    sure = np.eye(4, dtype=np.float32)[:, truth]
    found = corrected(learn(spectra, sure, points(truth, range(4))), spectra, sure)
    np.testing.assert_allclose(found, sure, atol=1e-5)


def test_one_wrong_point_of_five_does_little_harm():
    spectra, probabilities, truth = scene()
    lost = without(probabilities, 2)
    given = points(truth, [2], 4)
    given[np.flatnonzero(truth == 0)[0]] = 2
    found = corrected(learn(spectra, lost, given), spectra, lost)
    assert recall(found, truth, 2) > 0.9
    assert recall(found, truth, 0) > recall(lost, truth, 0) - 0.05


def test_blocks_of_pixels_give_what_the_whole_gives_and_inputs_stay():
    spectra, probabilities, truth = scene()
    lost = without(probabilities, 1)
    before = spectra.copy(), lost.copy()
    learned = learn(spectra, lost, points(truth, [1]))
    whole = corrected(learned, spectra, lost)
    parts = [corrected(learned, spectra[i : i + 400], lost[:, i : i + 400]) for i in range(0, 1500, 400)]  # fmt: skip
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, atol=1e-5)
    assert np.array_equal(spectra, before[0]) and np.array_equal(lost, before[1])


@pytest.mark.parametrize("each", [1, 2])
def test_fewer_points_are_no_mistake(each):
    spectra, probabilities, truth = scene()
    lost = without(probabilities, 0)
    found = corrected(learn(spectra, lost, points(truth, [0], each)), spectra, lost)
    assert np.isfinite(found).all()
    assert recall(found, truth, 0) > 0.3


def test_odd_scenes_have_a_result():
    """All pixels labelled; labels without a margin; spectra that are all equal; one band; a class nobody has."""
    spectra, probabilities, truth = scene(300)
    flat = np.full_like(probabilities, 0.25)
    for s, p, g in [
        (spectra, probabilities, truth),
        (spectra, flat, points(truth, [1, 2])),
        (np.full_like(spectra, 0.3), probabilities, points(truth, [1])),
        (spectra[:, :1], without(probabilities, 3), points(truth, [0])),
    ]:
        found = corrected(learn(np.ascontiguousarray(s), p, g), s, p)
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found.sum(0), 1, atol=1e-4)
