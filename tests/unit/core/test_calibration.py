"""How sure a map is: no value outside [0, 1], and nothing that speaks for a label lowers it."""

import numpy as np
import pytest
from stores import make_prediction, one_hot

from special_steps.core.calibration import (
    ENOUGH,
    SEEN,
    UNSEEN,
    Known,
    confidence,
    passed_on,
    what_is_known,
    witnesses_of,
)
from special_steps.core.store import open_store


def of(best, known, witnesses=None):
    """Confidence of one pixel with label 1 of three classes."""
    rest = (1 - best) / 2
    probabilities = np.array([best, rest, rest], "f4")[:, None]
    said = None if witnesses is None else np.array(witnesses, "u1")[:, None]
    return float(confidence(probabilities, known, said)[0])


def test_coefficients_never_punish_what_speaks_for_a_label():
    for by in (*SEEN.values(), *UNSEEN.values()):
        assert min(by.probability, by.agreeing, by.kappa) >= 0
        assert by.probability > 0
    assert all(by.agreeing == 0 for by in UNSEEN.values())


@pytest.mark.parametrize("witnesses", [1, 2])
def test_it_rises_with_probability_agreement_and_kappa(witnesses):
    agreed, against = [1] * witnesses, [2] * witnesses
    for said in (agreed, against, None):
        values = [of(p, Known(witnesses, 0.5), said) for p in (0.34, 0.5, 0.7, 0.9, 0.99, 1)]
        assert (np.diff(values) > 0).all()
        kappas = [of(0.9, Known(witnesses, k), said) for k in (-0.1, 0, 0.3, 0.9)]
        assert (np.diff(kappas) >= 0).all()
        assert kappas[2] > kappas[1]
        assert of(0.9, Known(witnesses, ENOUGH), said) == kappas[-1]
        assert 0 <= min(values) <= max(values) <= 1
    assert of(0.9, Known(witnesses, 0.5), agreed) > of(0.9, Known(witnesses, 0.5), against)


def test_one_witness_of_two_lies_between():
    known = Known(2, 0.5)
    both, one, none = (of(0.9, known, said) for said in ([1, 1], [1, 3], [2, 3]))
    assert both > one > none
    assert of(0.9, known, [3, 1]) == one


def test_images_and_pixels_are_alike():
    rng = np.random.default_rng(0)
    image = rng.dirichlet(np.ones(4), (6, 5)).transpose(2, 0, 1).astype("f4")
    said = rng.integers(1, 5, (2, 6, 5)).astype("u1")
    found = confidence(image, Known(2, 0.4), said)
    assert found.shape == (6, 5)
    assert found.dtype == np.float32
    flat = confidence(image.reshape(4, -1), Known(2, 0.4), said.reshape(2, -1))
    np.testing.assert_array_equal(found.ravel(), flat)


def test_a_single_class_is_certain():
    assert (
        confidence(np.ones((1, 3, 2), "f4"), Known(1, 1.0), np.ones((1, 3, 2), "u1")) == 1
    ).all()


def test_missing_witnesses_are_an_error():
    with pytest.raises(ValueError, match="1 witnesses, but the scene has 2"):
        of(0.9, Known(2, 0.5), [1])


def test_a_scene_whose_witnesses_contradict_each_other_is_trusted_less():
    """The same sure map; labels by chance against labels that agree."""
    rng = np.random.default_rng(1)
    right = rng.integers(1, 5, 4000).astype("u1")
    sure = one_hot(right, 4)[:, 0] * 0.92 + 0.02
    guess = rng.integers(1, 5, 4000).astype("u1")
    good, bad = np.stack([right, right]), np.stack([right, guess])
    trusted, doubted = (
        confidence(sure, what_is_known(said, sure), said).mean() for said in (good, bad)
    )
    assert trusted > doubted + 0.1
    trusted, doubted = (
        confidence(sure, what_is_known(said[None], sure), said[None]).mean()
        for said in (right, guess)
    )
    assert trusted > doubted + 0.1


def test_what_is_known_by_hand():
    """Half of the pixels agree, half would by chance: kappa 0. Of one witness its map is asked."""
    first, second = np.array([1, 1, 2, 2], "u1"), np.array([1, 2, 1, 2], "u1")
    assert what_is_known(np.stack([first, second]), None) == Known(2, 0.0)
    assert what_is_known(np.stack([first, first]), None) == Known(2, 1.0)
    assert what_is_known(first[None], one_hot(first, 2)[:, 0]) == Known(1, 1.0)
    assert what_is_known(first[None], one_hot(second, 3)[:, 0]) == Known(1, 0.0)
    assert what_is_known(first[None], None) == Known(1, 0.0)  # its own map says nothing
    assert what_is_known(first[None] * 0 + 1, one_hot(first * 0 + 1, 1)[:, 0]) == Known(1, 1.0)


def test_where_a_map_keeps_the_label_it_keeps_the_confidence():
    """Calibrated: .8 for class 1. Another map says class 2 with .6 and class 3 with .2: .6 / .8 of what is left."""
    probabilities = np.array([[0.5, 0.2, 0.2], [0.3, 0.6, 0.6], [0.2, 0.2, 0.2]], "f4")
    found = passed_on(probabilities, np.array([1, 1, 0], "u1"), np.array([0.8, 0.8, 0], "f4"))
    np.testing.assert_allclose(found[:2], [0.8, 0.2 * 0.6 / 0.8], atol=1e-6)
    assert 0 <= found[2] <= 1


def test_a_map_of_one_class_passes_on():
    assert passed_on(np.ones((1, 2), "f4"), np.array([1, 0], "u1"), np.array([1, 0], "f4"))[0] == 1


def test_witnesses_of_a_store(tmp_path):
    labels = np.array([[1, 2], [2, 1]], "u1")
    both = np.stack([labels, 3 - labels])
    one = make_prediction(tmp_path / "a.zarr", one_hot(labels, 2), ["a", "b"])
    two = make_prediction(tmp_path / "b.zarr", one_hot(labels, 2), ["a", "b"], witnesses=both)
    np.testing.assert_array_equal(witnesses_of(open_store(one)), labels[None])
    np.testing.assert_array_equal(witnesses_of(open_store(two)), both)
