"""The controlled maps of the benchmark: as right as asked, with errors as asked."""

from typing import get_args

import numpy as np
import pytest
from controlled_maps import MARGIN, Family, controlled_map
from scipy.ndimage import gaussian_filter

every_family = pytest.mark.parametrize("family", get_args(Family))


def scene(height=70, width=80, classes=4, seed=0):
    """Smooth patches of classes with spectra of their own; a corner without data, a strip without truth."""
    rng = np.random.default_rng(seed)
    fields = np.stack(
        [gaussian_filter(rng.standard_normal((height, width)), 5) for _ in range(classes)]
    )
    truth = fields.argmax(0) + 1
    cube = rng.random((classes, 12))[truth - 1].transpose(2, 0, 1)
    cube = np.clip(cube + 0.03 * rng.standard_normal(cube.shape), 0, 1).astype("f4")
    valid = np.ones((height, width), bool)
    valid[:8, :9] = False
    truth[-5:] = 0
    return {"cube": cube, "image": cube[[8, 5, 2]], "valid": valid, "truth": truth}, classes


def made(family, level=65, seed=0, **changed):
    given, classes = scene()
    given |= changed
    image = controlled_map(**given, classes=classes, level=level, seed=seed, family=family)
    return image, given["valid"], given["truth"]


@every_family
@pytest.mark.parametrize("level", [50, 65, 80])
def test_exactly_as_right_as_asked(family, level):
    for seed in range(3):
        image, valid, truth = made(family, level, seed)
        known = valid & (truth > 0)
        right = (image.argmax(0) + 1 == truth)[known].sum()
        assert right == round(level / 100 * known.sum())


@every_family
def test_probabilities_of_the_wanted_margin(family):
    image, valid, _ = made(family)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image.sum(0)[valid], 1, atol=1e-5)
    assert (image[:, ~valid] == 0).all()
    ordered = np.sort(image[:, valid], 0)
    assert (ordered[-1] - ordered[-2]).mean() == pytest.approx(MARGIN, abs=0.01)


@every_family
def test_margins_are_informative_but_imperfect(family):
    image, valid, truth = made(family, 50)
    known = valid & (truth > 0)
    ordered = np.sort(image[:, known], 0)
    margin, right = ordered[-1] - ordered[-2], image.argmax(0)[known] + 1 == truth[known]
    sure = margin > np.median(margin)
    assert 0.01 < right[sure].mean() - right[~sure].mean() < 0.6


@every_family
def test_one_class_is_over_predicted(family):
    for seed in range(3):
        image, valid, truth = made(family, 50, seed)
        known = valid & (truth > 0)
        actual = np.bincount(truth[known] - 1, minlength=4)
        found = np.bincount(image.argmax(0)[known], minlength=4)
        assert (found / actual).max() > 1.3


def test_errors_come_in_regions():
    """Neighbours of wrong pixels are mostly wrong."""
    image, valid, truth = made("regions")
    wrong = (image.argmax(0) + 1 != truth) & valid & (truth > 0)
    assert wrong[:, 1:][wrong[:, :-1]].mean() > 0.75


def test_errors_follow_appearance():
    """Two halves of the same look have errors at the same places, which smooth regions do not."""
    given, _ = scene()
    twice = {name: np.concatenate([part, part], -1) for name, part in given.items()}
    share = {}
    for family in get_args(Family):
        image, valid, truth = made(family, 65, **twice)
        wrong = (image.argmax(0) + 1 != truth) & valid & (truth > 0)
        left, right = np.split(wrong, 2, 1)
        share[family] = (left & right).sum() / (left | right).sum()
    assert share["appearance"] > 0.5 > share["regions"]


@every_family
def test_the_same_seed_is_the_same_map(family):
    first, again, other = (made(family, seed=seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first.argmax(0) != other.argmax(0)).mean() > 0.1


@every_family
def test_a_class_without_a_pixel_is_no_error_s_target(family):
    given, classes = scene()
    image = controlled_map(**given, classes=classes + 1, level=65, seed=0, family=family)
    assert (image.argmax(0)[given["valid"] & (given["truth"] > 0)] == classes).mean() < 0.01


@every_family
def test_thin_objects_do_not_make_errors_of_their_own(family):
    """Truth that changes by the pixel: a wide blur alone would take more than is asked."""
    truth = np.random.default_rng(0).integers(1, 5, (70, 80))
    image, valid, truth = made(family, 80, truth=truth)
    assert (image.argmax(0) + 1 == truth)[valid].sum() == round(0.8 * valid.sum())


def test_one_class_has_nothing_to_be_taken_for():
    with pytest.raises(ValueError, match="at least two classes"):
        made("regions", truth=np.ones((70, 80), int))


def test_an_unknown_family_is_refused():
    with pytest.raises(ValueError, match="no family 'stripes'; there are regions, appearance"):
        made("stripes")
