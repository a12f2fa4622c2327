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
import traceback
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
        self.judge(what, relative(found, wanted), tolerance)

    def judge(self, what: str, error: float, tolerance: float) -> None:
        """An error, and whether it is small enough."""
        good = error <= tolerance  # a NaN is not
        self.add(what, f"{error:.1e} {'within' if good else 'FAILED: above'} {tolerance:.0e}")


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest difference, relative to the largest value that is wanted."""
    found, wanted = found.detach().double(), wanted.detach().double().to(found.device)
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


def card(figures: Figures, out: Path) -> None:
    """What machine this is."""
    about = torch.cuda.get_device_properties(0)
    figures.add("card", f"{about.name}, {about.total_memory / 2**30:.0f} GiB")
    figures.add(
        "torch, CUDA, Python",
        f"{torch.__version__}, {torch.version.cuda}, {sys.version.split()[0]}",
    )


# --- parity ------------------------------------------------------------------------------------


@contextmanager
def way(name: str) -> Iterator[None]:
    """Mamba blocks on CUDA by Triton, by mamba-ssm or by plain torch, and an error where that does not run."""
    from special_steps.classifier import mamba

    found, fused = mamba.triton_kernels(), mamba.mamba_ssm_inner
    if name == "Triton" and isinstance(found, str):
        raise SystemExit(f"Triton cannot be used: {found}")
    if name == "mamba-ssm" and fused() is None:
        raise SystemExit("mamba-ssm cannot be used, see the warning above")
    if name != "Triton":
        mamba.triton_kernels = lambda: "switched off"
    if name == "plain torch":
        mamba.mamba_ssm_inner = lambda: None
    try:
        yield
    finally:
        mamba.triton_kernels, mamba.mamba_ssm_inner = lambda: found, fused


def each(*parts: Callable[[], object]) -> None:
    """Run all, and fail at the end where one did: it hides no other."""
    failed = []
    for part in parts:
        try:
            part()
        except (Exception, SystemExit):
            traceback.print_exc()
            failed.append(part)
        torch.cuda.empty_cache()
    if failed:
        raise SystemExit(f"{len(failed)} of {len(parts)} failed, see above")


def parity(figures: Figures, out: Path) -> None:
    """The kernels, Mamba, MambaHSI and dense CLIP: CUDA against the CPU."""

    def network(name: str) -> None:
        with way(name):
            network_parity(figures, name)

    each(
        lambda: kernel_parity(figures),
        lambda: network("Triton"),
        lambda: network("plain torch"),
        lambda: dense_parity(figures),
    )


def parity_triton(figures: Figures, out: Path) -> None:
    """What of `parity` is about Triton, which needs no package but torch."""
    with way("Triton"):
        each(lambda: kernel_parity(figures), lambda: network_parity(figures, "Triton"))


def parity_fused(figures: Figures, out: Path) -> None:
    """Mamba and MambaHSI by mamba-ssm against the CPU."""
    with way("mamba-ssm"):
        network_parity(figures, "mamba-ssm")


def kernel_parity(figures: Figures) -> None:
    """Scan and convolution by Triton on CUDA against those of plain torch in float64, and against themselves."""
    from special_steps.kernels import conv_triton, scan_triton
    from special_steps.kernels.conv import causal_conv
    from special_steps.kernels.scan import ScanInputs, parallel_scan

    def scan(what: str, sequences: int, tokens: int, channels: int, with_state: bool) -> None:
        generator = torch.Generator("cuda").manual_seed(0)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, device="cuda")

        rows = sequences, tokens
        u, delta, grad = (normal(*rows, channels) for _ in range(3))
        both, gates = normal(*rows, 33), normal(*rows, 2 * channels)
        rates = torch.arange(1.0, 17.0, device="cuda").repeat(channels, 1)
        A = -rates * torch.exp(0.1 * normal(channels, 16))
        bias = torch.linspace(-7, -2, channels, device="cuda")
        state = normal(sequences, channels, 16) if with_state else None
        B, C, z = both[..., 1:17], both[..., 17:], gates[..., channels:]
        inputs = ScanInputs(u, delta, A, B, C, normal(channels), z, bias, state)
        grad_state = normal(sequences, channels, 16) if with_state else None

        def by_triton() -> dict[str, torch.Tensor]:
            output, last, saved = scan_triton.scan_forward(inputs, True)
            names = {"du": u, "ddelta": u, "dz": u, "dB": B, "dC": B, "out": u}
            into = {name: torch.empty_like(like) for name, like in names.items()}
            others = scan_triton.scan_backward(inputs, saved, grad, grad_state, into)
            found = {"output": output, "last state": last} | into
            found |= dict(zip(("dA", "dD", "dbias", "dstate"), others, strict=True))
            return {name: tensor for name, tensor in found.items() if tensor is not None}

        found, again = by_triton(), by_triton()
        equal = all(torch.equal(found[name], again[name]) for name in found)
        figures.add(f"{what}, twice", "equal bit for bit" if equal else "FAILED: not equal")
        leaves = {
            name: value.double().requires_grad_()
            for name, value in inputs._asdict().items()
            if value is not None
        }
        output, last = parallel_scan(**leaves)
        loss = (output * grad).sum() + (0.0 if last is None else (last * grad_state).sum())
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        wanted = {"output": output, "out": output}
        wanted |= {} if last is None else {"last state": last}
        names = {"delta_bias": "dbias"}
        wanted |= {names.get(n, f"d{n}"): g for n, g in zip(leaves, gradients, strict=True)}
        errors = {name: relative(found[name], wanted[name]) for name in found}
        worst = max(errors, key=lambda name: np.nan_to_num(errors[name], nan=np.inf))
        figures.judge(f"{what}, worst of all: {worst}", errors[worst], 1e-5)

    def conv(what: str, sequences: int, tokens: int, channels: int) -> None:
        wide = torch.randn(sequences, tokens, 2 * channels, device="cuda")
        x, grad = wide[..., :channels], torch.randn(sequences, tokens, channels, device="cuda")
        weight, bias = torch.randn(channels, 4, device="cuda"), torch.randn(channels, device="cuda")
        before = torch.randn(sequences, 3, channels, device="cuda")
        turned, dx = weight.t().contiguous(), torch.empty_like(wide)[..., :channels]
        output = conv_triton.conv_forward(x, turned, bias, before)
        dweight, dbias, dbefore = conv_triton.conv_backward(x, turned, bias, before, grad, dx)
        leaves = [v.detach().double().requires_grad_() for v in (x, weight, bias, before)]
        wanted = causal_conv(*leaves)
        gradients = torch.autograd.grad(wanted, leaves, grad.double())
        found = [output, dx, dweight.t(), dbias, dbefore]
        pairs = zip(found, [wanted, *gradients], strict=True)
        figures.judge(f"{what}, worst of all", max(relative(f, w) for f, w in pairs), 1e-5)

    each(
        lambda: scan("scan, Triton, one long sequence", 1, 20_011, 32, False),
        lambda: scan("scan, Triton, one long sequence, state", 1, 20_011, 32, True),
        lambda: scan("scan, Triton, many short sequences", 5003, 4, 8, False),
        lambda: scan("scan, Triton, 33 channels, state", 3, 131, 33, True),
        lambda: conv("convolution, Triton, one long sequence", 1, 20_011, 32),
        lambda: conv("convolution, Triton, many short sequences", 5003, 4, 8),
    )


def network_parity(figures: Figures, how: str) -> None:
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
                f"{what}, {how}, {part}", a.detach().clone(), b.detach().clone(), TOLERANCE
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
    """A training iteration of the size of Pavia Centre by Triton and where its time goes, and by plain torch."""

    def one(name: str, count: int) -> None:
        with way(name):
            once = _iteration(figures, name, count)
            if name == "Triton":
                profile(figures, "iteration, Triton", once)

    each(lambda: one("Triton", 10), lambda: one("plain torch", 1))


def iteration_fused(figures: Figures, out: Path) -> None:
    """The same by mamba-ssm."""
    with way("mamba-ssm"):
        profile(figures, "iteration, mamba-ssm", _iteration(figures, "mamba-ssm", 10))


def profile(figures: Figures, what: str, once: Callable[[], object], rows: int = 10) -> None:
    """Where the GPU's time goes, by kernel."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as found:
        once()
        torch.cuda.synchronize()
    kernels = sorted(found.key_averages(), key=lambda row: -row.device_time_total)
    whole = sum(row.device_time_total for row in kernels)
    figures.add(f"{what}, GPU busy", f"{whole / 1e3:.1f} ms")
    for row in kernels[:rows]:
        spent = row.device_time_total
        figures.add(
            f"- {row.key[:70]} x {row.count}", f"{spent / 1e3:.2f} ms, {100 * spent / whole:.0f} %"
        )


