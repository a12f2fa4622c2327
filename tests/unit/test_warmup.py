"""Warm-up, from noisy pseudo-labels to a map and a state."""

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open
from small_training import make_noisy_scene, run_warmup
from stores import make_prediction

from special_steps.core.store import class_names, open_store


@pytest.fixture
def scene(tmp_path):
    return tmp_path, *make_noisy_scene(tmp_path)


def test_it_learns_from_noisy_labels(scene):
    folder, truth, nodata = scene
    run_warmup(folder)
    store = open_store(folder / "warmup.zarr")
    labels = store["labels"][:]
    assert (labels[nodata] == 0).all()
    assert (labels == truth)[~nodata].mean() > 0.95
    assert class_names(store) == ["one", "two"]
    rows = pd.read_csv(folder / "warmup.csv")
    assert rows["epoch"].tolist() == [1, 2]
    assert rows["agreement"].isna().tolist() == [True, False]
    assert not list(folder.glob(".*")), "checkpoints and temporary files are gone"


def test_the_state_is_safetensors_with_the_optimizer(scene):
    folder, _, _ = scene
    run_warmup(folder)
    with safe_open(folder / "warmup.safetensors", "pt") as file:
        names = set(file.keys())
    assert {"labels"} < names
    assert any(n.startswith("adam.exp_avg.") for n in names)
    assert any(n.startswith("model.") for n in names)


def test_a_class_without_pixels_is_reported(scene, caplog):
    folder, truth, nodata = scene
    three = np.stack([truth == 1, truth == 2, np.zeros_like(truth)]).astype("f4")
    make_prediction(folder / "pseudo.zarr", three, ["one", "two", "snow"], nodata)
    run_warmup(folder, warmup_epochs=1, iterations=1)
    assert "no pixel is pseudo-labelled 'snow'" in caplog.text
