"""Triton kernels on a machine without a GPU: run by Triton's interpreter, and translated for a card."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

TESTS = Path(__file__).resolve().parent
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs Triton, which is for Linux"
)


def run_interpreted(name: str) -> None:
    """Run the tests of a file of kernels/ in a process of its own: Triton must be told before it is imported."""
    paths = [TESTS.parents[1], TESTS, TESTS / "kernels", TESTS / "classifier"]
    environment = {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(map(str, paths))}
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--noconftest"]
    done = subprocess.run(
        [*words, str(TESTS / "kernels" / name)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


class Recorder:
    """Stands in for a kernel: keeps the arguments of its calls, and computes nothing."""

    def __init__(self, kernel: object, calls: list) -> None:
        self.kernel, self.calls = kernel, calls

    def __getitem__(self, grid: object) -> object:
        return lambda *args, **options: self.calls.append((self.kernel, args, options))


def recorded(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> list:
    """The list that calls of the module's kernels go to from now on."""
    calls: list = []
    for name in list(vars(module)):
        if name.endswith("_kernel"):
            monkeypatch.setattr(module, name, Recorder(getattr(module, name), calls))
    return calls


def translate(kernel, args: tuple, options: dict) -> dict:
    """Translate a kernel for an H100, as a call with these arguments would; its texts and its machine code."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    values = dict(zip(kernel.arg_names, args, strict=False)) | options
    signature, constants, known = {}, {}, {}
    for number, parameter in enumerate(kernel.params):
        name = parameter.name
        value = values.pop(name)
        free = parameter.do_not_specialize
        tensor = isinstance(value, torch.Tensor)
        one = not tensor and value == 1 and not free
        if parameter.is_constexpr or value is None or one:
            signature[name], constants[number,] = "constexpr", value
            continue
        signature[name] = "*fp32" if tensor else "i32"
        if (value.data_ptr() if tensor else value) % 16 == 0 and not free:
            known[number,] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, known)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=values).asm
