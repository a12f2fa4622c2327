"""The digest of a step's code: what can change its result reaches the steps that run it, and only those."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from special_steps.core import digest

PACKAGE = Path(digest.__file__).resolve().parents[1]
FILES = {
    "__init__.py": '__version__ = "1"\n',
    "core/__init__.py": "",
    "core/cli.py": "import sys\n",
    "core/store.py": "import numpy as np\nSIZE = 256\n",
    "kernels/__init__.py": "",
    "kernels/scan.py": "from special_steps.core.store import SIZE\n",
    "kernels/scan.cpp": '#include <vector>\n#include "simd.h"\nint a = 1;  // loops\n',
    "kernels/simd.h": '#include "more.h"\nint b = 2;\n',
    "kernels/more.h": "int c = 3;\n",
    "kernels/other.h": "int d = 4;\n",
    "rgb.py": "from special_steps.core.cli import run\nfrom special_steps.core.store import SIZE\n",
    "warmup.py": "import special_steps.kernels.scan\n",
    "fuse.py": "def late():\n    from special_steps import rgb\n    return rgb\n",
    "text.py": "import special_steps.tower.model as m\n",
    "words.csv": "word,materials\n",
    "words.py": "TABLE = 'words.csv'\n",
    "evidence.py": "from special_steps import words\n",
    "alone.csv": "word,materials\n",
    "rgb.html": "<p>{{image}}</p>\n",
    "tower/__init__.py": "",
    "tower/model.py": "from special_steps.core.cli import run\n",
    "loop.py": "import special_steps.back\n",
    "back.py": "import special_steps.loop\n",
}
STEPS = ("rgb", "warmup", "fuse", "text", "loop", "evidence")


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A small package of the same name; its digests are computed by the real code."""
    folder = tmp_path / "special_steps"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setattr(digest, "PACKAGE", folder)
    return folder


def digests() -> dict[str, str]:
    digest.digest_of.cache_clear()
    digest._imports.cache_clear()
    digest._normal.cache_clear()
    return {step: digest.digest_of(step) for step in STEPS}


def changed(package: Path, name: str, text: str) -> set[str]:
    """The steps whose digest changes when the text is put in the place of a file's."""
    before = digests()
    (package / name).write_text(text)
    after = digests()
    return {step for step in STEPS if before[step] != after[step]}


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("rgb.py", {"rgb", "fuse"}),  # itself, and imported inside a function
        ("core/store.py", {"rgb", "fuse", "warmup"}),  # imported directly, and by an import
        ("core/cli.py", set()),
        ("core/__init__.py", {"rgb", "fuse", "warmup", "text"}),  # runs before core.store
        ("fuse.py", {"fuse"}),
        ("tower/model.py", {"text"}),
        ("tower/__init__.py", {"text"}),
        ("back.py", {"loop"}),
        ("__init__.py", set(STEPS)),
    ],
)
def test_a_changed_line_reaches_the_steps_that_run_it(package, name, steps):
    assert changed(package, name, FILES[name] + "LINE = 1\n") == steps


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("kernels/scan.cpp", {"warmup"}),
        ("kernels/simd.h", {"warmup"}),
        ("kernels/more.h", {"warmup"}),  # included by simd.h
        ("kernels/other.h", set()),  # included by nobody
    ],
)
def test_a_changed_kernel_reaches_the_steps_that_load_it(package, name, steps):
    assert changed(package, name, FILES[name] + "int e;\n") == steps


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("words.csv", {"evidence"}),  # beside a module that is imported
        ("alone.csv", set()),  # beside none
        ("rgb.html", {"rgb", "fuse"}),
    ],
)
def test_a_changed_table_reaches_the_steps_that_load_its_module(package, name, steps):
    assert changed(package, name, FILES[name] + "lawn,grass_canopy\n") == steps


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith((".csv", ".html"))])
def test_comments_and_blank_lines_change_nothing(package, name):
    comment = "# a comment\n" if name.endswith(".py") else "\n  // a comment\n/* and\nanother */\n"
    assert changed(package, name, comment + "\n\n" + FILES[name] + comment) == set()


