"""Scenes that share a model: lines mapped by what others learned, one classifier for two, one mosaic."""

import json
import re
import shutil
from copy import deepcopy
from html import unescape

import numpy as np
import pandas as pd
import pytest
import rasterio
import yaml
from jobs import and_what_follows, jobs_of
from lines import LABELS, line
from runs import CAMPAIGN, SMALL

from special_steps.core.store import open_store

BUNDLE = [
    "map.tif", "map.tif.aux.xml", "map.qml", "map.png", "confidence.tif", "probabilities.tif",
    "polygons.gpkg", "polygons.qml", "areas.csv", "stac-item.json", "index.html",
]  # fmt: skip
NAMES = ["line1", "line2", "line3"]


def test_each_scene_is_mapped_in_its_runs(campaign):
    for scene in NAMES:
        for name in BUNDLE:
            assert (campaign / f"results/{scene}/hsi" / name).stat().st_size > 0
    assert not (campaign / "results/line3/evidence.zarr").exists()
    assert not (campaign / "results/line1/hsi/cotrain.zarr").exists(), "learned together"
    assert (campaign / "results/together/hsi/seed-0/epochs.png").exists()
    stages = pd.read_csv(campaign / "results/summary.csv").groupby("scene")["stage"].apply(list)
    assert stages["line1"] == stages["line2"] == ["pseudo", "applied"]
    assert stages["line3"] == ["applied"]


def test_lines_are_mapped_about_as_well_as_those_that_were_learned_from(campaign):
    """Two iterations teach networks nothing; co-training is half of the map."""
    scores = {}
    for name in NAMES:
        text = (campaign / f"results/{name}/hsi/applied.metrics.json").read_text()
        scores[name] = json.loads(text)["oa"]
    assert min(scores.values()) > 0.85
    assert scores["line3"] > min(scores["line1"], scores["line2"]) - 0.05


def test_no_class_has_two_colours(campaign):
    legends = []
    for scene in NAMES:
        with rasterio.open(campaign / f"results/{scene}/hsi/map.tif") as raster:
            tags = {k: v for k, v in raster.tags().items() if k.startswith("CLASS_")}
            legends.append((raster.colormap(1), tags))
    assert all(legend == legends[0] for legend in legends)
    assert list(legends[0][1].values()) == list(LABELS)


def test_the_mosaic_has_the_values_of_the_maps(campaign):
    with rasterio.open(campaign / "results/mosaic/together/hsi.vrt") as raster:
        whole, place = raster.read(1), raster.transform
    seen = np.zeros(whole.shape, bool)
    for name in reversed(NAMES):  # the later wins
        with rasterio.open(campaign / f"results/{name}/hsi/map.tif") as raster:
            labels, at = raster.read(1), ~place @ raster.transform
        part = slice(round(at.f), round(at.f) + len(labels))
        new = (labels > 0) & ~seen[part]
        assert new.any()
        np.testing.assert_array_equal(whole[part][new], labels[new])
        seen[part] |= new
    assert (whole[~seen] == 0).all()
    text = (campaign / "results/summary.md").read_text()
    assert "[hsi.vrt](mosaic/together/hsi.vrt)" in text


def test_an_item_tells_where_the_model_comes_from(campaign):
    item = json.loads((campaign / "results/line3/hsi/stac-item.json").read_text())
    steps = [one["step"] for one in item["properties"]["special:provenance"]]
    assert {"ingest", "fuse", "together", "cotrain", "network", "consensus"} <= set(steps)
    assert steps[-1] == "apply"


def test_a_page_maps_the_line_again(run, campaign, tmp_path):
    """The config that it shows has all that the map needs."""
    text = (campaign / "results/line3/hsi/index.html").read_text()
    shown = re.search(r'<pre id="config"[^>]*>(.*?)</pre>', text, re.DOTALL)[1]
    again = yaml.safe_load(unescape(shown))
    assert list(again["scenes"]) == ["line1", "line2", "line3"]
    assert again["train_together"] == ["line1", "line2"]
    work = tmp_path / "work"
    shutil.copytree(campaign, work)
    assert not jobs_of(run(work, again, "--dry-run", "--", "results/line3/hsi/map.tif").stdout)


