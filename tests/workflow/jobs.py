"""What Snakemake says of its jobs, read from the output of a dry run."""

import re
from collections.abc import Iterable
from typing import NamedTuple


class Job(NamedTuple):
    """A job as `snakemake --dry-run --printshellcmds` describes it."""

    rule: str
    inputs: frozenset[str]
    outputs: frozenset[str]
    text: str  # all that is said of it
    command: str


def jobs_of(output: str) -> list[Job]:
    """The jobs of a dry run, without rule all."""
    found = []
    for block in re.split(r"\n(?=\[)", output):
        head = re.search(r"^(?:local)?rule (\w+):", block, re.MULTILINE)
        if not head or head[1] == "all":
            continue
        files = {}
        for kind in ("input", "output"):
            listed = re.search(rf"^\s+{kind}: (.*)$", block, re.MULTILINE)
            files[kind] = frozenset(listed[1].split(", ")) if listed else frozenset()
        command = re.search(r"^Shell command: (.*)$", block, re.MULTILINE)
        found.append(
            Job(head[1], files["input"], files["output"], block, command[1] if command else "")
        )
    return found


def and_what_follows(first: Iterable[Job], jobs: Iterable[Job]) -> set[Job]:
    """Jobs, and all jobs that take their results, directly or by way of others."""
    found, jobs = set(first), list(jobs)
    while True:
        made = {file for job in found for file in job.outputs}
        more = {job for job in jobs if job not in found and job.inputs & made}
        if not more:
            return found
        found |= more


def outputs_of(jobs: Iterable[Job]) -> set[str]:
    """All files that the jobs make."""
    return {file for job in jobs for file in job.outputs}
