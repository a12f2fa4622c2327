"""Parts of tests/gpu/check.sh: a part is a process of its own, so that one that fails or hangs takes no other along.

    python tests/gpu/check.py PART --out FOLDER

appends rows to FOLDER/figures.md.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-3
PAVIA_CENTRE = (1096, 715, 102)  # y, x, bands
CLASSES = 9


class Figures:
    """Rows for the table, printed and written at once."""

    def __init__(self, folder: Path) -> None:
        """Append to the table in a folder."""
        self.file = folder / "figures.md"

    def add(self, what: str, value: object) -> None:
        """One row."""
        line = f"| {what} | {value} |"
        print(line, flush=True)
        with self.file.open("a") as stream:
            stream.write(line + "\n")

    def compare(
        self, what: str, found: torch.Tensor, wanted: torch.Tensor, tolerance: float
    ) -> None:
        """The largest difference relative to the largest value, and whether it is small enough."""
        found, wanted = found.detach().double().cpu(), wanted.detach().double().cpu()
        error = ((found - wanted).abs().max() / wanted.abs().max()).item()
        good = error <= tolerance  # a NaN is not
        self.add(what, f"{error:.1e} {'within' if good else 'FAILED: above'} {tolerance:.0e}")


def card(figures: Figures, out: Path) -> None:
    """What machine this is."""
    about = torch.cuda.get_device_properties(0)
    figures.add("card", f"{about.name}, {about.total_memory / 2**30:.0f} GiB")
    figures.add(
        "torch, CUDA, Python",
        f"{torch.__version__}, {torch.version.cuda}, {sys.version.split()[0]}",
    )


# --- parity ------------------------------------------------------------------------------------


def parity(figures: Figures, out: Path) -> None:
    """The scan of plain torch, Mamba, MambaHSI and dense CLIP: CUDA against the CPU."""
    scan_parity(figures)
    network_parity(figures, "plain torch on CUDA")
    dense_parity(figures)


def parity_fused(figures: Figures, out: Path) -> None:
    """Mamba and MambaHSI by mamba-ssm against the CPU."""
    from special_steps.classifier.mamba import mamba_ssm_inner

    if mamba_ssm_inner() is None:
        raise SystemExit("mamba-ssm cannot be used, see the warning above")
    network_parity(figures, "mamba-ssm")


def scan_parity(figures: Figures) -> None:
    """Output and gradients of the scan of plain torch on CUDA, against the CPU's in float64."""
    from special_steps.kernels.scan import parallel_scan

    generator = torch.Generator().manual_seed(0)
    shapes = {
        "u": (2, 5000, 32), "delta": (2, 5000, 32), "A": (32, 16), "B": (2, 5000, 16),
        "C": (2, 5000, 16), "D": (32,), "z": (2, 5000, 32), "bias": (32,),
    }  # fmt: skip
    values = {
        n: torch.randn(s, generator=generator, dtype=torch.float64) for n, s in shapes.items()
    }
    values["A"] = -values["A"].abs() - 0.1
    found = {}
    for name, dtype in (("cpu", torch.float64), ("cuda", torch.float32)):
        inputs = [v.to(name, dtype).requires_grad_() for v in values.values()]
        output = parallel_scan(*inputs)[0]
        found[name] = [output, *torch.autograd.grad(output.square().mean(), inputs)]
    for name, a, b in zip(("output", *shapes), found["cuda"], found["cpu"], strict=True):
        figures.compare(f"scan, plain torch, {name}", a, b, TOLERANCE)


def network_parity(figures: Figures, way: str) -> None:
    """Mamba (both layouts of tokens) and MambaHSI: outputs, gradients."""
    from special_steps.classifier.mamba import Mamba
    from special_steps.classifier.mambahsi import MambaHSI

    def check(what: str, model: torch.nn.Module, inputs: torch.Tensor) -> None:
        found = {}
        for where in ("cpu", "cuda"):
            model = model.to(where)
            own = inputs.detach().clone().to(where).requires_grad_()
            output = model(own)
            output.square().mean().backward()
            gradients = torch.cat([p.grad.flatten() for p in model.parameters()])
            found[where] = [output, own.grad, gradients]
            model.zero_grad()
        for part, a, b in zip(
            ("output", "input's gradient", "weights' gradients"),
            found["cuda"],
            found["cpu"],
            strict=True,
        ):
            figures.compare(
                f"{what}, {way}, {part}", a.detach().clone(), b.detach().clone(), TOLERANCE
            )

    torch.manual_seed(0)
    check("Mamba, one long sequence", Mamba(16), torch.randn(1, 20_000, 16))
    check("Mamba, many short sequences", Mamba(4), torch.randn(5000, 4, 4))
    check("MambaHSI", MambaHSI(50, CLASSES), torch.rand(1, 50, 101, 90))