def timed(call: Callable[[], object], times: int) -> float:
    """Seconds of a call, after one that does not count."""
    call()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(times):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / times


def network(figures: Figures, out: Path) -> None:
    """Blocks of Mamba and a whole MambaHSI of the size of Pavia Centre; needs no package but torch."""
    from special_steps.classifier import mamba
    from special_steps.classifier.mambahsi import MambaHSI

    height, width, bands = PAVIA_CENTRE

    def block(what: str, model: torch.nn.Module, *shape: int) -> None:
        model, tokens = model.cuda(), torch.randn(shape, device="cuda", requires_grad=True)
        grad = torch.randn_like(tokens)
        with torch.no_grad():
            forward = timed(lambda: model(tokens), 10)
        torch.cuda.reset_peak_memory_stats()
        both = timed(lambda: model(tokens).backward(grad), 10)
        peak = torch.cuda.max_memory_allocated() / 2**30
        times = f"{forward * 1e3:.1f} ms, with gradients {both * 1e3:.1f} ms, {peak:.1f} GiB"
        figures.add(what, times)

    def whole(name: str, times: int, rows: int) -> None:
        torch.manual_seed(0)
        model = MambaHSI(bands, CLASSES).cuda()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        cube = torch.rand(1, bands, height, width, device="cuda")
        cube = cube.contiguous(memory_format=torch.channels_last)
        pixels = torch.randint(height * width, (5000,), device="cuda")
        classes = torch.randint(CLASSES, (5000,), device="cuda")

        def once() -> None:
            scores = model(cube)[0].flatten(1).T[pixels]
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(scores, classes).backward()
            optimizer.step()

        with way(name):
            torch.cuda.reset_peak_memory_stats()
            took = timed(once, times)
            peak = torch.cuda.max_memory_allocated() / 2**30
            figures.add(f"MambaHSI, {name}", f"{took * 1e3:.1f} ms, {peak:.1f} GiB")
            with torch.no_grad():
                figures.add("- forward only", f"{timed(lambda: model(cube), times) * 1e3:.1f} ms")
            if rows:
                profile(figures, f"MambaHSI, {name}", once, rows)

    def segments(exponent: int) -> None:
        before, mamba.GPU_SEGMENT_VALUES = mamba.GPU_SEGMENT_VALUES, 2**exponent
        figures.add("segments of", f"2^{exponent} values")
        whole("Triton", 5, 0)
        mamba.GPU_SEGMENT_VALUES = before

    each(
        lambda: block("spatial block", mamba.Mamba(16), 1, height * width, 16),
        lambda: block("spectral block", mamba.Mamba(4), height * width, 4, 4),
        lambda: whole("Triton", 10, 40),
        lambda: segments(21),
        lambda: segments(25),
        lambda: whole("plain torch", 1, 0),
    )


