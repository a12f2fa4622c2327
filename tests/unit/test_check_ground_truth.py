"""The check before a run: a ground truth that does not fit its scene's header is an error."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from defaults import CUBE, GROUND_TRUTH
from scipy.io import savemat

from special_steps.check_ground_truth import check_ground_truth
from special_steps.core.errors import UserError

NAMES = ["water", "tree", "soil"]
LABELS = np.array([[0, 1, 2], [4, 4, 1]], np.uint8)


def settings(folder: Path) -> dict:
    savemat(folder / "scene.mat", {"cube": np.ones((2, 3, 5))})
    np.save(folder / "gt.npy", LABELS)
    truth = {"path": str(folder / "gt.npy"), "labels": {"soil": 1, "tree": 2, "water": 4}}
    return {
        "cube": CUBE | {"path": str(folder / "scene.mat"), "scale": 2},
        "ground_truth": GROUND_TRUTH | truth,
        "class_names": NAMES,
    }


def test_what_fits_passes(tmp_path, caplog):
    with caplog.at_level("INFO", "special"):
        check_ground_truth(**settings(tmp_path))
    fits = "ground truth fits: unlabelled 16.7 %, water 33.3 %, tree 16.7 %, soil 33.3 %"
    assert fits in caplog.text


def test_the_options_of_the_scenes_array_count(tmp_path):
    right = settings(tmp_path)
    savemat(tmp_path / "scene.mat", {"flat": np.ones((5, 6)), "other": np.ones((2, 2, 2))})
    options = {"variable": "flat", "axes": "band (x y)", "shape": {"y": 2}}
    check_ground_truth(**right | {"cube": right["cube"] | options})
    with pytest.raises(UserError, match=r"2 x 3 pixels.*3 x 2"):
        check_ground_truth(**right | {"cube": right["cube"] | options | {"shape": {"y": 3}}})


def test_another_shape_and_a_missing_file_are_errors(tmp_path):
    wrong = settings(tmp_path)
    savemat(tmp_path / "scene.mat", {"cube": np.ones((3, 3, 5))})
    with pytest.raises(UserError, match=r"2 x 3 pixels.*3 x 3"):
        check_ground_truth(**wrong)
    (tmp_path / "gt.npy").unlink()
    with pytest.raises(UserError, match=r"gt\.npy: no such file"):
        check_ground_truth(**wrong)


def test_a_scene_that_is_not_there_yet_is_waited_for(tmp_path):
    later = settings(tmp_path)
    (tmp_path / "scene.mat").unlink()
    check_ground_truth(**later)
    tiles = [str(tmp_path / "scene.mat"), str(tmp_path / "b.tif")]
    check_ground_truth(**later | {"cube": later["cube"] | {"path": tiles}})


def test_command_line(tmp_path):
    options = settings(tmp_path)
    arguments = [item for k, v in options.items() for item in (f"--{k}", json.dumps(v))]

    def call() -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "special_steps.check_ground_truth", *arguments],
            capture_output=True, text=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip

    done = call()
    assert done.returncode == 0, done.stderr
    np.save(tmp_path / "gt.npy", LABELS + 1)
    wrong = call()
    assert wrong.returncode == 1 and "labels 3, 5" in wrong.stderr and "Trace" not in wrong.stderr
