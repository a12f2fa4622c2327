"""The whole workflow, run for real: results, what runs again, kills, honesty."""

import json
import re
import shutil
import subprocess
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import yaml
from conftest import ROOT, SMALL, command, kill_group

from special_steps.core.store import open_store

SEED = "results/demo/hsi/seed-0"


def jobs(output: str) -> dict[str, int]:
    """Job counts by rule from Snakemake's table, without rule all."""
    table = re.search(r"^job\s+count\n[-\s]+\n(.*?)^total", output, re.S | re.M)
    if table is None:
        return {}
    rows = (line.split() for line in table[1].splitlines() if line.strip())
    return {name: int(count) for name, count in rows if name != "all"}


def planned(run, folder: Path, config: dict) -> dict[str, int]:
    done = run(folder, config, "--dry-run")
    (folder / "my.yaml").write_text(yaml.safe_dump(SMALL))  # what the folder's results are of
    assert done.returncode == 0
    return jobs(done.stdout)


def changed(**settings) -> dict:
    return deepcopy(SMALL) | settings


def test_every_result_is_there(finished):
    for name in ("map.tif", "map.tif.aux.xml", "confidence.tif", "map.png", "epochs.png"):
        assert (finished / SEED / name).stat().st_size > 0
    with rasterio.open(finished / SEED / "map.tif") as raster:
        assert raster.crs is not None
        assert raster.nodata == 0
        labels = raster.read(1)
    assert set(np.unique(labels)) <= set(range(7))
    assert (labels == 0).any(), "the demo scene's corner without data must be class 0"
    epochs = pd.concat(pd.read_csv(finished / SEED / f"{n}.csv") for n in ("warmup", "refine"))
    assert epochs["epoch"].tolist() == [1, 2, 3, 4]
    assert {"loss_random", "agreement", "confident_pixels", "hard_pixels"} <= set(epochs)


def test_masked_pixels_have_no_class_and_no_confidence(finished):
    final = open_store(finished / SEED / "final.zarr")
    nodata = final["nodata"][:]
    assert nodata.any()
    assert (final["labels"][:][nodata] == 0).all()
    assert (final["margin"][:][nodata] == 0).all()
    assert (final["labels"][:][~nodata] > 0).all()


def test_metrics_belong_to_the_map(finished):
    found = json.loads((finished / SEED / "final.metrics.json").read_text())
    with rasterio.open(finished / "resources/demo/ground_truth.tif") as raster:
        truth = raster.read(1)
    labels = open_store(finished / SEED / "final.zarr")["labels"][:]
    both = (truth > 0) & (labels > 0)
    assert found["oa"] == pytest.approx((truth == labels)[both].mean())
    table = pd.read_csv(finished / "results/summary.csv")
    assert table["stage"].tolist() == ["pseudo", "warmup", "final"]


def test_every_rule_has_a_benchmark_and_a_log(finished):
    assert len(list(finished.glob("benchmarks/**/*.tsv"))) == len(
        list(finished.glob("logs/**/*.log"))
    )
    assert len(list(finished.glob("benchmarks/**/*.tsv"))) >= 14


def test_nothing_runs_again_when_nothing_changed(run, finished):
    assert planned(run, finished, SMALL) == {}


TRAIN = {"warmup": 1, "refine": 1, "export": 1, "curves": 1}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            changed(refine={"hard_weight": 0.2}),
            {"refine": 1, "export": 1, "curves": 1, "evaluate": 1, "summary": 1},
        ),
        (
            changed(training=SMALL["training"] | {"noise": 0.2}),
            TRAIN | {"evaluate": 2, "summary": 1},
        ),
        (
            changed(scales=[1, 2]),
            {"clip_scale": 1, "fuse": 1, **TRAIN, "evaluate": 3, "summary": 1},
        ),
        (changed(seeds=[0, 1]), TRAIN | {"evaluate": 2, "summary": 1}),
    ],
    ids=["refinement", "training", "scale", "seed"],
)
def test_a_changed_setting_runs_its_stage_and_what_follows(run, finished, config, expected):
    assert planned(run, finished, config) == expected


def test_a_changed_class_name_leaves_the_cube_and_the_image(run, finished):
    config = deepcopy(SMALL)
    config["scenes"]["demo"]["classes"][1] = {"trees": ["forest"]}
    again = planned(run, finished, config)
    assert again["text"] == again["clip_scale"] == again["fuse"] == again["refine"] == 1
    assert not {"demo", "ingest", "rgb", "features"} & set(again)


@pytest.fixture
def own_copy(finished, tmp_path):
    """A copy of project and results, so that a test may edit a step's code."""
    project, work = tmp_path / "project", tmp_path / "work"
    keep_out = shutil.ignore_patterns(".venv", ".git", "results", ".snakemake", "resources")
    shutil.copytree(ROOT, project, ignore=keep_out)
    shutil.copytree(finished, work, symlinks=True)
    return project, work