def _iteration(figures: Figures, how: str, count: int) -> Callable[[], object]:
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

    took = timed(once, count)
    peak = torch.cuda.max_memory_allocated() / 2**30
    figures.add(f"iteration, 1096 x 715 x 102, {how}", f"{took * 1e3:.0f} ms, {peak:.1f} GiB")
    took = timed(lambda: predict(model, cube[0]), count)
    figures.add(f"prediction, 1096 x 715 x 102, {how}", f"{took * 1e3:.0f} ms")
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
        for line in summary.read_text().splitlines():
            if line.startswith("| ") and line.count(" | ") == 6 and "---" not in line:
                what, accuracy, *_ = line.strip("| ").rsplit(" | ", 3)
                figures.add(f"- {what}", accuracy)


def default(figures: Figures, out: Path) -> None:
    """The default run."""
    workflow(figures, "default run", out / "default", None)


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
        for f in (
            card,
            parity,
            parity_triton,
            parity_fused,
            network,
            iteration,
            iteration_fused,
            default,
            pavia,
        )
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=parts)
    parser.add_argument("--out", type=Path, default=Path("gpu-check"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    from special_steps.core.tensors import find_device

    find_device()  # with the arithmetic that the steps have
    parts[options.part](Figures(options.out), options.out.resolve())


if __name__ == "__main__":
    main()
