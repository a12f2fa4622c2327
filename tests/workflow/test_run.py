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
from jobs import and_what_follows, jobs_of, outputs_of
from runs import ROOT, SMALL, TRAINING, command, kill_group
from stac_schemas import core_errors, extension_errors

from special_steps.core.store import open_store

LABELS = SMALL["scenes"]["demo"]["ground_truth"]["labels"]
RUN, PUBLISHED = "results/demo/hsi", "results/demo/published/seed-0"


BUNDLE = [
    "map.tif", "map.tif.aux.xml", "map.qml", "map.png", "confidence.tif", "probabilities.tif",
    "polygons.gpkg", "polygons.qml", "areas.csv", "spectra.csv", "spectra.png", "stac-item.json",
    "index.html",
]  # fmt: skip


def changed(**settings) -> dict:
    return deepcopy(SMALL) | settings


def test_every_result_is_there(finished):
    for folder in (RUN, "results/demo/published", "results/demo/lda", "results/demo/labels"):
        for name in BUNDLE:
            assert (finished / folder / name).stat().st_size > 0
        with rasterio.open(finished / folder / "map.tif") as raster:
            assert raster.crs is not None
            assert raster.nodata == 0
            labels = raster.read(1)
        assert set(np.unique(labels)) <= set(range(7))
        assert (labels == 0).any(), "the demo scene's corner without data must be class 0"
    for folder in (f"{RUN}/seed-0", PUBLISHED):
        assert (finished / folder / "epochs.png").stat().st_size > 0
    epochs = pd.concat(pd.read_csv(finished / PUBLISHED / f"{n}.csv") for n in ("warmup", "refine"))
    assert epochs["epoch"].tolist() == [1, 2, 3, 4]
    assert {"loss_random", "agreement", "confident_pixels", "hard_pixels"} <= set(epochs)
    epochs = pd.read_csv(finished / RUN / "seed-0/network.csv")
    assert epochs["epoch"].tolist() == [1, 2]
    assert {"loss_agreed", "loss_soft", "agreed_pixels", "agreement"} <= set(epochs)


RESULTS = [f"{RUN}/cotrain", f"{RUN}/seed-0/network", f"{RUN}/consensus", f"{PUBLISHED}/final"]


@pytest.mark.parametrize("result", RESULTS)
def test_masked_pixels_have_no_class_and_no_confidence(finished, result):
    final = open_store(finished / f"{result}.zarr")
    nodata = final["nodata"][:]
    assert nodata.any()
    assert (final["labels"][:][nodata] == 0).all()
    assert (final["margin"][:][nodata] == 0).all()
    assert (final["labels"][:][~nodata] > 0).all()


@pytest.mark.parametrize("result", RESULTS)
def test_metrics_belong_to_the_map(finished, result):
    found = json.loads((finished / f"{result}.metrics.json").read_text())
    with rasterio.open(finished / "resources/demo/ground_truth.tif") as raster:
        truth = raster.read(1)
    labels = open_store(finished / f"{result}.zarr")["labels"][:]
    both = (truth > 0) & (labels > 0)
    assert found["oa"] == pytest.approx((truth == labels)[both].mean())


def test_the_table_has_the_stages_of_each_method_in_order(finished):
    table = pd.read_csv(finished / "results/summary.csv").groupby("run")["stage"].apply(list)
    assert table.to_dict() == {
        "hsi": ["pseudo", "cotrain", "network", "consensus"],
        "published": ["pseudo", "warmup", "final", "consensus"],
        "lda": ["pseudo", "baseline"],
        "labels": ["pseudo"],
    }


def test_the_exported_map_is_the_methods_last(finished):
    published = "results/demo/published"
    shown = {RUN: "consensus", published: "consensus", "results/demo/lda": "baseline"}
    for folder, stage in shown.items():
        with rasterio.open(finished / folder / "map.tif") as raster:
            labels = open_store(finished / folder / f"{stage}.zarr")["labels"][:]
            np.testing.assert_array_equal(raster.read(1), labels)


