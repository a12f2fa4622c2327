import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from special_steps.kernels import build

every = pytest.mark.parametrize("name", build.SLOWER)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Nothing is loaded yet."""
    monkeypatch.setattr(build, "_loaded", cache(build._loaded.__wrapped__))


@every
def test_without_a_compiler_the_fix_is_said(monkeypatch, tmp_path, caplog, name):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setitem(sys.modules, "ziglang", None)  # as if it were not installed
    assert not build.available(name)
    assert not build.available(name)
    with pytest.raises(RuntimeError, match=name):
        build.library(name)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "times slower" in record.getMessage() and "apt install g++" in record.getMessage()


def test_kernels_that_lack_a_compiler_together_warn_once(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setitem(sys.modules, "ziglang", None)
    assert not build.available("scan", "conv", "matmul")
    assert len(caplog.records) == 1


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """Make a stand-in for the compiler; gives a file with a line for each call."""

    def make(script):
        path, calls = tmp_path / "c++", tmp_path / "calls"
        path.write_text(f"#!/bin/sh\necho call >> {calls}\nfor last; do :; done\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("CXX", str(path))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        return calls

    return make


@every
def test_a_compiler_in_the_environment_is_used_where_the_machine_has_none(
    monkeypatch, tmp_path, name
):
    package = tmp_path / "packages" / "ziglang"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    calls = f"{tmp_path}/calls"
    (package / "__main__.py").write_text(f"import sys\nopen({calls!r}, 'w').write(sys.argv[1])")
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delitem(sys.modules, "ziglang", raising=False)
    assert not build.available(name), "a stand-in that compiles nothing"
    assert Path(calls).read_text() == "c++"


@every
def test_a_compiler_that_fails_is_reported_with_its_error(compiler, tmp_path, caplog, name):
    compiler("echo 'scan.cpp:1: error: no such flag' >&2; exit 1")
    assert not build.available(name)
    (record,) = caplog.records
    assert "no such flag" in record.getMessage() and "CXX" in record.getMessage()
    assert not list((tmp_path / "cache" / "special").iterdir())


@every
def test_a_binary_that_does_not_load_is_reported(compiler, caplog, name):
    compiler('echo nonsense > "$last"')
    assert not build.available(name)
    assert "XDG_CACHE_HOME" in caplog.records[-1].getMessage()


@pytest.fixture
def counted(compiler, tmp_path, monkeypatch):
    """A function that loads a kernel in a process that has not yet, and says how often that compiled so far."""
    if not build.available(*build.SLOWER):
        pytest.skip("needs a C++ compiler")
    calls = compiler(f'cp {build.library("matmul")._name} "$last"')

    def count(name):
        monkeypatch.setattr(build, "_loaded", cache(build._loaded.__wrapped__))
        assert build.available(name)
        found = len(calls.read_text().split())
        assert len(list((tmp_path / "cache" / "special").iterdir())) == found
        return found

    return count


@every
def test_kernels_are_compiled_once_for_each_kind_of_processor(counted, monkeypatch, name):
    for processor, count in (("one", 1), ("one", 1), ("another", 2)):
        monkeypatch.setattr(build, "_processor", lambda processor=processor: processor)
        assert counted(name) == count


def test_what_is_compiled_decides_when_it_is_compiled_again(counted, monkeypatch, tmp_path):
    """The code of the kernel and of all headers that it includes, directly or not, but no comment."""
    folder = tmp_path / "kernels"
    shutil.copytree(build.FOLDER, folder)
    monkeypatch.setattr(build, "FOLDER", folder)

    def add(name, text):
        with (folder / name).open("a") as stream:
            stream.write(text)

    assert counted("conv") == 1
    add("conv.cpp", "// a comment\n\n/* another */\n")
    add("simd.h", "  // a comment\n")
    add("scan.cpp", "int other;\n")
    add("more.h", "int unused;\n")
    assert counted("conv") == 1
    add("conv.cpp", "int more;\n")
    assert counted("conv") == 2
    add("simd.h", "int more_again;\n")
    assert counted("conv") == 3
    add("structures.h", '#include "more.h"\n')
    assert counted("conv") == 4
    add("more.h", "int used;\n")
    assert counted("conv") == 5


@pytest.mark.parametrize("variable", ["CXXFLAGS", "CXX"])
def test_what_the_user_asks_of_the_compiler_counts(counted, monkeypatch, tmp_path, variable):
    assert counted("jbu") == 1
    shutil.copy(tmp_path / "c++", tmp_path / "g++")
    monkeypatch.setenv(variable, {"CXX": str(tmp_path / "g++"), "CXXFLAGS": "-O1"}[variable])
    assert counted("jbu") == 2


def command():
    words = [sys.executable, "-m", build.__name__]
    return subprocess.run(words, check=True, capture_output=True, text=True).stderr


def test_the_command_compiles_all(counted, tmp_path):
    command()
    names = {path.name.split("-")[0] for path in (tmp_path / "cache" / "special").iterdir()}
    assert names == set(build.SLOWER) == {path.stem for path in build.FOLDER.glob("*.cpp")}


def test_the_command_says_once_what_is_lost(monkeypatch, tmp_path):
    # not one that is missing: the environment may have a compiler of its own, by pip
    monkeypatch.setenv("CXX", "false")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    told = [line for line in command().splitlines() if "the C++ compiler failed" in line]
    losses = [line.split(": ")[2].split(";")[0] for line in told]
    assert sorted(losses) == sorted(set(build.SLOWER.values()))
