"""What a workflow run spends outside its steps' own work: Snakemake, Python's start, imports.

    snakemake --cores all && python tests/benchmarks/overhead.py [FOLDER]

reads what the last run in FOLDER (default: here) left behind; run it after a whole run, not after
one that found most results made. A step's own work is what its log says ("done in"); a job's time
is Snakemake's benchmark of it; the run's time is that of Snakemake's log, from its name (the start)
to its last line.
"""

import argparse
import re
from datetime import datetime
from pathlib import Path


def main() -> None:
    """Print the run's time, its jobs' time, the steps' own, and the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path())
    folder = parser.parse_args().folder
    record = max((folder / ".snakemake" / "log").glob("*.snakemake.log"))
    start = datetime.strptime(record.name.split(".")[0], "%Y-%m-%dT%H%M%S").timestamp()
    wall = record.stat().st_mtime - start
    rows = []
    for file in sorted((folder / "benchmarks").rglob("*.tsv")):
        if file.stat().st_mtime < start:
            continue
        log = folder / "logs" / file.relative_to(folder / "benchmarks").with_suffix(".log")
        own = sum(float(s) for s in re.findall(r"done in ([0-9.]+) s", log.read_text()))
        head, values = (line.split("\t") for line in file.read_text().splitlines()[:2])
        rows.append((file, float(dict(zip(head, values, strict=True))["s"]), own))
    jobs, own = (sum(row[i] for row in rows) for i in (1, 2))
    for file, took, mine in rows:
        print(f"  {took:7.1f} s, own {mine:7.1f} s  {file.relative_to(folder / 'benchmarks')}")
    print(f"{len(rows)} jobs: {jobs:.0f} s, of which their steps' own work {own:.0f} s")
    print(f"start and imports: {100 * (1 - own / jobs):.0f} % of the jobs' time")
    print(f"run: {wall:.0f} s; not the steps' own work: {100 * (1 - own / wall):.0f} %")
    print("(below zero where jobs ran side by side)")


if __name__ == "__main__":
    main()