def test_what_co_training_knows_is_in_the_summary(finished):
    known = json.loads((finished / RUN / "cotrain.json").read_text())
    text = (finished / "results/summary.md").read_text()
    assert f"demo, hsi: pseudo-labels and co-training agree on {known['agreement']:.1%}" in text
    for warning in known["warnings"]:
        assert " ".join(warning.split()) in text


def test_what_words_and_spectra_know_is_there(finished):
    """Once for the scene, and for each run that asks both; the published method and labels alone ask CLIP only."""
    text = (finished / "results/summary.md").read_text()
    evidence = json.loads((finished / "results/demo/evidence.json").read_text())
    assert evidence["used"]
    assert [one["class"] for one in evidence["classes"]] == list(LABELS)
    for one in evidence["classes"]:
        assert sum(one["nearest"].values()) == pytest.approx(1)
        assert 0 < one["angle"] < 15
    rows = pd.read_csv(finished / "results/demo/evidence.csv")
    assert list(dict.fromkeys(rows["class"])) == list(LABELS)
    assert (finished / "results/demo/evidence.png").stat().st_size > 0
    for name in SMALL["runs"]:
        told = json.loads((finished / f"results/demo/{name}/witnesses.json").read_text())
        line = f"demo, {name}: CLIP and the spectral library agree on"
        if name in ("hsi", "lda"):
            assert f"{line} {told['agreement']:.1%} of the pixels" in text
        else:
            assert told["agreement"] is None
            assert line not in text


def test_the_library_alone_needs_no_clip(run, finished, tmp_path):
    config = changed(runs={"spectra": {"clip": "none"}})
    dry = jobs_of(run(tmp_path, config, "--dry-run", "--printshellcmds").stdout)
    assert not {"text", "clip_scale"} & {job.rule for job in dry}
    assert {"evidence", "fuse", "cotrain"} <= {job.rule for job in dry}


def test_quick_trains_nothing(run, finished, tmp_path):
    """Told by its jobs, from the beginning; then run on what is there."""
    dry = run(tmp_path / "new", SMALL, "--dry-run", "--printshellcmds", "--", "quick").stdout
    rules = {job.rule for job in jobs_of(dry)}
    assert {"evidence", "signatures", "cotrain", "export", "evaluate"} <= rules
    assert not rules & {"network", "warmup", "refine", "consensus", "baseline", "summary"}
    work = tmp_path / "work"
    shutil.copytree(finished, work)
    assert run(work, SMALL, "--", "quick").returncode == 0
    with rasterio.open(work / RUN / "quick/map.tif") as raster:
        labels = open_store(work / RUN / "cotrain.zarr")["labels"][:]
        np.testing.assert_array_equal(raster.read(1), labels)
    for name in BUNDLE:
        assert (work / RUN / "quick" / name).stat().st_size > 0
    assert not (work / "results/demo/published/quick").exists()
    without = changed(runs={"lda": {"method": "lda"}})
    del without["network"]
    refused = run(work, without, "--dry-run", "--", "quick")
    assert refused.returncode != 0
    assert "no run has method 'agreement'" in refused.stdout


def test_several_seeds_disagree_and_one_says_that_it_cannot(run, finished):
    one = jobs_of(run(finished, SMALL, "--forceall", "--dry-run", "--printshellcmds").stdout)
    assert "disagreement" not in {job.rule for job in one}
    log = (finished / "logs/demo/hsi/export.log").read_text()
    assert "warning: no map of disagreement: one network only" in log
    config = changed(seeds=[0, 1])
    jobs = jobs_of(run(finished, config, "--forceall", "--dry-run", "--printshellcmds").stdout)
    (job,) = (job for job in jobs if f"{RUN}/disagreement.tif" in job.outputs)
    networks = {f"{RUN}/seed-{seed}/network.zarr" for seed in (0, 1)}
    assert set(job.inputs) == {f"{RUN}/consensus.zarr", *networks}
    (item,) = (job for job in jobs if f"{RUN}/stac-item.json" in job.outputs)
    assert f"{RUN}/disagreement.tif" in item.inputs


