import sys
from pathlib import Path

import pytest

from special_steps.kernels import build as native

both = pytest.mark.parametrize("name", native.SLOWER)


@both
def test_without_a_compiler_the_fix_is_told(monkeypatch, tmp_path, caplog, name):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setitem(sys.modules, "ziglang", None)  # as if it were not installed
    assert native.kernels.__wrapped__(name) is None
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "times slower" in record.getMessage() and "apt install g++" in record.getMessage()


def compiler(tmp_path, monkeypatch, script):
    """A stand-in for the compiler; a file with a line for each call."""
    path, calls = tmp_path / "c++", tmp_path / "calls"
    path.write_text(f"#!/bin/sh\necho call >> {calls}\nfor last; do :; done\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("CXX", str(path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return calls


@both
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
    native.kernels.__wrapped__(name)
    assert Path(calls).read_text() == "c++"


@both
def test_a_compiler_that_fails_is_told_with_its_error(monkeypatch, tmp_path, caplog, name):
    compiler(tmp_path, monkeypatch, "echo 'scan.cpp:1: error: no such flag' >&2; exit 1")
    assert native.kernels.__wrapped__(name) is None
    (record,) = caplog.records
    assert "no such flag" in record.getMessage() and "CXX" in record.getMessage()
    assert not list((tmp_path / "cache" / "special").iterdir())


@both
def test_a_binary_that_does_not_load_is_told(monkeypatch, tmp_path, caplog, name):
    compiler(tmp_path, monkeypatch, 'echo nonsense > "$last"')
    assert native.kernels.__wrapped__(name) is None
    assert "XDG_CACHE_HOME" in caplog.records[-1].getMessage()


@both
def test_kernels_are_compiled_once_for_each_kind_of_processor(monkeypatch, tmp_path, name):
    if native.kernels(name) is None:
        pytest.skip("needs a C++ compiler")
    calls = compiler(tmp_path, monkeypatch, f'cp {native.kernels(name)._name} "$last"')
    for processor, count in (("one", 1), ("one", 1), ("another", 2)):
        monkeypatch.setattr(native, "_processor", lambda processor=processor: processor)
        assert native.kernels.__wrapped__(name) is not None
        assert len(calls.read_text().split()) == count
        assert len(list((tmp_path / "cache" / "special").iterdir())) == count