def test_a_changed_line_of_code_runs_its_step_and_what_follows(own_copy):
    project, work = own_copy

    def again() -> dict[str, int]:
        dry = command("--dry-run")
        dry[dry.index("-s") + 1] = str(project / "workflow" / "Snakefile")
        done = subprocess.run(dry, cwd=work, capture_output=True, text=True, check=True)
        return jobs(done.stdout + done.stderr)

    assert again() == {}
    step = project / "special_steps" / "export.py"
    step.write_text(step.read_text() + "\nMORE = 1\n")
    assert again() == {"export": 1}
    step = project / "special_steps" / "fuse.py"
    step.write_text(step.read_text() + "\nMORE = 1\n")
    assert set(again()) == {
        "fuse", "warmup", "refine", "evaluate", "summary", "export", "curves"
    }  # fmt: skip


def test_ground_truth_reaches_the_evaluation_only(run, finished):
    """Read from Snakemake's own account of every job: inputs, outputs, command."""
    done = run(finished, SMALL, "--forceall", "--dry-run", "--printshellcmds")
    blocks = re.split(r"\n(?=\[|rule |localrule )", done.stdout)
    found = {}
    for block in blocks:
        if head := re.search(r"^(?:local)?rule (\w+):", block, re.M):
            inputs = re.search(r"^\s+input: (.*)$", block, re.M)
            outputs = re.search(r"^\s+output: (.*)$", block, re.M)
            found.setdefault(head[1], []).append(
                (
                    set(inputs[1].split(", ")) if inputs else set(),
                    set(outputs[1].split(", ")) if outputs else set(),
                    block,
                )
            )
    assert len(found) >= 14
    truth = {"resources/demo/ground_truth.tif"}
    assert truth <= found["demo"][0][1], "the demo makes it"
    tainted, reached = set(truth), set()
    for _ in found:  # as often as there are rules: enough for every chain
        for rule, account in found.items():
            for inputs, outputs, _block in account:
                if inputs & tainted:
                    reached.add(rule)
                    tainted |= outputs
    assert reached == {"evaluate", "summary", "all"}
    for rule, account in found.items():
        for _, _, block in account:
            if rule not in ("demo", "evaluate"):
                assert "ground_truth" not in block, f"{rule} is told of the ground truth"


def test_kill_during_refinement_and_rerun_gives_the_same_map(run, finished, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(finished, work)
    shutil.rmtree(work / SEED)
    config = changed(training={"epochs": 8, "warmup_epochs": 2, "iterations": 2})
    (work / "my.yaml").write_text(yaml.safe_dump(config))
    unbroken = tmp_path / "unbroken"
    shutil.copytree(work, unbroken)

    process = subprocess.Popen(
        command(),
        cwd=work,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    checkpoint, until = work / SEED / ".refine.safetensors", time.monotonic() + 300
    while not checkpoint.exists():
        assert process.poll() is None and time.monotonic() < until, "no checkpoint came"
        time.sleep(0.02)
    kill_group(process)
    assert not (work / SEED / "final.zarr").exists(), "killed too late to test anything"

    assert run(work, config, "--unlock").returncode == 0
    assert run(work, config).returncode == 0
    assert "resuming after epoch" in (work / "logs/demo/hsi/seed-0/refine.log").read_text()
    assert run(unbroken, config).returncode == 0
    a, b = (open_store(f / SEED / "final.zarr") for f in (work, unbroken))
    np.testing.assert_array_equal(a["probabilities"][:], b["probabilities"][:])
    np.testing.assert_array_equal(a["labels"][:], b["labels"][:])
    assert not checkpoint.exists()


def test_own_pseudo_labels_take_the_place_of_clip(run, finished, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(finished, work)
    own = open_store(finished / "results/demo/hsi/pseudo.zarr")["probabilities"][:]
    np.savez(work / "own.npz", probs=own.transpose(1, 2, 0))
    config = changed(runs={"mine": {"pseudo_labels": "own.npz"}})
    again = planned(run, work, config)
    assert not {"text", "clip_scale"} & set(again)
    assert run(work, config).returncode == 0
    assert (work / "results/demo/mine/seed-0/map.png").exists()


def test_one_gpu_job_at_a_time(run, tmp_path):
    """The profile gives one GPU, so two trainings never overlap even with cores to spare."""
    done = run(tmp_path, changed(seeds=[0, 1]), "--dry-run", "--verbose")
    profile = yaml.safe_load((ROOT / "workflow/profiles/default/config.yaml").read_text())
    assert profile["resources"] == ["gpu=1"]
    assert "gpu=1" in done.stdout


def test_the_workflow_is_a_module(finished, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(finished, work)
    (work / "Snakefile").write_text(
        f"configfile: 'my.yaml'\n"
        f"module special:\n"
        f"    snakefile: '{ROOT / 'workflow' / 'Snakefile'}'\n"
        f"    config: config\n"
        f"use rule * from special as special_*\n"
        f"rule everything:\n"
        f"    default_target: True\n"
        f"    input: rules.special_all.input\n"
    )
    options = command()
    options[options.index("-s") + 1] = "Snakefile"
    shutil.rmtree(work / SEED)
    done = subprocess.run(options, cwd=work, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (work / SEED / "map.png").exists()