def test_maps_of_single_seeds_are_written_when_asked(run, finished, tmp_path):
    """Each with all that is made of a map, but no disagreement; methods without training have none."""
    work = tmp_path / "work"
    shutil.copytree(finished, work)
    assert not list(work.glob("results/demo/*/seed-*/map.tif"))
    config = changed(export={"seeds": True})
    assert run(work, config, "--until", "export", "assess").returncode == 0
    for folder, stage in {f"{RUN}/seed-0": "network", PUBLISHED: "final"}.items():
        with rasterio.open(work / folder / "map.tif") as raster:
            labels = open_store(work / folder / f"{stage}.zarr")["labels"][:]
            np.testing.assert_array_equal(raster.read(1), labels)
    assert not list(work.glob("results/demo/l*/seed-*"))
    made = {
        file
        for job in jobs_of(run(work, config, "--dry-run", "--printshellcmds", "--forceall").stdout)
        for file in job.outputs
        if file.startswith(f"{RUN}/seed-0/")
    }
    assert {f"{RUN}/seed-0/{name}" for name in (*BUNDLE, "index.html")} <= made
    assert f"{RUN}/seed-0/disagreement.tif" not in made


def test_the_files_for_a_gis_agree(finished):
    """The item's classes, the table of areas, the polygons and the map say the same."""
    folder = finished / RUN
    item = json.loads((folder / "stac-item.json").read_text())
    assert extension_errors(item) == []
    classes = item["assets"]["map"]["classification:classes"]
    assert [one["title"] for one in classes] == ["no data", *LABELS]
    areas = pd.read_csv(folder / "areas.csv")
    assert areas["class"].tolist() == list(LABELS)
    with rasterio.open(folder / "map.tif") as raster:
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        counts = np.bincount(raster.read(1).ravel(), minlength=7)[1:]
        pixel = abs(raster.transform.determinant)
    np.testing.assert_array_equal(areas["pixels"], counts)
    np.testing.assert_allclose(areas["area_m2"], counts * pixel)
    assert [one["percentage"] for one in classes[1:]] == pytest.approx(
        list(100 * counts / counts.sum()), abs=1e-3
    )
    steps = [one["step"] for one in item["properties"]["special:provenance"]]
    assert steps[0] == "ingest" and steps[-1] == "consensus"
    assert {"clip_scale", "evidence", "fuse", "features", "cotrain", "network"} <= set(steps)
    assert item["properties"]["special:prompts"]["classes"] == {name: [] for name in LABELS}
    assert re.fullmatch("[0-9a-f]{64}", item["properties"]["special:prompts"]["clip"]["sha256"])
    assert str(finished) not in json.dumps(item)
    spectra = pd.read_csv(folder / "spectra.csv")
    assert dict(zip(spectra["class"], spectra["pixels"], strict=True)) == dict(
        zip(LABELS, counts.tolist(), strict=True)
    )
    text = (finished / "results/summary.md").read_text()
    for name in ("polygons.gpkg", "spectra.csv", "spectra.png"):
        assert f"[{name}](demo/hsi/{name})" in text


def test_the_demo_s_item_is_valid(finished):
    pytest.importorskip(
        "pystac", reason="pystac is not installed: pip install --no-deps -r envs/oracle.txt"
    )
    item = json.loads((finished / RUN / "stac-item.json").read_text())
    assert core_errors(item) == []


def test_every_rule_has_a_benchmark_and_a_log(finished):
    assert len(list(finished.glob("benchmarks/**/*.tsv"))) == len(
        list(finished.glob("logs/**/*.log"))
    )
    assert len(list(finished.glob("benchmarks/**/*.tsv"))) >= 14


def test_ground_truth_reaches_the_evaluation_only(run, finished):
    """Read from Snakemake's own account of every job: inputs, outputs, command."""
    jobs = jobs_of(run(finished, SMALL, "--forceall", "--dry-run", "--printshellcmds").stdout)
    steps = {"evidence", "fuse", "signatures", "cotrain", "network", "consensus", "baseline"}
    assert steps | {"warmup", "refine"} <= {job.rule for job in jobs}
    truth = "resources/demo/ground_truth.tif"
    assert truth in outputs_of(job for job in jobs if job.rule == "demo")
    reached = and_what_follows([job for job in jobs if truth in job.inputs], jobs)
    assert {job.rule for job in reached} == {"evaluate", "summary", "page"}
    for job in jobs:
        if job.rule not in (
            "demo",
            "evaluate",
            "page",
        ):  # a page quotes the config, and takes metrics
            assert "ground_truth" not in job.text, f"{job.rule} knows of the ground truth"


