"""A scene larger than memory through the whole workflow: time and peak memory of every step.

    python tests/benchmarks/large_scene.py [Y X BANDS] [--format prisma --gigabytes 6]

The cube (4,000 x 2,000 x 200 as it stands: 6.4 GB of float32) is synthetic: patches of a few
spectra with noise, written as ENVI, or in one of the formats of large_files.py. Training is cut
to one or two epochs of one iteration.
"""

import argparse
import csv
import subprocess
import tempfile
from pathlib import Path

import large_files
import numpy as np
import yaml

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ["water", "trees", "grass", "bare soil"]


def write_scene(path: Path, height: int, width: int, bands: int) -> None:
    """An ENVI file, band interleaved by line, a few lines at a time."""
    rng = np.random.default_rng(0)
    spectra = rng.random((len(CLASSES), bands), np.float32).cumsum(1) / bands
    patches = rng.integers(len(CLASSES), size=(height // 40 + 1, width // 40 + 1))
    with path.open("wb") as stream:
        for y in range(height):
            kinds = patches[y // 40].repeat(40)[:width]
            line = spectra[kinds] + 0.02 * rng.standard_normal((width, bands), np.float32)
            stream.write(line.T.astype("<f4").tobytes())
    nm = ", ".join(f"{v:.1f}" for v in np.linspace(420, 2450, bands))
    path.with_suffix(".hdr").write_text(
        f"ENVI\nsamples = {width}\nlines = {height}\nbands = {bands}\nheader offset = 0\n"
        "data type = 4\ninterleave = bil\nbyte order = 0\nwavelength units = nm\n"
        f"wavelength = {{{nm}}}\n"
    )


def main() -> None:
    """Print seconds and peak memory (GB) of every job."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size", type=int, nargs="*", default=[4000, 2000, 200], help="y x bands")
    parser.add_argument("--scales", type=float, nargs="+", default=[1], help="of CLIP")
    parser.add_argument(
        "--format", choices=large_files.WRITERS, help="of the file, in place of ENVI"
    )
    parser.add_argument("--gigabytes", type=float, default=6, help="of a file of such a format")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "scene.img"
        if options.format:
            path = large_files.WRITERS[options.format](folder, options.gigabytes, None)
        else:
            write_scene(path, *options.size)
        config = {
            "scenes": {"large": {"cube": {"path": str(path)}, "classes": CLASSES}},
            "seeds": [0],
            "scales": [int(s) if s == int(s) else s for s in options.scales],
            "network": {"epochs": 1, "iterations": 1},
            "training": {"epochs": 2, "warmup_epochs": 1, "iterations": 1},
            "runs": {"agreement": {}, "published": {"method": "published"}},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        words = ["snakemake", "-s", ROOT / "workflow" / "Snakefile", "--cores", "all"]
        words += ["--configfile", "config.yaml", "--quiet"]
        subprocess.run(words, cwd=folder, check=True)
        print(f"{path.name}: {path.stat().st_size / 1e9:.1f} GB")
        for path in sorted(folder.glob("benchmarks/**/*.tsv"), key=lambda p: p.stat().st_mtime):
            with path.open(newline="") as stream:
                row = next(csv.DictReader(stream, delimiter="\t"))
            job = path.relative_to(folder / "benchmarks").with_suffix("")
            peak = float(row["max_rss"]) / 1024
            print(f"  {job!s:40s} {float(row['s']):7.1f} s   peak {peak:5.2f} GB")


if __name__ == "__main__":
    main()
