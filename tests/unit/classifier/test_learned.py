"""What co-training learned, as a file."""

import numpy as np
import pytest

from special_steps.classifier.gaussian import (
    LINEAR,
    QUADRATIC,
    class_moments,
    fit_ensemble,
    fit_views,
    nearest_distances,
    project,
)
from special_steps.classifier.learned import (
    Learned,
    predict,
    predict_image,
    read_learned,
    write_learned,
)
from special_steps.core.errors import UserError


@pytest.fixture
def trained():
    """Three classes, of which the second has no pixels."""
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 2], 900)
    spectra = (0.3 + 0.1 * labels[:, None] + rng.normal(0, 0.05, (900, 30))).astype("f4")
    views = fit_views(spectra)
    moments = class_moments(project(views, spectra), labels, 3)
    ensembles = tuple(fit_ensemble(moments, views, m) for m in (LINEAR, QUADRATIC))
    return Learned(views, ensembles), moments, spectra


def test_it_says_the_same_after_a_file(trained, tmp_path):
    learned, _, spectra = trained
    write_learned(tmp_path / "a.safetensors", learned, ["water", "Bäume", "roof"])
    again, names = read_learned(tmp_path / "a.safetensors")
    assert names == ["water", "Bäume", "roof"]
    np.testing.assert_array_equal(predict(again, spectra), predict(learned, spectra))
    assert (predict(again, spectra)[1] == 0).all()


def test_nothing_learned_is_a_file_too(trained, tmp_path):
    learned, *_ = trained
    write_learned(tmp_path / "a", Learned(learned.views, ()), ["a"])
    assert read_learned(tmp_path / "a")[0].ensembles == ()


def test_an_image_is_written_where_it_has_data(trained):
    learned, _, spectra = trained
    bands = spectra.T.reshape(30, 45, 20)
    valid = np.random.default_rng(1).random((45, 20)) < 0.7
    out = np.full((3, 45, 20), -1, "f4")
    predict_image(learned, bands, valid, out)
    np.testing.assert_allclose(
        out[:, valid], predict(learned, spectra)[:, valid.ravel()], atol=1e-6
    )
    assert (out[:, ~valid] == -1).all()


def test_other_files_are_refused(trained, tmp_path):
    learned, *_ = trained
    write_learned(tmp_path / "a", learned, ["a", "b", "c"])
    data = (tmp_path / "a").read_bytes()
    (tmp_path / "short").write_bytes(data[:-100])
    (tmp_path / "none").write_bytes(b"")
    for name in ("short", "none", "missing"):
        with pytest.raises(UserError, match=f"{name}: not what co-training writes"):
            read_learned(tmp_path / name)


def test_distances_are_those_to_the_nearest_class(trained):
    learned, moments, spectra = trained
    joint = project(learned.views, spectra)
    found = nearest_distances(moments, joint)
    assert found.shape == (900,)
    centres = moments.means[[0, 2]].astype("f4")
    np.testing.assert_allclose(nearest_distances(moments, centres), 0, atol=1e-6)
    far = project(learned.views, spectra + np.float32(0.5))
    assert nearest_distances(moments, far).min() > found.max()