def dense_parity(figures: Figures) -> None:
    """Cosines of dense CLIP: ViT-B/16 with random weights and the bundled model; fp32, bf16, fp16."""
    import open_clip

    from special_steps.clip.encoder import make_encoder
    from special_steps.clip.model import load_clip
    from special_steps.clip.upsample import make_upsampler
    from special_steps.clip.windows import window_cosines
    from special_steps.core.settings import default_of

    torch.manual_seed(0)
    bundled = load_clip("bundled", None)
    vit = open_clip.create_model("ViT-B-16-quickgelu").eval().requires_grad_(False)
    models = {
        "bundled": bundled,
        "ViT-B/16": bundled._replace(model=vit, name="ViT-B-16-quickgelu"),
    }
    for name, clip in models.items():
        found = {}
        for where, precision in (
            ("cpu", "fp32"),
            ("cuda", "fp32"),
            ("cuda", "bf16"),
            ("cuda", "fp16"),
        ):
            device = torch.device(where)
            moved = clip._replace(model=clip.model.to(device), device=device)
            encoder = make_encoder(moved, default_of("clips.NAME.attention"), precision)
            generator = torch.Generator().manual_seed(1)
            images = torch.randn(4, 3, 224, 224, generator=generator).to(device)
            text = torch.nn.functional.normalize(
                torch.randn(CLASSES, encoder.dim, generator=generator), dim=1
            )
            method = default_of("clips.NAME.upsampling")
            upsampler = make_upsampler(method, clip.mean, clip.std, None)
            bias = default_of("clips.NAME.global_bias")
            found[where, precision] = window_cosines(
                images, encoder, text.to(device), upsampler, bias
            )
        wanted = found.pop(("cpu", "fp32"))
        for (_, precision), cosines in found.items():
            low = precision != "fp32"
            figures.compare(
                f"dense CLIP, {name}, {precision}", cosines, wanted, 3e-2 if low else TOLERANCE
            )


# --- speed -------------------------------------------------------------------------------------


def iteration(figures: Figures, out: Path) -> None:
    """A training iteration of the size of Pavia Centre, by plain torch."""
    _iteration(figures, "plain torch", 2)


def iteration_fused(figures: Figures, out: Path) -> None:
    """The same by mamba-ssm, and where its time goes."""
    once = _iteration(figures, "mamba-ssm", 10)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        once()
        torch.cuda.synchronize()
    rows = sorted(profile.key_averages(), key=lambda row: -row.device_time_total)
    whole = sum(row.device_time_total for row in rows)
    figures.add("iteration, mamba-ssm, GPU busy", f"{whole / 1e3:.0f} ms")
    for row in rows[:10]:
        figures.add(
            f"- {row.key[:70]} x {row.count}", f"{100 * row.device_time_total / whole:.0f} %"
        )


def _iteration(figures: Figures, way: str, count: int) -> Callable[[], object]:
    sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
    from special_steps.classifier.loop import (
        Setup,
        create_model_and_optimizer,
        random_pixel_loss,
        train_epoch,
    )
    from special_steps.classifier.mambahsi import predict
    from special_steps.classifier.sampling import class_balanced_sampler
    from special_steps.classifier.tiles import Scene

    height, width, bands = PAVIA_CENTRE
    where = torch.device("cuda")
    cube = torch.rand(1, bands, height, width, device=where)
    scene = Scene(lambda _: cube, bands, np.zeros((height, width), bool), max(height, width))
    rng = np.random.default_rng(0)
    labels = rng.integers(1, CLASSES + 1, (height, width)).astype(np.uint8)
    sampler = class_balanced_sampler(labels, rng.random(labels.shape, np.float32), 500)
    classifier = {"hidden": 16, "tokens": 4}
    model, optimizer = create_model_and_optimizer(bands, CLASSES, classifier, 0, where)

    def losses(logits: torch.Tensor, tile: object) -> dict:
        return {"random": (1.0, random_pixel_loss(sampler, rng, logits, tile))}

    def once() -> object:
        how = {"rates": [1e-3], "noise": 0.1, "rng": rng, "title": "iteration"}
        return train_epoch(Setup(model, optimizer, scene, sampler), losses, **how)

    def timed(call: Callable[[], object], times: int) -> float:
        call()
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(times):
            call()
        torch.cuda.synchronize()
        return (time.perf_counter() - begin) / times

    took = timed(once, count)
    peak = torch.cuda.max_memory_allocated() / 2**30
    figures.add(f"iteration, 1096 x 715 x 102, {way}", f"{took * 1e3:.0f} ms, {peak:.1f} GiB")
    took = timed(lambda: predict(model, cube[0]), count)
    figures.add(f"prediction, 1096 x 715 x 102, {way}", f"{took * 1e3:.0f} ms")
    return once


# --- whole runs --------------------------------------------------------------------------------


