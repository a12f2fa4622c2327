"""The command line around a step, and what starting a step costs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from stores import make_cube

from special_steps.core import cli

ROOT = Path(cli.__file__).resolve().parents[2]

STEP = """
import logging
from pathlib import Path
from special_steps.core.cli import run
from special_steps.core.errors import UserError

def step(*, out: Path, how: str, numbers: list[float] | str | None, table: dict[str, int] | None) -> None:
    \"\"\"Do one thing well.

    Args:
        out: where the thing goes.
        how: what happens.
    \"\"\"
    if how == "user":
        raise UserError(f"{out}: the value is 3,\\nbut it must be 4; fix it")
    if how == "users":
        raise ExceptionGroup("", [UserError("one,\\nof two"), UserError("two")])
    if how == "warn":
        logging.getLogger("special").warning("look at %d,\\n%d", 1, 2)
        logging.getLogger("special").info("only told")
    if how == "bug":
        raise ZeroDivisionError("a bug")
    out.write_text(repr((numbers, table)))

if __name__ == "__main__":
    run(step)
"""


NONE = ("--numbers", "null", "--table", "null")


def call(*words: object, module: bool = False) -> subprocess.CompletedProcess:
    start = [sys.executable, *(["-m"] if module else []), *map(str, words)]
    return subprocess.run(start, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, text=True,
                          capture_output=True, check=False)  # fmt: skip


@pytest.fixture
def step(tmp_path) -> Path:
    (tmp_path / "step.py").write_text(STEP)
    return tmp_path / "step.py"


def test_a_users_mistake_is_one_line_and_code_1(step, tmp_path):
    done = call(step, "--out", tmp_path / "o", "--how", "user", *NONE)
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path}/o: the value is 3, but it must be 4; fix it\n"
    assert done.stdout == ""


def test_several_mistakes_are_a_line_each(step, tmp_path):
    done = call(step, "--out", tmp_path / "o", "--how", "users", *NONE)
    assert done.returncode == 1
    assert done.stderr == "error: one, of two\nerror: two\n"


def test_warnings_are_marked_as_such_and_one_line(step, tmp_path):
    done = call(step, "--out", tmp_path / "o", "--how", "warn", *NONE)
    assert done.returncode == 0
    first, second, _ = done.stderr.splitlines()
    assert first.endswith(" warning: look at 1, 2") and second.endswith(" only told")


def test_a_bug_keeps_its_traceback(step, tmp_path):
    done = call(step, "--out", tmp_path / "o", "--how", "bug", *NONE)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert 'raise ZeroDivisionError("a bug")' in done.stderr
    assert not done.stderr.startswith("error:")


def test_lists_and_mappings_come_as_json(step, tmp_path):
    words = ["--numbers", "[1, 2.5]", "--table", '{"bare soil": 1}']
    done = call(step, "--out", tmp_path / "o", "--how", "well", *words)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o").read_text() == "([1.0, 2.5], {'bare soil': 1})"


def test_null_is_a_value_and_has_to_be_given(step, tmp_path):
    words = ["--out", tmp_path / "o", "--how", "well"]
    done = call(step, *words, *NONE)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o").read_text() == "(None, None)"
    for missing in ("--numbers", "--table"):
        given = NONE[2:] if missing == "--numbers" else NONE[:2]
        done = call(step, *words, *given)
        assert done.returncode == 2
        assert missing.strip("-") in done.stderr


def test_an_unknown_option_is_refused(step, tmp_path):
    done = call(step, "--out", tmp_path / "o", "--how", "well", *NONE, "--hwo", "x")
    assert done.returncode == 2
    assert "hwo" in done.stderr
    assert not (tmp_path / "o").exists()


def test_help_shows_the_docstring(step):
    done = call(step, "--help")
    assert done.returncode == 0
    assert "Do one thing well." in done.stdout
    assert "where the thing goes." in done.stdout


def test_a_real_step_from_its_command_line(tmp_path):
    cube = make_cube(tmp_path / "cube.zarr", np.zeros((3, 4, 4)), [1000, 1050, 1100])
    words = ["--out", tmp_path / "rgb.zarr", "--wavelengths", "[655, 553, 451]"]
    words += ["--percentiles", "[0.1, 99.9]"]
    done = call("special_steps.rgb", "--cube", cube, *words, module=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {cube}: good bands cover 1000-1100 nm")
    assert [p.name for p in tmp_path.iterdir()] == ["cube.zarr"]


# Modules in an order in which what is loaded only grows, with what must not be loaded after them:
# torch costs seconds; the others are for the steps that draw, tabulate or learn.
LIGHT = {"torch", "open_clip", "sklearn", "scipy", "h5py", "pandas", "matplotlib", "rasterio"}
STARTS = [
    ("core.digest", LIGHT | {"numpy", "zarr"}),
    ("core.settings", LIGHT | {"numpy", "zarr"}),
    ("rgb", LIGHT),
    ("fuse", LIGHT),
    ("evidence", LIGHT),
    ("features", LIGHT),
    ("evaluate", LIGHT),
    ("export", LIGHT - {"matplotlib", "rasterio"} | {"matplotlib.pyplot"}),
    ("curves", LIGHT - {"matplotlib", "rasterio", "pandas"} | {"matplotlib.pyplot"}),
    ("signatures", LIGHT - {"matplotlib", "rasterio", "pandas"} | {"matplotlib.pyplot"}),
    ("summary", LIGHT - {"matplotlib", "rasterio", "pandas"}),
    ("ingest", {"torch", "open_clip", "sklearn"}),
    ("unpack", {"torch", "open_clip", "sklearn"}),
    ("inspect", {"torch", "open_clip", "sklearn"}),
    ("check_scenes", {"torch", "open_clip", "sklearn"}),
    ("demo", {"torch", "open_clip", "sklearn"}),
]


def test_steps_start_without_what_they_do_not_need():
    code = f"""
import importlib, sys
for module, heavy in {STARTS!r}:
    importlib.import_module("special_steps." + module)
    print(module, sorted(heavy & sys.modules.keys()))
"""
    done = call("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{module} []" for module, _ in STARTS]
