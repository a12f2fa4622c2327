"""Labels, margins, and the store of a prediction."""

import numpy as np
import pytest
from stores import make_prediction

from special_steps.core.prediction import (
    given_labels,
    labels,
    margins,
    write_prediction,
    write_prediction_strips,
)
from special_steps.core.store import UNKNOWN, Grid, class_names, open_store, tile_rows


def test_margin_is_best_minus_second_best():
    probabilities = np.array([[0.5, 0.1], [0.2, 0.1], [0.3, 0.8]], "f4")  # (class, pixel)
    found = margins(probabilities)
    np.testing.assert_allclose(found, [0.2, 0.7], atol=1e-7)
    assert found.dtype == np.float32


def test_margin_of_a_tie_is_0_and_of_certainty_1():
    np.testing.assert_array_equal(margins(np.array([[0.5, 1.0], [0.5, 0.0]], "f4")), [0, 1])


def test_margin_of_one_class_is_1():
    np.testing.assert_array_equal(margins(np.ones((1, 2, 3), "f4")), np.ones((2, 3)))


def test_margins_leave_their_input_alone():
    probabilities = np.random.default_rng(0).random((4, 5), np.float32)
    before = probabilities.copy()
    margins(probabilities)
    np.testing.assert_array_equal(probabilities, before)


def test_labels_count_from_1_and_0_is_no_data():
    probabilities = np.array([[[0.6, 0.1, 0.5]], [[0.4, 0.9, 0.5]]], "f4")
    nodata = np.array([[False, True, False]])
    found = labels(probabilities, nodata)
    np.testing.assert_array_equal(found, [[1, 0, 1]])
    assert found.dtype == np.uint8


def test_255_classes_fit():
    probabilities = np.zeros((255, 1, 1), "f4")
    probabilities[254] = 1
    assert labels(probabilities, np.zeros((1, 1), bool))[0, 0] == 255


def test_the_store_has_zeros_where_no_data(tmp_path):
    probabilities = np.random.default_rng(0).random((3, 4, 5), np.float32)
    probabilities[:, 0, 0] = np.nan  # nothing of a masked pixel may come through
    nodata = np.zeros((4, 5), bool)
    nodata[0, 0] = nodata[3, 4] = True
    before = probabilities.copy()
    make_prediction(tmp_path / "p.zarr", probabilities, ["a", "b", "c"], nodata)
    found = open_store(
        tmp_path / "p.zarr",
        probabilities=("class", "y", "x"),
        labels=("y", "x"),
        margin=("y", "x"),
        nodata=("y", "x"),
    )
    np.testing.assert_array_equal(found["nodata"][:], nodata)
    for name in ("labels", "margin"):
        assert (found[name][:][nodata] == 0).all()
    assert (found["probabilities"][:][:, nodata] == 0).all()
    valid = ~nodata
    np.testing.assert_array_equal(found["probabilities"][:][:, valid], before[:, valid])
    np.testing.assert_array_equal(found["labels"][:][valid], before[:, valid].argmax(0) + 1)
    ordered = np.sort(before[:, valid], 0)
    np.testing.assert_allclose(found["margin"][:][valid], ordered[2] - ordered[1], atol=1e-7)
    assert class_names(found) == ["a", "b", "c"]
    np.testing.assert_array_equal(probabilities, before)


def write_strips_of(path, probabilities, nodata, rows):
    write_prediction_strips(
        path, ((probabilities[:, r], nodata[r]) for r in rows), nodata.shape,
        step="test", settings={}, inputs=[], class_names=["a", "b"],
        grid=Grid(None, (10.0, 0.0, 0.0, 0.0, -10.0, 0.0)),
    )  # fmt: skip


def test_strips_make_the_same_store_as_the_whole(tmp_path):
    rng = np.random.default_rng(0)
    probabilities, nodata = rng.random((2, 600, 30), np.float32), rng.random((600, 30)) < 0.1
    made = {
        "chunks": tile_rows(600),
        "uneven": [slice(0, 100), slice(100, 101), slice(101, 600)],
    }
    transform = [10.0, 0.0, 0.0, 0.0, -10.0, 0.0]
    whole = tmp_path / "whole.zarr"
    make_prediction(whole, probabilities, ["a", "b"], nodata, transform=transform)
    for name, rows in made.items():
        write_strips_of(tmp_path / f"{name}.zarr", probabilities, nodata, rows)
        assert (
            open_store(tmp_path / f"{name}.zarr").attrs["digest"]
            == open_store(whole).attrs["digest"]
        )


def test_strips_that_do_not_fill_the_scene_are_refused(tmp_path):
    probabilities, nodata = np.full((2, 9, 4), 0.5, "f4"), np.zeros((9, 4), bool)
    with pytest.raises(ValueError, match=r"8 rows.*9"):
        write_strips_of(tmp_path / "p.zarr", probabilities, nodata, [slice(0, 8)])
    assert list(tmp_path.iterdir()) == []


def test_labels_that_people_gave_are_certain_and_kept(tmp_path):
    """But not where there is no data."""
    given = np.zeros((300, 3), np.uint8)
    given[0, 0], given[299, 1], given[5, 2] = 2, 1, 2
    nodata = np.zeros(given.shape, bool)
    nodata[5, 2] = True
    options = {"step": "test", "settings": {}, "inputs": [], "class_names": ["a", "b"]}
    probabilities = np.stack([np.full(given.shape, 0.7), np.full(given.shape, 0.3)]).astype("f4")
    for name, kept in (("with", given), ("without", None)):
        write_prediction(
            tmp_path / name, probabilities, nodata, grid=UNKNOWN, given=kept, **options
        )
    store, plain = (open_store(tmp_path / name) for name in ("with", "without"))
    assert store["probabilities"][:, 0, 0].tolist() == [0, 1]
    assert store["probabilities"][:, 299, 1].tolist() == [1, 0]
    assert store["probabilities"][:, 5, 2].tolist() == [0, 0]
    assert store["labels"][0, 0] == 2 and store["margin"][0, 0] == 1 and store["labels"][5, 2] == 0
    np.testing.assert_array_equal(given_labels(store), given)
    assert given_labels(plain) is None and "given" not in plain
    other = given == 0
    np.testing.assert_array_equal(store["labels"][:][other], plain["labels"][:][other])
