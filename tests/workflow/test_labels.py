"""Labels that people give, through the whole workflow: where they reach, what they change, what runs again."""

import json
from copy import deepcopy
from html import escape

import numpy as np
import pytest
import scipy.io
from jobs import and_what_follows, jobs_of, outputs_of
from runs import SMALL

from special_steps.core.store import open_store

BANDS, SHAPE = 30, (40, 36)
CLASSES = ["water", "bare soil", "roof"]
STAGES = {
    "hsi": ["pseudo", "cotrain", "seed-0/network", "consensus"],
    "published": ["pseudo", "seed-0/warmup", "seed-0/final"],
    "lda": ["pseudo", "baseline"],
    "labels": ["pseudo"],
}
CLICKS = {(5, 5): 1, (20, 20): 2, (3, 33): 3, (8, 31): 3, (14, 34): 3, (22, 30): 3, (35, 33): 3}
DRY = ("--dry-run", "--printshellcmds")


def write(folder, clicks=CLICKS):
    """Three kinds of spectra side by side, their truth, and labels of some pixels; one more lies outside."""
    rng = np.random.default_rng(0)
    nm = np.linspace(0, 1, BANDS)
    kinds = np.array([0.05 - 0.03 * nm, 0.2 + 0.4 * nm, 0.3 + 0.25 * np.sin(6 * nm)])
    truth = np.repeat([1, 2, 3], 12)[None].repeat(SHAPE[0], 0).astype(np.uint8)
    cube = (kinds[truth - 1] + rng.normal(0, 0.01, (*SHAPE, BANDS))).clip(0.001)
    scipy.io.savemat(folder / "scene.mat", {"cube": cube})
    scipy.io.savemat(folder / "truth.mat", {"labels": truth})
    rows = [f"{x + 0.5},{-y - 0.5},{CLASSES[k - 1]}" for (y, x), k in clicks.items()]
    (folder / "mine.csv").write_text("\n".join(["x,y,class", *rows, "99,9,roof"]) + "\n")
    return truth


def config(**given) -> dict:
    found = deepcopy(SMALL)
    found["scenes"] = {
        "mine": {
            "cube": {"path": "scene.mat", "wavelengths": {"first": 420, "last": 1000}},
            "classes": CLASSES,
            "ground_truth": {"path": "truth.mat", "labels": {c: i for i, c in enumerate(CLASSES, 1)}},
        }
        | given
    }  # fmt: skip
    return found


@pytest.fixture(scope="module")
def labelled(run, tmp_path_factory):
    """A folder in which all methods have run with labels; and the truth."""
    folder = tmp_path_factory.mktemp("labelled")
    truth = write(folder)
    done = run(folder, config(labels="mine.csv"))
    assert done.returncode == 0
    assert "1 of 8 shapes lie outside of the scene" in done.stdout
    return folder, truth


def test_no_map_overrules_them_and_none_is_evaluated_with_them(labelled):
    folder, truth = labelled
    for name, stages in STAGES.items():
        for stage in stages:
            labels = open_store(folder / f"results/mine/{name}/{stage}.zarr")["labels"][:]
            for place, k in CLICKS.items():
                assert labels[place] == k, f"{name}/{stage}"
            metrics = json.loads((folder / f"results/mine/{name}/{stage}.metrics.json").read_text())
            assert metrics["learned_from"] == len(CLICKS)
            assert metrics["pixels"] == truth.size - len(CLICKS)


def test_what_they_changed_is_told(labelled):
    folder, _ = labelled
    told = json.loads((folder / "results/mine/hsi/witnesses.json").read_text())
    assert [(one["class"], one["given"]) for one in told["given"]] == [
        ("water", 1), ("bare soil", 1), ("roof", 5)
    ]  # fmt: skip
    after = open_store(folder / "results/mine/hsi/pseudo.zarr")["labels"][:]
    assert [one["after"] for one in told["given"]] == [(after == k).sum() for k in (1, 2, 3)]
    (note,) = told["notes"]
    assert f"- mine, hsi: {note}." in (folder / "results/summary.md").read_text()
    page = (folder / "results/mine/hsi/index.html").read_text()
    assert escape(note[1:]) in page
    assert "1 of 8 shapes lie outside of the scene" in page


def test_where_they_reach_and_what_runs_again(run, labelled):
    """An edited file: the labels, and all that follows; spectra, words and CLIP do not."""
    folder, _ = labelled
    assert jobs_of(run(folder, config(labels="mine.csv"), *DRY).stdout) == []
    every = jobs_of(run(folder, config(labels="mine.csv"), "--forceall", *DRY).stdout)
    first = [job for job in every if "mine.csv" in job.inputs]
    assert [job.rule for job in first] == ["labels"]
    reached = {job.rule for job in and_what_follows(first, every)}
    steps = {"fuse", "cotrain", "network", "consensus", "warmup", "refine", "baseline", "evaluate"}
    assert steps < reached
    assert not reached & {"ingest", "rgb", "text", "clip_scale", "evidence", "features"}
    before = (folder / "mine.csv").read_text()
    (folder / "mine.csv").write_text(before.replace("99,9,roof\n", ""))
    again = jobs_of(run(folder, config(labels="mine.csv"), *DRY).stdout)
    assert outputs_of(again) == outputs_of(and_what_follows(first, every))
    (folder / "mine.csv").write_text(before)


def test_the_quick_map_learns_from_them(run, labelled):
    folder, _ = labelled
    dry = run(folder, config(labels="mine.csv"), "--forceall", *DRY, "--", "quick").stdout
    assert {"labels", "fuse", "cotrain", "export"} <= {job.rule for job in jobs_of(dry)}


def test_without_them_no_job_knows_of_them(run, labelled):
    folder, _ = labelled
    for job in jobs_of(run(folder, config(), "--forceall", *DRY).stdout):
        assert job.rule != "labels"
        assert "labels.zarr" not in job.text