LONGER = changed(network={"epochs": 8, "iterations": 2})
LONGER["runs"]["published"]["training"] = TRAINING | {"epochs": 8}


@pytest.mark.parametrize(
    ("run_name", "step", "result"),
    [("hsi", "network", "network"), ("published", "refine", "final")],
    ids=["network", "refine"],
)
def test_kill_during_a_training_and_rerun_gives_the_same_map(
    run, finished, tmp_path, run_name, step, result
):
    work, folder = tmp_path / "work", f"results/demo/{run_name}/seed-0"
    shutil.copytree(finished, work)
    shutil.rmtree(work / folder)
    config = LONGER | {"runs": {run_name: LONGER["runs"][run_name]}}
    if run_name != "hsi":
        del config["network"]
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
    checkpoint, until = work / folder / f".{step}.safetensors", time.monotonic() + 300
    while not checkpoint.exists():
        assert process.poll() is None and time.monotonic() < until, "no checkpoint came"
        time.sleep(0.02)
    kill_group(process)
    assert not (work / folder / f"{result}.zarr").exists(), "killed too late to test anything"

    assert run(work, config, "--unlock").returncode == 0
    assert run(work, config).returncode == 0
    log = work / f"logs/demo/{run_name}/seed-0/{step}.log"
    assert "resuming after epoch" in log.read_text()
    assert run(unbroken, config).returncode == 0
    a, b = (open_store(f / folder / f"{result}.zarr") for f in (work, unbroken))
    np.testing.assert_array_equal(a["probabilities"][:], b["probabilities"][:])
    np.testing.assert_array_equal(a["labels"][:], b["labels"][:])
    assert not checkpoint.exists()


def test_own_pseudo_labels_take_the_place_of_clip(run, finished, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(finished, work)
    own = open_store(finished / "results/demo/hsi/pseudo.zarr")["probabilities"][:]
    np.savez(work / "own.npz", probs=own.transpose(1, 2, 0))
    config = changed(runs={"mine": {"pseudo_labels": "own.npz"}})
    dry = jobs_of(run(work, config, "--dry-run", "--printshellcmds").stdout)
    assert not {"text", "clip_scale"} & {job.rule for job in dry}
    assert run(work, config).returncode == 0
    assert (work / "results/demo/mine/map.png").exists()


def test_jobs_that_use_the_gpu_do_not_overlap_in_time(finished, tmp_path):
    """Trainings of both methods, with cores to spare: the second begins when the first has ended."""
    work = tmp_path / "work"
    shutil.copytree(finished, work)
    shutil.rmtree(work / RUN / "seed-0")
    shutil.rmtree(work / PUBLISHED)
    (work / "my.yaml").write_text(yaml.safe_dump(changed(seeds=[0, 1])))
    process = subprocess.Popen(
        command("--set-threads", *(f"{step}=1" for step in TRAININGS)),
        cwd=work,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    most = 0
    while process.poll() is None:
        most = max(most, len(trainings(work)))
        time.sleep(0.05)
    assert process.returncode == 0
    assert most == 1


TRAININGS = ("network", "warmup", "refine")


def trainings(folder: Path) -> set[str]:
    """Command lines of the training steps that run in a folder, from the processes of this machine."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode().split("\0")
            here = (process / "cwd").resolve() == folder.resolve()
        except OSError:  # it has ended
            continue
        steps = [f"special_steps.{name}" for name in TRAININGS]
        if here and words[1:2] == ["-m"] and words[2] in steps:
            found.add(" ".join(words))
    return found


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
    shutil.rmtree(work / PUBLISHED)
    (work / RUN / "map.png").unlink()
    done = subprocess.run(options, cwd=work, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (work / PUBLISHED / "epochs.png").exists()
    assert (work / RUN / "map.png").exists()