@pytest.mark.parametrize(
    "text",
    [
        '"""A docstring."""\nimport special_steps.tower.model as m\n',
        "import special_steps.tower.model  as  m  # and spaces\n",
        "import special_steps.tower.model as m\nif __name__ == '__main__':\n    m.run()\n",
        "import special_steps.tower.model as m\n'text after a constant'\n",
    ],
)
def test_docstrings_formatting_and_the_command_line_change_nothing(package, text):
    assert changed(package, "text.py", text) == set()


def test_a_docstring_of_a_function_changes_nothing_and_its_default_does(package):
    define = "def f(a={}):\n    '''{}'''\n    return a\n"
    changed(package, "text.py", define.format(1, "one"))
    assert changed(package, "text.py", define.format(1, "another")) == set()
    assert changed(package, "text.py", define.format(2, "another")) == {"text"}


def test_the_version_changes_nothing(package):
    assert changed(package, "__init__.py", '__version__ = "2"\n') == set()


def test_text_in_quotes_is_no_comment():
    code = 'const char* a = "http://x";  // y\nchar b = \'"\'; /* z */ int c;\n\n'
    assert digest.without_comments(code) == ('const char* a = "http://x";\nchar b = \'"\'; int c;')


def test_an_unchanged_package_has_the_same_digests(package):
    assert digests() == digests()
    assert len(set(digests().values())) == len(STEPS)


def test_a_new_file_that_nobody_imports_changes_nothing(package):
    assert changed(package, "new.py", "import special_steps.core.store\n") == set()


def test_files_are_named_once_and_the_step_comes_first(package):
    found = [str(path.relative_to(package)) for path in digest.closure("warmup")]
    kernels = [f"kernels/{n}" for n in ("__init__.py", "more.h", "scan.cpp", "scan.py", "simd.h")]
    core = ["core/__init__.py", "core/store.py"]
    assert found == ["warmup.py", *sorted(["__init__.py", *core, *kernels])]


def test_an_unknown_module_is_an_error():
    with pytest.raises(ValueError, match="no module nonsense"):
        digest.closure("nonsense")


def test_relative_imports_are_refused_not_missed(package):
    (package / "rgb.py").write_text("from . import store\n")
    with pytest.raises(ValueError, match=r"rgb\.py:1"):
        digests()


def test_every_version_of_python_gives_the_same_digest(package):
    """Two interpreters of different versions, where the machine has a second one."""
    others = [f"python3.{minor}" for minor in range(11, 16) if minor != sys.version_info.minor]
    code = "from special_steps.core.digest import digest_of; print(digest_of('refine'))"
    run = {"cwd": PACKAGE.parent, "text": True, "capture_output": True}
    own = subprocess.run([sys.executable, "-c", code], **run, check=True).stdout
    for name in others:
        try:
            found = subprocess.run([name, "-c", code], **run, check=True).stdout
        except (FileNotFoundError, subprocess.CalledProcessError):
            continue  # not installed; a shim of a version manager fails
        assert found == own, name


def test_the_real_steps_digest_all_of_the_package_that_they_load():
    """What Python really loads is in the closure, but for the command line."""
    code = (
        "import sys, special_steps.evaluate\n"
        "print(*[m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'special_steps'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, text=True, capture_output=True, check=True
    )
    loaded = {Path(file) for file in done.stdout.split()} - {PACKAGE / "core" / "cli.py"}
    assert len(loaded) > 5
    assert loaded <= set(digest.closure("evaluate"))


def test_steps_digest_no_libraries_that_they_do_not_use():
    modules = {
        step: {str(p.relative_to(PACKAGE)) for p in digest.closure(step)}
        for step in ("demo", "evaluate", "fuse", "check_scenes")
    }
    steps = {p.name for p in PACKAGE.glob("*.py")} - {"__init__.py"}
    for step, found in modules.items():
        assert found & steps == {f"{step}.py"}, step
    assert {p for p in modules["demo"] if p.startswith("io/")} == {
        "io/__init__.py", "io/envi_header.py", "io/record.py", "io/spectral_library.py"
    }  # fmt: skip
    for step in ("evaluate", "fuse", "check_scenes"):
        assert {"io/source.py", "io/raster.py", "io/arrays.py"} <= modules[step]
        assert not {"io/spectral_library.py", "simulated_scene/sensor.py"} & modules[step]
    assert "io/pseudo_labels.py" not in modules["evaluate"]
    assert "io/ground_truth.py" not in modules["fuse"]


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
