"""The check before a run: headers without wavelengths and ground truth that does not fit, of all scenes at once."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from defaults import CUBE, GROUND_TRUTH
from rasters import write_tiff
from scipy.io import savemat

from special_steps.check_scenes import check_scenes

NAMES = ["water", "tree", "soil"]
LABELS = np.array([[0, 1, 2], [4, 4, 1]], np.uint8)
LABEL_OF = {"soil": 1, "tree": 2, "water": 4}


def settings(folder: Path, name: str = "one") -> dict:
    folder.mkdir(exist_ok=True)
    savemat(folder / "scene.mat", {"cube": np.ones((2, 3, 5))})
    np.save(folder / "gt.npy", LABELS)
    cube = {
        "path": [str(folder / "scene.mat")],
        "scale": 2,
        "wavelengths": {"first": 400, "last": 900},
    }
    return {
        "scene": name,
        "cube": CUBE | cube,
        "ground_truth": GROUND_TRUTH | {"path": str(folder / "gt.npy"), "labels": LABEL_OF},
        "class_names": NAMES,
        "like": None,
    }


def check(folder: Path, *scenes: dict) -> list[str]:
    """The mistakes."""
    (folder / "scenes.json").write_text(json.dumps(scenes))
    try:
        check_scenes(scenes=folder / "scenes.json")
    except ExceptionGroup as group:
        return [str(error) for error in group.exceptions]
    return []


def test_what_fits_passes(tmp_path, caplog):
    with caplog.at_level("INFO", "special"):
        assert check(tmp_path, settings(tmp_path)) == []
    fits = "one: ground truth fits: unlabelled 16.7 %, water 33.3 %, tree 16.7 %, soil 33.3 %"
    assert fits in caplog.text
    assert check(tmp_path) == []


def test_the_options_of_the_scenes_array_count(tmp_path):
    right = settings(tmp_path)
    savemat(tmp_path / "scene.mat", {"flat": np.ones((5, 6)), "other": np.ones((2, 2, 2))})
    options = {"variable": "flat", "axes": "band (x y)", "shape": {"y": 2}}
    assert check(tmp_path, right | {"cube": right["cube"] | options}) == []
    (told,) = check(tmp_path, right | {"cube": right["cube"] | options | {"shape": {"y": 3}}})
    assert "has 2 x 3 pixels" in told and "3 x 2" in told


def test_mistakes_of_all_scenes_are_told(tmp_path):
    scenes = [settings(tmp_path / name, name) for name in ("a", "b", "c", "d", "e", "f")]
    savemat(tmp_path / "a/scene.mat", {"cube": np.ones((3, 3, 5))})
    (tmp_path / "b/gt.npy").unlink()
    scenes[2] |= {"cube": scenes[2]["cube"] | {"wavelengths": None}, "ground_truth": None}
    (tmp_path / "d/scene.mat").write_bytes(b"nothing")
    scenes[5] |= {"ground_truth": scenes[5]["ground_truth"] | {"labels": {"water": 4}}}
    told = check(tmp_path, *scenes)
    words = ["2 x 3 pixels", "gt.npy: no such file", "wavelengths", "cannot be read", "labels 1, 2"]
    for line, name, word in zip(told, ["a", "b", "c", "d", "f"], words, strict=True):
        assert line.startswith(f"scenes.{name}: ") and word in line


def test_bands_that_another_scenes_model_needs_are_compared(tmp_path):
    scenes = [settings(tmp_path / name, name) for name in ("a", "b")]
    scenes[1]["like"] = "a"
    assert check(tmp_path, *scenes) == []
    scenes[1]["cube"] = scenes[1]["cube"] | {"wavelengths": {"first": 400, "last": 700}}
    (told,) = check(tmp_path, *scenes)
    assert "scenes.b: no good bands around 775 nm" in told and "[[775, 900]]" in told
    (tmp_path / "a/scene.mat").unlink()
    assert check(tmp_path, *scenes) == []


def test_a_scene_that_is_not_there_yet_is_waited_for(tmp_path):
    later = settings(tmp_path)
    (tmp_path / "scene.mat").unlink()
    assert check(tmp_path, later) == []
    (tmp_path / "there.tif").touch()
    tiles = [str(tmp_path / "there.tif"), str(tmp_path / "b.tif")]
    assert check(tmp_path, later | {"cube": later["cube"] | {"path": tiles}}) == []


@pytest.mark.parametrize("align", [False, True])
def test_where_the_ground_truth_lies_is_compared(tmp_path, align):
    right = settings(tmp_path)
    write_tiff(tmp_path / "scene.tif", np.ones((5, 2, 3), "f4"))
    write_tiff(tmp_path / "gt.tif", LABELS[None], x=-30, tags=[])
    scene = right | {
        "cube": right["cube"] | {"path": str(tmp_path / "scene.tif")},
        "ground_truth": right["ground_truth"] | {"path": str(tmp_path / "gt.tif"), "align": align},
    }
    told = check(tmp_path, scene)
    assert not told if align else "30 m west of the scene (1 pixel in x)" in told[0]


def test_command_line(tmp_path):
    scenes = [settings(tmp_path / name, name) for name in ("a", "b", "c")]

    def call() -> subprocess.CompletedProcess:
        (tmp_path / "scenes.json").write_text(json.dumps(scenes))
        return subprocess.run(
            [sys.executable, "-m", "special_steps.check_scenes", "--scenes", tmp_path / "scenes.json"],
            capture_output=True, text=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip

    done = call()
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    np.save(tmp_path / "a/gt.npy", LABELS + 1)
    np.save(tmp_path / "b/gt.npy", np.where(LABELS == 4, 0, LABELS))
    np.save(tmp_path / "c/gt.npy", LABELS + 2)
    wrong = call()
    errors = [line for line in wrong.stderr.splitlines() if line.startswith("error: ")]
    assert wrong.returncode == 1 and "Trace" not in wrong.stderr
    assert "labels 3, 5" in errors[0] and "labels 3, 6" in errors[1] and len(errors) == 2
    assert "warning: " in wrong.stderr and "4 ('water') of ground_truth.labels" in wrong.stderr


def test_labels_that_people_give_are_checked_first(tmp_path):
    right = settings(tmp_path)
    (tmp_path / "mine.csv").write_text("x,y,class\n1.5,-0.5,tree\n")
    assert check(tmp_path, right | {"labels": str(tmp_path / "mine.csv")}) == []
    (tmp_path / "mine.csv").write_text("x,y,class\n1.5,-0.5,tre\n")
    (told,) = check(tmp_path, right | {"labels": str(tmp_path / "mine.csv")})
    assert "mine.csv" in told and "did you mean 'tree'" in told
