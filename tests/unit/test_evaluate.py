"""Accuracy: worked by hand, checked against scikit-learn, and on real maps."""

import csv
import inspect
import json

import numpy as np
import pytest
from stores import add_confidence, make_prediction, one_hot

from special_steps.core.errors import UserError
from special_steps.core.store import new_store, write_array, write_names
from special_steps.evaluate import evaluate, kept, scores, trust

NAMES = ["a", "b", "c"]
KEYS = {  # scikit-learn's names
    "producers_accuracy": "recall", "users_accuracy": "precision", "f1": "f1", "iou": "jaccard"
}  # fmt: skip
SETTINGS = {
    "variable": None,
    "axes": None,
    "shape": None,
    "unlabelled": [0],
    "colours": False,
    "align": False,
    "reject": None,
}


def pixels(*counts: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(predicted, truth) with `n` pixels of each (truth, predicted, n), as images of one row."""
    truth = np.concatenate([np.full(n, t) for t, _, n in counts])
    predicted = np.concatenate([np.full(n, p) for _, p, n in counts])
    return predicted[None].astype("u1"), truth[None].astype("u1")


def per_class(found, key):
    return [row[key] for row in found["classes"]]


# --- worked by hand -------------------------------------------------------------------------------


def test_a_confusion_matrix_worked_by_hand():
    """Reference a: 8 as a, 2 as b. b: 1 as a, 5 as b. c: 1 as b, 3 as c. 20 pixels, 16 right.

    Rows 10, 6, 4; columns 9, 8, 3. Chance (10*9 + 6*8 + 4*3) / 400 = 0.375;
    kappa (0.8 - 0.375) / 0.625 = 0.68.
    """
    found = scores(*pixels((1, 1, 8), (1, 2, 2), (2, 1, 1), (2, 2, 5), (3, 2, 1), (3, 3, 3)), NAMES)
    assert found["confusion"] == [[8, 2, 0], [1, 5, 0], [0, 1, 3]]
    assert found["oa"] == pytest.approx(0.8)
    assert found["aa"] == pytest.approx((8 / 10 + 5 / 6 + 3 / 4) / 3)
    assert found["kappa"] == pytest.approx(0.68)
    assert found["pixels"] == 20
    assert [row["class"] for row in found["classes"]] == NAMES
    assert per_class(found, "producers_accuracy") == pytest.approx([8 / 10, 5 / 6, 3 / 4])
    assert per_class(found, "users_accuracy") == pytest.approx([8 / 9, 5 / 8, 1])
    assert per_class(found, "f1") == pytest.approx([16 / 19, 10 / 14, 6 / 7])
    assert per_class(found, "iou") == pytest.approx([8 / 11, 5 / 9, 3 / 4])
    assert per_class(found, "pixels") == [10, 6, 4]


def test_unlabelled_pixels_and_pixels_without_data_do_not_count():
    plain = pixels((1, 1, 5), (2, 1, 2), (3, 3, 1))
    more = pixels((1, 1, 5), (2, 1, 2), (3, 3, 1), (0, 1, 50), (0, 0, 9), (2, 0, 30))
    assert scores(*more, NAMES) == scores(*plain, NAMES)


def test_a_class_that_the_reference_does_not_have():
    """c is predicted but never true: its recall is not defined and not in the mean."""
    found = scores(*pixels((1, 1, 6), (1, 3, 2), (2, 2, 2)), NAMES)
    assert per_class(found, "producers_accuracy") == [0.75, 1, None]
    assert per_class(found, "users_accuracy") == [1, 1, 0]
    assert per_class(found, "f1") == pytest.approx([12 / 14, 1, 0])
    assert per_class(found, "iou") == pytest.approx([0.75, 1, 0])
    assert found["aa"] == pytest.approx(0.875)


def test_a_class_that_no_pixel_gets():
    found = scores(*pixels((1, 1, 6), (3, 1, 2)), NAMES)
    assert per_class(found, "producers_accuracy") == [1, None, 0]
    assert per_class(found, "users_accuracy") == [0.75, None, None]
    assert per_class(found, "f1")[1:] == [None, 0]
    assert per_class(found, "iou")[1:] == [None, 0]
    assert found["aa"] == 0.5
    assert found["kappa"] == pytest.approx(0)  # all in one class: no better than chance


def test_all_of_one_class_in_both():
    found = scores(*pixels((2, 2, 9)), NAMES)
    assert (found["oa"], found["aa"], found["kappa"]) == (1, 1, 1)


def test_all_of_one_class_but_another():
    found = scores(*pixels((2, 1, 9)), NAMES)
    assert (found["oa"], found["aa"], found["kappa"]) == (0, 0, 0)


def test_a_single_class():
    found = scores(*pixels((1, 1, 4), (0, 1, 3)), ["water"])
    assert found["oa"] == 1
    assert found["confusion"] == [[4]]


def test_nothing_to_compare_is_an_error():
    with pytest.raises(UserError, match="no labelled pixel"):
        scores(*pixels((0, 1, 5), (2, 0, 3)), NAMES)


def test_many_pixels_do_not_overflow():
    """255 classes in uint8, and counts whose squares pass 32 bits."""
    truth = np.tile(np.arange(1, 256, dtype="u1"), (1000, 1))
    found = scores(truth, truth, [str(i) for i in range(255)])
    assert found["oa"] == found["kappa"] == 1
    found = scores(*pixels((1, 1, 300_000), (2, 1, 100_000), (2, 2, 100_000)), ["a", "b"])
    # rows 300000, 200000; columns 400000, 100000: chance 0.56, agreement 0.8
    assert found["kappa"] == pytest.approx(0.24 / 0.44)


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_scikit_learns(seed):
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 6, (30, 40)).astype("u1")
    predicted = np.where(rng.random((30, 40)) < 0.6, truth, rng.integers(0, 6, (30, 40)))
    predicted = predicted.astype("u1")
    found = scores(predicted, truth, list("abcde"))
    both = (truth > 0) & (predicted > 0)
    t, p = truth[both], predicted[both]
    assert found["oa"] == pytest.approx(sklearn.accuracy_score(t, p))
    assert found["aa"] == pytest.approx(sklearn.balanced_accuracy_score(t, p))
    assert found["kappa"] == pytest.approx(sklearn.cohen_kappa_score(t, p))
    for key, name in KEYS.items():
        theirs = getattr(sklearn, f"{name}_score")
        wanted = theirs(t, p, average=None)
        np.testing.assert_allclose(per_class(found, key), wanted)


# --- how sure ---


def test_calibration_error_and_reject_curve_worked_by_hand():
    """Bin .9: claims 1.9, right 2; bin .5: 1.1 and 1; bin .1: .1 and 0: (.1 + .1 + .1) / 5."""
    claimed = np.array([0.55, 0.95, 0.1, 0.95, 0.55])
    right = np.array([False, True, False, True, True])
    found = trust(claimed, claimed, right)
    assert found["ece"] == pytest.approx(0.06)
    assert [row["pixels"] for row in found["reliability"]] == [1, 2, 2]
    assert [row["accuracy"] for row in found["reliability"]] == [0, 0.5, 1]
    assert [row["confidence"] for row in found["reliability"]] == pytest.approx([0.1, 0.55, 0.95])
    curve = {row["kept"]: row["accuracy"] for row in found["reject_curve"]}
    assert list(curve) == [1, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    assert curve[1] == pytest.approx(3 / 5)
    assert curve[0.8] == pytest.approx(3 / 4)
    assert curve[0.6] == pytest.approx(2.5 / 3)  # one of two pixels that are equally sure
    assert curve[0.4] == curve[0.1] == 1


def test_a_confidence_that_is_certain_falls_in_the_last_bin():
    found = trust(np.ones(4), np.ones(4), np.array([True, True, True, False]))
    assert found["ece"] == pytest.approx(0.25)
    assert found["reliability"] == [{"confidence": 1, "accuracy": 0.75, "pixels": 4}]
    assert {row["accuracy"] for row in found["reject_curve"]} == {0.75}


# --- the step -------------------------------------------------------------------------------------


def run(tmp_path, prediction, truth, **options):
    files = {k: tmp_path / "out" / k for k in ("metrics", "class_scores", "confusion_matrix")}
    map_id = {"scene": "s", "run": "hsi", "seed": 3, "stage": "final"}
    evaluate(
        prediction=prediction, ground_truth=[truth], map_id=map_id, **files, **SETTINGS | options
    )
    return [file.read_text() for file in files.values()]


def files_of(tmp_path, truth, predicted, names=NAMES, nodata=None):
    np.savez(tmp_path / "truth.npz", gt=truth)
    prediction = make_prediction(tmp_path / "p.zarr", one_hot(predicted, len(names)), names, nodata)
    return prediction, tmp_path / "truth.npz"


def test_the_options_are_those_of_the_rule():
    wanted = (
        "prediction ground_truth variable axes shape labels unlabelled colours align map_id reject metrics"
        " class_scores confusion_matrix"
    )
    assert set(inspect.signature(evaluate).parameters) == set(wanted.split())


def test_how_right_the_rest_is_where_unsure_pixels_are_unknown(tmp_path):
    truth = np.array([[1, 1, 2, 2, 3, 0]])
    predicted = np.array([[1, 2, 2, 2, 1, 3]])
    sure = np.array([[0.9, 0.2, 0.5, 0.4, 0.7, 1.0]], "f4")
    prediction, file = files_of(tmp_path, truth, predicted)
    labels = {"a": 1, "b": 2, "c": 3}
    without = json.loads(run(tmp_path, prediction, file, labels=labels, reject=0.5)[0])
    assert "kept" not in without  # a margin is no probability
    add_confidence(prediction, sure)
    found = json.loads(run(tmp_path, prediction, file, labels=labels, reject=0.5)[0])
    assert found["kept"] == {"reject": 0.5, "share": 0.6, "oa": pytest.approx(2 / 3)}
    assert found["oa"] == pytest.approx(0.6)  # of all pixels, as ever
    assert "kept" not in json.loads(run(tmp_path, prediction, file, labels=labels)[0])


def test_nothing_is_kept():
    one = np.ones((2, 2), "u1")
    found = kept(one, one, np.full((2, 2), 0.3, "f4"), 0.5)
    assert found == {"reject": 0.5, "share": 0.0, "oa": None}


def test_labels_are_matched_by_name_not_by_order(tmp_path):
    truth = np.array([[7, 7, 7, 20], [20, 3, 0, 99]])
    predicted = np.array([[1, 1, 2, 2], [2, 3, 1, 1]])
    metrics, classes, confusion = run(
        tmp_path,
        *files_of(tmp_path, truth, predicted),
        labels={"c": 3, "b": 20, "a": 7},
        unlabelled=[0, 99],
    )
    found = json.loads(metrics)
    assert found["confusion"] == [[2, 1, 0], [0, 2, 0], [0, 0, 1]]
    assert found["oa"] == pytest.approx(5 / 6)
    assert {k: found[k] for k in ("scene", "run", "seed", "stage")} == {
        "scene": "s", "run": "hsi", "seed": 3, "stage": "final"
    }  # fmt: skip
    rows = list(csv.DictReader(classes.splitlines()))
    assert [row["class"] for row in rows] == NAMES
    assert float(rows[0]["producers_accuracy"]) == pytest.approx(2 / 3)
    assert confusion == "reference,a,b,c\na,2,1,0\nb,0,2,0\nc,0,0,1\n"


def test_undefined_scores_are_null_and_empty_never_nan(tmp_path):
    truth, predicted = np.array([[1, 1]]), np.array([[1, 1]])
    metrics, classes, _ = run(tmp_path, *files_of(tmp_path, truth, predicted), labels={"a": 1})
    assert "NaN" not in metrics
    assert json.loads(metrics)["classes"][1]["producers_accuracy"] is None
    assert classes.splitlines()[2] == "b,,,,,0"


def test_the_confidence_of_a_map_comes_before_its_probabilities(tmp_path):
    truth = np.array([[1, 2, 2, 0]])
    labels, confidence = np.array([[1, 1, 2, 1]], "u1"), np.array([[0.9, 0.2, 0.9, 0.5]], "f4")
    with new_store(tmp_path / "sure.zarr", step="test", settings={}, inputs=[]) as group:
        write_names(group, NAMES)
        write_array(group, "labels", labels, ("y", "x"))
        write_array(group, "confidence", confidence, ("y", "x"))
    prediction, file = files_of(tmp_path, truth, labels)
    for path, ece in ((tmp_path / "sure.zarr", (0.2 + 0.2) / 3), (prediction, 1 / 3)):
        found = json.loads(run(tmp_path, path, file, labels={"a": 1, "b": 2})[0])
        assert found["ece"] == pytest.approx(ece)
        assert found["oa"] == pytest.approx(2 / 3)
        assert found["reject_curve"][0] == {"kept": 1, "accuracy": pytest.approx(2 / 3)}


def test_class_names_with_commas_stay_whole(tmp_path):
    names = ['trees, "tall"', "b"]
    truth = np.array([[1, 2]])
    _, classes, confusion = run(
        tmp_path, *files_of(tmp_path, truth, truth, names), labels={names[0]: 1, "b": 2}
    )
    assert next(csv.DictReader(classes.splitlines()))["class"] == names[0]
    assert next(csv.reader(confusion.splitlines())) == ["reference", *names]


@pytest.mark.parametrize(
    ("truth", "options", "words"),
    [
        (np.ones((3, 2)), {"labels": {"a": 1}}, ["3 x 2", "2 x 3"]),
        (np.ones((2, 3)), {"labels": {"x": 1}}, ["'x'", "classes: 'a', 'b', 'c'"]),
        (np.full((2, 3), 5), {"labels": {"a": 1}}, ["5"]),
        (np.ones((2, 3)), {"labels": {"a": 1, "b": 1}}, ["'a' and 'b' both have label 1"]),
        (np.zeros((2, 3)), {"labels": {"a": 1}}, ["no labelled pixel"]),
        (np.ones((2, 3)), {"labels": {"a": 1}, "variable": "map"}, ["map", "gt"]),
    ],
)
def test_ground_truth_that_does_not_fit(tmp_path, truth, options, words):
    files = files_of(tmp_path, truth, np.ones((2, 3), int))
    with pytest.raises(UserError) as caught:
        run(tmp_path, *files, **options)
    for word in ("truth.npz", *words):
        assert word in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_masked_pixels_of_the_scene_are_not_counted(tmp_path):
    nodata = np.array([[True, False, False]])
    files = files_of(tmp_path, np.array([[1, 2, 2]]), np.array([[1, 2, 1]]), nodata=nodata)
    found = json.loads(run(tmp_path, *files, labels={"a": 1, "b": 2})[0])
    assert found["pixels"] == 2
    assert found["oa"] == 0.5


# --- real maps ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scene", "truth", "options"),
    [
        ("samson_65_0", "data/scenes/samson/Samson.mat", {"variable": "S_GT"}),
        ("samson_80_1", "pseudo/samson_gt.npz", {"variable": "gt"}),
        ("muufl_50_2", "data/scenes/muufl/muufl_90x90.mat", {"variable": "label"}),
    ],
)
def test_real_maps_have_the_scores_that_came_with_them(tmp_path, shared, scene, truth, options):
    given = np.load(shared / "pseudo" / f"{scene}.npz")
    names = [str(n) for n in np.load(shared / "pseudo" / f"{scene.split('_')[0]}_gt.npz")["names"]]
    prediction = make_prediction(tmp_path / "p.zarr", given["probs"].transpose(2, 0, 1), names)
    labels = {name: i + 1 for i, name in enumerate(names)}
    metrics, _, _ = run(tmp_path, prediction, shared / truth, labels=labels, **options)
    found = json.loads(metrics)
    for key in ("oa", "aa", "kappa"):
        assert found[key] == pytest.approx(float(given[key]), abs=1e-6)