@contextmanager
def watched() -> Iterator[dict[str, float]]:
    """Mean use and peak memory of the card while the block runs, by the driver, five times a second."""
    query = [
        "nvidia-smi",
        "--query-gpu=utilization.gpu,memory.used",
        "--format=csv,noheader,nounits",
        "-lms",
        "200",
    ]
    process = subprocess.Popen(query, stdout=subprocess.PIPE, text=True)
    rows: list[list[float]] = []

    def read() -> None:
        for line in process.stdout:
            rows.append([float(v) for v in line.split(",")])

    reader = threading.Thread(target=read)
    reader.start()
    found: dict[str, float] = {}
    try:
        yield found
    finally:
        process.terminate()
        reader.join()
        if rows:
            use, memory = np.array(rows).T
            found |= {"use": use.mean(), "memory": memory.max() / 1024}


def workflow(figures: Figures, what: str, folder: Path, config: Path | None) -> None:
    """Run the workflow in a folder; time by rule, use of the card, accuracy where there is truth."""
    words = [
        sys.executable,
        "-m",
        "snakemake",
        "-s",
        ROOT / "workflow" / "Snakefile",
        "--cores",
        "all",
    ]
    words += ["--directory", folder, *(["--configfile", config] if config else [])]
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    with watched() as card, (folder / "console.log").open("w") as log:
        done = subprocess.run([str(w) for w in words], stdout=log, stderr=subprocess.STDOUT)
    took = time.perf_counter() - begin
    if done.returncode:
        print((folder / "console.log").read_text()[-3000:])
        raise SystemExit(f"{what} failed")
    use = f"card in use {card['use']:.0f} % of the time, {card['memory']:.1f} GiB at most"
    figures.add(what, f"{took:.0f} s; {use}")
    for file in sorted((folder / "benchmarks").rglob("*.tsv")):
        head, values = (line.split("\t") for line in file.read_text().splitlines()[:2])
        row = dict(zip(head, values, strict=True))
        if float(row["s"]) > 4:
            name = file.relative_to(folder / "benchmarks").with_suffix("")
            figures.add(
                f"- {name}", f"{float(row['s']):.1f} s, {float(row['max_rss']) / 1024:.1f} GiB"
            )
    summary = folder / "results" / "summary.md"
    if summary.exists():
        for line in summary.read_text().splitlines()[2:]:
            figures.add(*[f"- {part}" for part in line.strip("| ").rsplit(" | ", 3)[:2]])


def default(figures: Figures, out: Path) -> None:
    """The default run, without mamba-ssm."""
    workflow(figures, "default run, plain torch scan", out / "default", None)


def pavia(figures: Figures, out: Path) -> None:
    """A run of the size of Pavia Centre: ViT-B/16 with random weights, scales 1 and 2, 400 iterations."""
    import open_clip
    from safetensors.torch import save_file

    folder = out / "pavia"
    folder.mkdir(parents=True, exist_ok=True)
    height, width, bands = PAVIA_CENTRE
    rng = np.random.default_rng(0)
    coarse = rng.random((12, 8, 8)).astype(np.float32)
    smooth = torch.nn.functional.interpolate(
        torch.from_numpy(coarse)[:, None], (height, width), mode="bicubic"
    )
    spectra = np.abs(rng.standard_normal((12, bands))).cumsum(1).astype(np.float32)
    cube = np.einsum("kyx,kb->yxb", smooth[:, 0].numpy(), spectra / spectra.max())
    cube += 0.01 * rng.standard_normal(cube.shape, np.float32)
    np.save(folder / "scene.npy", cube)
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-16")
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()}, folder / "random.safetensors"
    )
    classes = [
        "water",
        "trees",
        "meadow",
        "bricks",
        "bare soil",
        "asphalt",
        "bitumen",
        "tiles",
        "shadow",
    ]
    config = {
        "scenes": {
            "pavia": {
                "cube": {"path": "scene.npy", "wavelengths": {"first": 430, "last": 860}},
                "classes": classes,
            }
        },
        "clips": {
            "random": {"model": "ViT-B-16", "weights": "random.safetensors", "precision": "bf16"}
        },
        "clip": "random",
        "scales": [1, 2],
        "seeds": [0],
        "method": "published",
        "training": {"epochs": 20, "warmup_epochs": 10, "iterations": 20},
    }
    (folder / "my.yaml").write_text(json.dumps(config))
    workflow(figures, "run of the size of Pavia Centre, 400 iterations", folder, folder / "my.yaml")


def main() -> None:
    """Command line."""
    parts = {
        f.__name__.replace("_", "-"): f
        for f in (card, parity, parity_fused, iteration, iteration_fused, default, pavia)
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=parts)
    parser.add_argument("--out", type=Path, default=Path("gpu-check"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    parts[options.part](Figures(options.out), options.out.resolve())


if __name__ == "__main__":
    main()
