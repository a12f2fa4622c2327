"""Tiny models in open_clip's registry, with weights that a local server publishes."""

import json

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from tiny_clip import config_of, random_state

from special_steps.clip import registry


@pytest.fixture(scope="session")
def registered(tmp_path_factory):
    """Adds the models tiny and tiny-quickgelu to open_clip's registry, for the rest of the session."""
    folder = tmp_path_factory.mktemp("configs")
    for name, extra in (("tiny", {}), ("tiny-quickgelu", {"quick_gelu": True})):
        (folder / f"{name}.json").write_text(json.dumps(config_of() | extra))
    open_clip.add_model_config(folder)


@pytest.fixture
def tiny(registered, tmp_path):
    """Path of weights of the models tiny and tiny-quickgelu; beside it lie the same as tiny.pt."""
    state = random_state(config_of())
    save_file(state, tmp_path / "open_clip_model.safetensors")
    torch.save(state, tmp_path / "tiny.pt")
    return tmp_path / "open_clip_model.safetensors"


@pytest.fixture
def publish(monkeypatch):
    """Gives the tiny models pretrained tags, by name.

    open_clip has no public way to add one, so our own function that reads its table is replaced. What follows from an
    entry, downloads above all, is open_clip's real code.
    """

    def give(**tags):
        quick = {tag: entry for tag, entry in tags.items() if entry.get("quick_gelu")}
        table = {"tiny": tags, "tiny-quickgelu": quick}
        monkeypatch.setattr(registry, "published_weights", lambda: table)

    return give
