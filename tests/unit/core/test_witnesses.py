"""Labels that each witness gives alone."""

import numpy as np
from stores import one_hot

from special_steps.core.prediction import write_prediction
from special_steps.core.store import UNKNOWN, open_store
from special_steps.core.witnesses import Witness, as_settings, opinions_of, witnesses_told

LABELS = np.array([[1, 2, 3, 0]], np.uint8)


def fused(path, told, witnesses):
    write_prediction(
        path, one_hot(np.array([[1, 1, 1, 1]]), 3), LABELS == 0, step="fuse", inputs=[],
        settings=as_settings(told), class_names=["a", "b", "c"], grid=UNKNOWN, witnesses=witnesses,
    )  # fmt: skip
    return open_store(path)


def test_a_witness_contradicts_no_class_that_it_cannot_name(tmp_path):
    """The library has no spectra of the third class."""
    library = np.array([[1, 1, 2, 0]], np.uint8)
    told = [Witness("CLIP", [True] * 3, True), Witness("library", [True, True, False], True)]
    store = fused(tmp_path / "p.zarr", told, np.stack([LABELS, library]))
    assert opinions_of(store).tolist() == [[[1, 2, 3, 0]], [[1, 1, 3, 0]]]
    assert opinions_of(store).dtype == np.uint8
    np.testing.assert_array_equal(store["witnesses"][1], library)
    assert witnesses_told(store) == told


def test_labels_of_unknown_makers_are_one_opinion(tmp_path):
    store = fused(tmp_path / "p.zarr", [], None)
    assert opinions_of(store).tolist() == [[[1, 1, 1, 0]]]
    assert witnesses_told(store) == []
