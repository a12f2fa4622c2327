import numpy as np
import pytest
import torch
from tiny_clip import random_clip

from special_steps.core.errors import UserError
from special_steps.text import text


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return random_clip(tmp_path_factory.mktemp("clip"))


def test_step_writes_one_file(clip, tmp_path):
    model, weights = clip.name.split()
    classes = {"water": ["river"], "bare soil": []}
    out = tmp_path / "new" / "text.npz"
    text(classes=classes, out=out, model=model, weights=weights, templates="aerial")
    first = out.read_bytes()
    with np.load(out) as data:
        assert data["embeddings"].shape == (3, 24)
        assert data["class_index"].tolist() == [0, 0, 1]
        assert data["class_index"].dtype == np.int64
        assert data["class_names"].tolist() == ["water", "bare soil"]
        assert data["phrases"].tolist() == ["water", "river", "bare soil"]
        assert str(data["clip"]) == clip.name
    text(classes=classes, out=out, model=model, weights=weights, templates="aerial")
    assert out.read_bytes() == first
    assert [p.name for p in out.parent.iterdir()] == ["text.npz"]


def test_step_with_an_error_leaves_nothing(clip, tmp_path):
    with pytest.raises(UserError, match="empty"):
        out = tmp_path / "text.npz"
        text(classes={}, out=out, model="bundled", weights=None, templates=None)
    assert not list(tmp_path.iterdir())
    assert torch.is_inference_mode_enabled() is False
