"""On a real SLURM of one node, started for these tests: partitions, GPUs, and a kill of Snakemake in mid-run.

Both seeds' refinements are suspended in mid-run; Snakemake is killed, so that these SLURM jobs are orphans, and started
again. Then one orphan goes on while its successor writes the same files; the other is cancelled when all is done.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rasterio
import yaml
from runs import ROOT, SMALL, SNAKEFILE, kill_group

from special_steps.core.store import open_store

SCRIPTS = Path(__file__).parent / "slurm"
PROFILE = ROOT / "workflow" / "profiles" / "slurm"
MAPS = [f"results/demo/published/seed-{seed}/map.tif" for seed in (0, 1)]
GPU_RULES = {"clip_scale", "network", "warmup", "refine"}
TRAINING = {"epochs": 5, "warmup_epochs": 1, "iterations": 1}
CONFIG = SMALL | {
    "seeds": [0, 1],
    "export": {"seeds": True},
    "runs": SMALL["runs"] | {"published": {"method": "published", "training": TRAINING}},
}
FOLDERS = [Path(file).parent for file in MAPS]


@pytest.fixture(scope="module")
def slurm() -> Iterator[None]:
    """A SLURM that runs. It is stopped, and nothing of it is left, whatever happens."""
    system = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    programs = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scontrol")
    if missing := [name for name in programs if not shutil.which(name, path=system)]:
        pytest.skip(
            f"not installed: {', '.join(missing)} (apt: slurmctld slurmd slurm-client munge)"
        )
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # a socket's path must be short
    output = folder / "start.txt"  # not a pipe, which the daemons would hold open
    with pytest.MonkeyPatch.context() as environment, output.open("w") as stream:
        environment.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        environment.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
        try:
            start = ["timeout", "-k", "5", "90", "bash", SCRIPTS / "start.sh", folder]
            done = subprocess.run(start, stdout=stream, stderr=subprocess.STDOUT)
            assert done.returncode == 0, output.read_text()
            yield
        finally:
            stop = ["timeout", "-k", "5", "90", "bash", SCRIPTS / "stop.sh", folder]
            subprocess.run(stop, stdout=stream, stderr=subprocess.STDOUT)
            shutil.rmtree(folder, ignore_errors=True)


def scontrol(*words: str) -> str:
    call = ["timeout", "-k", "5", "30", "scontrol", *words]
    return subprocess.run(call, capture_output=True, text=True, check=True).stdout


def jobs() -> list[dict[str, str]]:
    """All jobs since SLURM began, as scontrol tells of them; "rule" and "wildcards" from Snakemake's comment."""
    found = []
    lines = scontrol("show", "job", "--oneliner").splitlines()
    for line in (line for line in lines if line.startswith("JobId=")):  # or: No jobs in the system
        job = dict(word.split("=", 1) for word in line.split() if "=" in word)
        rule, _, wildcards = job["Comment"].removeprefix("rule_").partition("_wildcards_")
        found.append(job | {"rule": rule, "wildcards": wildcards})
    return found


def wait(process: subprocess.Popen, what: str, happened: Callable[[], object]) -> None:
    until = time.monotonic() + 900
    while not happened():
        assert process.poll() is None, f"Snakemake ended before {what}"
        assert time.monotonic() < until, f"no {what}"
        time.sleep(0.1)


