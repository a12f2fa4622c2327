"""The mean of co-training and networks."""

import numpy as np
import pytest
from stores import make_calibrated, make_prediction, one_hot

from special_steps.consensus import averaged, consensus
from special_steps.core.calibration import Known, confidence, known_of
from special_steps.core.errors import UserError
from special_steps.core.store import class_names, grid_of, open_store

CLASSES = ["water", "trees", "roof"]


def probabilities(seed, shape=(6, 5)):
    drawn = np.random.default_rng(seed).dirichlet(np.ones(3), shape)
    return drawn.transpose(2, 0, 1).astype(np.float32)


def test_half_is_co_trainings_and_half_the_networks():
    cotrained = np.array([0.8, 0.2], "f4").reshape(2, 1, 1)
    networks = [np.array(p, "f4").reshape(2, 1, 1) for p in ([0.2, 0.8], [0.6, 0.4])]
    found = averaged(networks, cotrained)
    np.testing.assert_allclose(found.ravel(), [0.6, 0.4], atol=1e-7)
    np.testing.assert_allclose(averaged(networks).ravel(), [0.4, 0.6], atol=1e-7)
    assert found.dtype == np.float32
    np.testing.assert_allclose(cotrained.ravel(), [0.8, 0.2])
    np.testing.assert_allclose(networks[0].ravel(), [0.2, 0.8])


def test_the_step(tmp_path):
    nodata = np.zeros((6, 5), bool)
    nodata[0, :2] = True
    maps = [probabilities(i) for i in range(3)]
    paths = [tmp_path / f"{i}.zarr" for i in range(3)]
    for path, each in zip(paths, maps, strict=True):
        make = make_calibrated if path == paths[0] else make_prediction
        make(path, each, CLASSES, nodata, transform=[1, 0, 0, 0, -1, 0])
    consensus(cotrain=paths[0], pseudo=None, networks=paths[1:], out=tmp_path / "out.zarr")
    image, out = ("y", "x"), tmp_path / "out.zarr"
    found = open_store(
        out, probabilities=("class", *image), labels=image, margin=image, confidence=image
    )
    wanted = (maps[0] + (maps[1] + maps[2]) / 2) / 2
    np.testing.assert_allclose(found["probabilities"][:][:, ~nodata], wanted[:, ~nodata], atol=1e-6)
    np.testing.assert_array_equal(found["labels"][:][~nodata], wanted.argmax(0)[~nodata] + 1)
    assert (found["labels"][:][nodata] == 0).all()
    assert (found["nodata"][:] == nodata).all()
    assert class_names(found) == CLASSES
    assert grid_of(found) == grid_of(open_store(paths[0]))
    sure, same = found["confidence"][:], wanted.argmax(0) == maps[0].argmax(0)
    assert (sure[nodata] == 0).all()
    np.testing.assert_allclose(sure[same & ~nodata], 0.9)
    assert (~same & ~nodata).any()
    assert (sure[~same & ~nodata] <= 0.1 + 1e-6).all()
    assert known_of(found) == Known(2, 0.5)


@pytest.mark.parametrize("witnesses", [1, 2])
def test_without_co_training_it_is_the_networks_mean(tmp_path, witnesses):
    """How sure it is follows from the pseudo-labels: of one witness, or of two."""
    maps = [probabilities(i, (40, 30)) for i in range(3)]
    mean = np.mean(maps, 0)
    right = (mean.argmax(0) + 1).astype("u1")
    said = np.where(np.arange(30) < 15, right, right % 3 + 1).astype("u1")
    two = np.stack([said, right])
    paths = [tmp_path / f"{i}.zarr" for i in range(3)]
    for path, each in zip(paths, maps, strict=True):
        make_prediction(path, each, CLASSES)
    pseudo = make_prediction(
        tmp_path / "p.zarr", one_hot(said, 3), CLASSES, witnesses=two if witnesses == 2 else None
    )
    consensus(cotrain=None, pseudo=pseudo, networks=paths, out=tmp_path / "out.zarr")
    found = open_store(tmp_path / "out.zarr")
    np.testing.assert_allclose(found["probabilities"][:], mean, atol=1e-6)
    known = known_of(found)
    assert known.witnesses == witnesses
    assert known.kappa == pytest.approx(0.25, abs=0.03)  # half agree, a third by chance
    asked = two if witnesses == 2 else two[:1]
    np.testing.assert_allclose(found["confidence"][:], confidence(mean, known, asked), atol=1e-5)


def test_a_tall_scene_is_read_in_strips(tmp_path, monkeypatch):
    from special_steps import consensus as module

    heights = []

    def watched(networks, cotrained):
        heights.append(cotrained.shape[1])
        return averaged(networks, cotrained)

    monkeypatch.setattr(module, "averaged", watched)
    maps = [probabilities(i, (600, 4)) for i in range(2)]
    cotrain = make_calibrated(tmp_path / "0.zarr", maps[0], CLASSES)
    network = make_prediction(tmp_path / "1.zarr", maps[1], CLASSES)
    consensus(cotrain=cotrain, pseudo=None, networks=[network], out=tmp_path / "out.zarr")
    assert heights == [256, 256, 88]
    found = open_store(tmp_path / "out.zarr")["probabilities"][:]
    np.testing.assert_allclose(found, (maps[0] + maps[1]) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("classes", "shape", "words"),
    [
        (["water", "roof", "trees"], (6, 5), "water, roof, trees"),
        (CLASSES[:2], (6, 5), "classes water, trees"),
        (CLASSES, (5, 6), "5 x 6 pixels"),
    ],
)
def test_maps_that_do_not_fit_are_refused(tmp_path, classes, shape, words):
    make_prediction(tmp_path / "a.zarr", probabilities(0), CLASSES)
    make_prediction(tmp_path / "b.zarr", probabilities(1, shape)[: len(classes)], classes)
    with pytest.raises(UserError, match=rf"b\.zarr: .*{words}"):
        consensus(
            cotrain=tmp_path / "a.zarr",
            pseudo=None,
            networks=[tmp_path / "a.zarr", tmp_path / "b.zarr"],
            out=tmp_path / "out.zarr",
        )
    assert not (tmp_path / "out.zarr").exists()
