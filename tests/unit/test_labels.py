"""The step that brings people's labels to the scene's grid."""

import numpy as np
import pytest
from stores import make_cube

from special_steps.core.errors import UserError
from special_steps.core.store import class_names, open_store, read_array
from special_steps.labels import labels

NAMES = ["water", "roof"]


def test_the_store(tmp_path):
    nodata = np.zeros((4, 5), bool)
    nodata[3, 4] = True
    cube = make_cube(tmp_path / "cube.zarr", np.ones((2, 4, 5)), [500, 600], nodata=nodata)
    (tmp_path / "mine.csv").write_text("x,y,class\n0.5,-0.5,roof\n2.5,-1.5,water\n4.5,-3.5,roof\n")
    out = tmp_path / "labels.zarr"
    labels(cube=cube, file=tmp_path / "mine.csv", class_names=NAMES, out=out)
    store = open_store(out, labels=("y", "x"))
    wanted = np.zeros((4, 5), np.uint8)
    wanted[0, 0], wanted[1, 2] = 2, 1
    np.testing.assert_array_equal(read_array(store, "labels"), wanted)
    assert class_names(store) == NAMES
    (told,) = store.attrs["warnings"]
    assert "1 of 3 shapes lie where it has no data" in told


def test_a_mistake_leaves_nothing(tmp_path):
    cube = make_cube(tmp_path / "cube.zarr", np.ones((2, 4, 5)), [500, 600])
    (tmp_path / "mine.csv").write_text("x,y,class\n0.5,-0.5,rof\n")
    with pytest.raises(UserError, match="did you mean 'roof'"):
        labels(cube=cube, file=tmp_path / "mine.csv", class_names=NAMES, out=tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()