def snakemake(*options: str) -> list[str]:
    """A run with the profile as it is, but for fewer cores and less waiting."""
    return [
        *("timeout", "-k", "10", "1500", sys.executable, "-m", "snakemake", "-s", str(SNAKEFILE)),
        *("--profile", str(PROFILE), "--configfile", "my.yaml"),
        *("--set-threads", *(f"{rule}=2" for rule in sorted(GPU_RULES))),
        *("--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "5"),
        *options,
        *("--", *MAPS),
    ]


@pytest.fixture(scope="module")
def survived(slurm, finished, tmp_path_factory) -> tuple[Path, list[dict[str, str]], str]:
    """The story told above: folder, jobs, and what Snakemake still finds to do."""
    work = tmp_path_factory.mktemp("slurm") / "work"
    shutil.copytree(finished, work)
    shutil.rmtree(work / FOLDERS[0])
    (work / "my.yaml").write_text(yaml.safe_dump(CONFIG))

    def begin() -> subprocess.Popen:
        return subprocess.Popen(
            snakemake(), cwd=work, start_new_session=True, stdout=log, stderr=subprocess.STDOUT
        )

    def refinements() -> dict[str, str]:
        """Running refinements: job by wildcards."""
        running = [j for j in jobs() if j["rule"] == "refine" and j["JobState"] == "RUNNING"]
        return {j["wildcards"]: j["JobId"] for j in running}

    def halted() -> bool:
        """Suspend every refinement that has a checkpoint; whether all have been."""
        for name, job in refinements().items():
            if (work / f"results/demo/published/seed-{name[-1]}/.refine.safetensors").exists():
                scontrol("suspend", job)
                orphans[name] = job
        return len(orphans) == 2

    orphans: dict[str, str] = {}
    with (work / "snakemake.txt").open("w") as log:
        process = begin()
        try:
            wait(process, "checkpoint of each seed", halted)
            kill_group(process)

            subprocess.run(snakemake("--unlock"), cwd=work, stdout=log, stderr=log, check=True)
            process = begin()
            wait(process, "second refinement of each seed", lambda: len(refinements()) == 2)
            scontrol("resume", orphans["demo_published_0"])
            assert process.wait() == 0, (work / "snakemake.txt").read_text()[-6000:]
            scontrol("resume", orphans["demo_published_1"])
            subprocess.run(["scancel", orphans["demo_published_1"]], check=True, timeout=30)
            wait_for_end()
        finally:
            if process.poll() is None:
                kill_group(process)
    dry = subprocess.run(snakemake("--dry-run"), cwd=work, capture_output=True, text=True)
    assert dry.returncode == 0, dry.stderr
    return work, jobs(), dry.stdout + dry.stderr


def wait_for_end() -> None:
    """Until no job is left, suspended ones neither."""
    until = time.monotonic() + 900
    while any(j["JobState"] not in ("COMPLETED", "FAILED", "CANCELLED") for j in jobs()):
        assert time.monotonic() < until, "a job does not end"
        time.sleep(0.2)


def test_the_profile_sends_networks_to_the_gpu_partition(tmp_path):
    """Told by a dry run of every rule, which needs no SLURM."""
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "my.yaml").write_text(yaml.safe_dump(CONFIG))
    every = [*snakemake("--dry-run"), "results/demo/hsi/map.tif"]
    dry = subprocess.run(every, cwd=folder, capture_output=True, text=True)
    assert dry.returncode == 0, dry.stderr[-3000:]
    told = re.findall(
        r"^rule (\w+):$.*?^    resources: (.*?)$", dry.stdout + dry.stderr, re.S | re.M
    )
    assert {rule for rule, _ in told} > GPU_RULES
    for rule, resources in told:
        network = rule in GPU_RULES
        assert ("slurm_partition=gpu" in resources) == network
        assert ("slurm_partition=cpu" in resources) != network
        assert ("gpu=1" in resources.split(", ")) == network


def test_results_are_whole_although_orphans_wrote_and_were_cancelled(survived):
    work, found, _ = survived
    refined = sorted((j for j in found if j["rule"] == "refine"), key=lambda j: int(j["JobId"]))
    orphans, again = refined[:2], refined[2:]
    assert {j["wildcards"] for j in orphans} == {j["wildcards"] for j in again}
    assert [j["JobState"] for j in orphans].count("CANCELLED") == 1
    # The other ends well, or finds that its successor has taken its outputs away: nothing else may go wrong.
    (other,) = (j for j in orphans if j["JobState"] != "CANCELLED")
    if other["JobState"] != "COMPLETED":
        logs = work / ".snakemake" / "slurm_logs" / "rule_refine" / other["wildcards"]
        assert "some output files are missing" in (logs / f"{other['JobId']}.log").read_text()
    assert {j["JobState"] for j in found if j not in orphans} == {"COMPLETED"}
    for folder in FOLDERS:
        final = open_store(work / folder / "final.zarr", labels=("y", "x"), nodata=("y", "x"))
        labels, nodata = final["labels"][:], final["nodata"][:]
        assert ((labels > 0) == ~nodata).all()
        with rasterio.open(work / folder / "map.tif") as raster:
            assert (raster.read(1) == labels).all()
        # a killed writer's part may lie hidden beside the result; the next writer sweeps it away
        visible = {p.name for p in (work / folder).iterdir() if not p.name.startswith(".")}
        assert {"final.safetensors", "refine.csv", "confidence.tif", "map.png"} < visible


def test_the_restart_refined_again_while_an_orphan_did(survived):
    _, found, _ = survived
    first, second = [
        j for j in found if j["rule"] == "refine" and j["wildcards"] == "demo_published_0"
    ]
    assert first["StartTime"] < second["StartTime"] < first["EndTime"]


def test_after_the_orphans_no_training_runs_again(survived):
    _, _, dry = survived
    for rule in GPU_RULES:
        assert f"rule {rule}:" not in dry


def test_networks_get_one_gpu_in_the_gpu_partition_and_others_none(survived):
    _, found, _ = survived
    assert {"warmup", "refine", "export"} == {j["rule"] for j in found}
    for job in found:
        if job["rule"] in GPU_RULES:
            assert (job["Partition"], job["TresPerJob"]) == ("gpu", "gres:gpu:1")
        else:
            assert job["Partition"] == "cpu"
            assert "TresPerJob" not in job


def test_the_limit_of_one_gpu_is_not_for_slurm(survived):
    _, found, _ = survived
    a, b = [j for j in found if j["rule"] == "warmup"]
    assert max(a["StartTime"], b["StartTime"]) < min(a["EndTime"], b["EndTime"])
