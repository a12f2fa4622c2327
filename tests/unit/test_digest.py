"""The digest of a step's code: a changed line reaches the steps that run it, and only those."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from special_steps import digest

PACKAGE = Path(digest.__file__).resolve().parent


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A small package of the same name; its digests are computed by the real code."""
    folder = tmp_path / "special_steps"
    (folder / "tower").mkdir(parents=True)
    files = {
        "__init__.py": '__version__ = "1"\n',
        "store.py": "import numpy as np\nSIZE = 256\n",
        "store.cpp": "// loops\n",  # compiled by store.py
        "store.h": "// vectors\n",
        "cli.py": "import sys\n",
        "rgb.py": "from special_steps.cli import run\nfrom special_steps.store import SIZE\n",
        "fuse.py": "def late():\n    from special_steps import rgb\n    return rgb\n",
        "text.py": "import special_steps.tower.model as m\n",
        "tower/__init__.py": "",
        "tower/model.py": "from special_steps.cli import run\n",
        "loop.py": "import special_steps.back\n",
        "back.py": "import special_steps.loop\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    monkeypatch.setattr(digest, "PACKAGE", folder)
    return folder


STEPS = ("rgb", "fuse", "text", "loop")


def digests() -> dict[str, str]:
    digest.digest_of.cache_clear()
    digest._imports.cache_clear()
    return {step: digest.digest_of(step) for step in STEPS}


@pytest.mark.parametrize(
    ("changed", "steps"),
    [
        ("rgb.py", {"rgb", "fuse"}),  # itself, and imported inside a function
        ("store.py", {"rgb", "fuse"}),  # imported directly, and by an import
        ("store.cpp", {"rgb", "fuse"}),
        ("store.h", {"rgb", "fuse"}),
        ("cli.py", {"rgb", "fuse", "text"}),
        ("fuse.py", {"fuse"}),
        ("tower/model.py", {"text"}),
        ("tower/__init__.py", {"text"}),  # runs before tower.model
        ("back.py", {"loop"}),
        ("__init__.py", set(STEPS)),
    ],
)
def test_a_changed_line_reaches_the_steps_that_run_it(package, changed, steps):
    before = digests()
    with (package / changed).open("a") as stream:
        stream.write("# one more line\n")
    after = digests()
    assert {step for step in STEPS if before[step] != after[step]} == steps


def test_an_unchanged_package_has_the_same_digests(package):
    assert digests() == digests()
    assert len(set(digests().values())) == len(STEPS)


def test_a_new_file_that_nobody_imports_changes_nothing(package):
    before = digests()
    (package / "new.py").write_text("import special_steps.store\n")
    assert digests() == before


def test_files_are_named_once_and_the_step_comes_first(package):
    found = digest.closure("fuse")
    assert found[0] == package / "fuse.py"
    assert len(found) == len(set(found))
    modules = {package / f"{n}.py" for n in ("fuse", "rgb", "cli", "store", "__init__")}
    assert set(found) == modules | {package / "store.cpp", package / "store.h"}


def test_an_unknown_module_is_an_error():
    with pytest.raises(ValueError, match="no module nonsense"):
        digest.closure("nonsense")


def test_relative_imports_are_refused_not_missed(package):
    (package / "rgb.py").write_text("from . import store\n")
    with pytest.raises(ValueError, match=r"rgb\.py:1"):
        digests()


def test_the_real_steps_digest_all_of_the_package_that_they_load():
    """What Python really loads is in the closure."""
    code = (
        "import sys, special_steps.evaluate\n"
        "print(*[m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'special_steps'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, text=True, capture_output=True, check=True
    )
    loaded = {Path(file) for file in done.stdout.split()}
    assert len(loaded) > 5
    assert loaded <= set(digest.closure("evaluate"))


def test_a_copy_of_the_real_package_changes_where_it_should(tmp_path):
    """The command that the rules' digests come from, on a copy with one changed line."""
    copy = tmp_path / "special_steps"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    steps = ["rgb", "fuse", "features", "evaluate", "export", "summary"]

    def told() -> list[str]:
        code = f"from special_steps.digest import digest_of; print(*map(digest_of, {steps}))"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
            text=True,
            capture_output=True,
            check=True,
        )
        return done.stdout.split()

    before = told()
    source = (copy / "spectral.py").read_text()
    (copy / "spectral.py").write_text(source.replace("0.5", "0.50"))
    after = told()
    changed = {step for step, a, b in zip(steps, before, after, strict=True) if a != b}
    assert changed == {"rgb", "features"}


def test_every_rule_digests_the_module_that_it_runs():
    blocks = [
        block
        for path in (PACKAGE.parent / "rules").glob("*.smk")
        for block in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]
    ]
    assert len(blocks) >= 10
    for block in blocks:
        run = re.findall(r"-m special_steps\.(\w+)", block)
        assert run == re.findall(r'digest_of\("(\w+)"\)', block), block.split(":")[0]


def test_the_package_imports_by_full_name():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}:{node.lineno}"