def test_quick_maps_them_by_co_training_alone(run, campaign, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(campaign, work)
    assert run(work, CAMPAIGN, "--", "quick").returncode == 0
    for name in NAMES:
        folder = work / f"results/{name}/hsi"
        with rasterio.open(folder / "quick/map.tif") as raster:
            labels = open_store(folder / "applied-cotrain.zarr")["labels"][:]
            np.testing.assert_array_equal(raster.read(1), labels)
        assert json.loads((folder / "applied-cotrain.metrics.json").read_text())["oa"] > 0.85


def test_ground_truth_reaches_the_evaluation_only(run, campaign):
    jobs = jobs_of(run(campaign, CAMPAIGN, "--forceall", "--dry-run", "--printshellcmds").stdout)
    assert {"apply", "together", "mosaic"} <= {job.rule for job in jobs}
    for name in ("line1", "line3"):
        reached = and_what_follows([job for job in jobs if f"{name}.tif" in job.inputs], jobs)
        assert {job.rule for job in reached} == {"evaluate", "summary", "page"}


def test_each_line_takes_the_model_of_its_run(run, tmp_path):
    """Of both methods, without train_together; told by the jobs."""
    config = deepcopy(CAMPAIGN)
    del config["train_together"]
    config["runs"] = {
        "hsi": {},
        "published": {"method": "published", "evidence": "library"},
        "lda": {"method": "lda"},
    }
    config["scenes"]["line4"] = line("line4", apply={"from": "line2/published"})
    for name in (*NAMES, "line4"):
        for kind in ("hdr", "img", "tif"):
            (tmp_path / f"{name}.{kind}").touch()
    jobs = jobs_of(run(tmp_path, config, "--dry-run", "--printshellcmds").stdout)
    inputs = {str(min(job.outputs)): job.inputs for job in jobs if job.rule == "apply"}
    assert inputs == {
        "results/line3/hsi/applied.json": {
            "results/line3/cube.zarr",
            "results/line1/features-hsi.zarr",
            "results/line1/hsi/consensus.zarr",
            "results/line1/hsi/cotrain.safetensors",
            "results/line1/hsi/seed-0/network.safetensors",
        },
        "results/line4/published/applied.json": {
            "results/line4/cube.zarr",
            "results/line2/features-hsi.zarr",
            "results/line2/published/consensus.zarr",
            "results/line2/published/seed-0/final.safetensors",
        },
    }
    made = {file for job in jobs for file in job.outputs}
    assert "results/line1/lda/map.tif" in made and "results/line3/lda/map.tif" not in made
    mosaics = {str(min(job.outputs)): job.inputs for job in jobs if job.rule == "mosaic"}
    assert mosaics == {
        "results/mosaic/line1/hsi.vrt": {f"results/{n}/hsi/map.tif" for n in ("line1", "line3")},
        "results/mosaic/line2/published.vrt": {
            f"results/{n}/published/map.tif" for n in ("line2", "line4")
        },
    }


def test_a_line_without_the_models_bands_is_refused_before_anything_runs(run, campaign, tmp_path):
    config = deepcopy(CAMPAIGN)
    config["data"] = str(campaign)
    config["scenes"]["line3"]["cube"]["bad_ranges"] = [[600, 700]]
    refused = run(tmp_path, config)
    assert refused.returncode != 0
    assert "scenes.line3: no good bands around 6" in refused.stdout
    assert "[[6" in refused.stdout and not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("source", "words"),
    [("demo/deep", "names no run; write demo/"), ("there/hsi", "no other scene of this config")],
)
def test_a_model_that_nobody_makes_is_refused(run, tmp_path, source, words):
    config = deepcopy(SMALL)
    config["scenes"]["line2"] = {"cube": {"path": "a.hdr"}, "apply": {"from": source}}
    refused = run(tmp_path, config, "--dry-run")
    assert refused.returncode != 0 and words in refused.stdout
