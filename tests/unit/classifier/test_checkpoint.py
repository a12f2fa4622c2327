"""The state on disk: it goes on bit for bit, or it is not taken."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_training import one_epoch, small_model

from special_steps.classifier.checkpoint import fingerprint_of, load_state, resume, save_state
from special_steps.core import digest
from special_steps.core.errors import UserError

PACKAGE = Path(digest.__file__).resolve().parents[1]


def test_state_goes_on_bit_for_bit(tmp_path):
    path = tmp_path / "s.safetensors"
    model, optimizer = small_model()
    one_epoch(model, optimizer, np.random.default_rng(1))
    labels, rows = np.ones((9, 14), np.uint8), [{"epoch": 1, "stage": "warmup"}]
    save_state(path, model, optimizer, labels, rows, "fingerprint")
    one_epoch(model, optimizer, np.random.default_rng(2))

    again, adam = small_model(seed=9)
    found = resume(path, "fingerprint", again, adam)
    np.testing.assert_array_equal(found[0], labels)
    assert found[1] == rows
    one_epoch(again, adam, np.random.default_rng(2))
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_resuming_is_logged(tmp_path, caplog):
    caplog.set_level("INFO", "special")
    path = tmp_path / "s.safetensors"
    save_state(path, *small_model(), np.ones((2, 2), np.uint8), [{"epoch": 3}], "fingerprint")
    resume(path, "fingerprint", *small_model())
    assert f"resuming after epoch 3 from {path}" in caplog.text


def test_a_checkpoint_of_another_training_is_not_resumed(tmp_path):
    model, optimizer = small_model()
    path = tmp_path / "s.safetensors"
    assert resume(path, "fingerprint", model, optimizer) is None
    save_state(path, model, optimizer, np.ones((2, 2), np.uint8), [{"epoch": 1}], "other")
    assert resume(path, "fingerprint", model, optimizer) is None
    save_file({"labels": torch.ones(2)}, path)  # no metadata at all
    assert resume(path, "fingerprint", model, optimizer) is None
    path.write_bytes(b"no safetensors")
    assert resume(path, "fingerprint", model, optimizer) is None


@pytest.mark.parametrize("damage", ["bytes", "metadata", "network"])
def test_a_damaged_state_is_named(tmp_path, damage):
    path = tmp_path / "s.safetensors"
    if damage == "bytes":
        path.write_bytes(b"no safetensors")
    elif damage == "metadata":
        save_file({"labels": torch.ones(2)}, path)
    else:
        save_file({"labels": torch.ones(2)}, path, {"rows": "[]"})
    with pytest.raises(UserError, match=r"(?s)s\.safetensors: not a training state .*; delete it"):
        load_state(path, *small_model())


def test_fingerprint_depends_on_settings_and_inputs(tmp_path):
    file = tmp_path / "input"
    file.write_text("a")
    found = {fingerprint_of("refine", {"seed": seed}, [file]) for seed in (0, 1)}
    file.write_text("b")
    found.add(fingerprint_of("refine", {"seed": 0}, [file]))
    assert len(found) == 3


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package's code that may be changed."""
    copy = tmp_path / "special_steps"
    for path in PACKAGE.rglob("*"):
        if path.suffix in (".py", ".cpp", ".h"):
            (copy / path.relative_to(PACKAGE)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy / path.relative_to(PACKAGE))
    monkeypatch.setattr(digest, "PACKAGE", copy)
    yield copy
    clear_caches()


def clear_caches():
    digest.digest_of.cache_clear()
    digest._imports.cache_clear()
    digest._normal.cache_clear()


def fingerprints() -> dict[str, str]:
    clear_caches()
    return {step: fingerprint_of(step, {}, []) for step in ("warmup", "refine")}


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def test_a_comment_in_any_file_starts_no_training_over(package):
    before = fingerprints()
    for path in package.rglob("*"):
        if path.is_file():
            append(path, "\n# a comment\n" if path.suffix == ".py" else "\n// a comment\n")
    assert fingerprints() == before


def test_a_line_starts_the_trainings_over_that_run_it(package):
    before = fingerprints()
    for name, steps in {
        "classifier/loop.py": {"warmup", "refine"},
        "classifier/tiles.py": {"warmup", "refine"},
        "classifier/sets.py": {"refine"},
        "core/tiling.py": {"warmup", "refine"},
        "warmup.py": {"warmup"},
        "curves.py": set(),
    }.items():
        append(package / name, "\nNEW = 1\n")
        after = fingerprints()
        assert {step for step in after if after[step] != before[step]} == steps, name
        before = after
