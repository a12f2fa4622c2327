"""Tiny CLIP models for tests: the developers' seeded one, and random ones made on the fly."""

import json
from pathlib import Path

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file

from special_steps.clip.checkpoint import read_state
from special_steps.clip.model import Clip, load_clip

torch.set_num_threads(1)  # tiny work: more threads only wait for each other

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
CONVNEXT = {
    "timm_model_name": "test_convnext",
    "timm_proj": "linear",
    "timm_pool": "",
    "image_size": 64,
}
VIT = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}


def parity_clip(parity: Path, folder: Path, name: str = "tiny_clip") -> Clip:
    """The golden outputs' model, through the loader."""
    config = json.loads((parity / f"{name}_config.json").read_text())["cfg"]
    arrays = np.load(parity / f"{name}_state_dict.npz")
    return load(config, {k: torch.from_numpy(arrays[k]) for k in arrays.files}, folder)


def load(config: dict, state: dict[str, torch.Tensor], folder: Path) -> Clip:
    (folder / "config.json").write_text(json.dumps(config))
    save_file(state, folder / "weights.safetensors")
    return load_clip(str(folder / "config.json"), str(folder / "weights.safetensors"))


def same_weights(clip: Clip, path: Path) -> bool:
    """Whether a model has the weights of a checkpoint."""
    found = clip.model.state_dict()
    return all(torch.equal(found[k], v) for k, v in read_state(path).items())


def config_of(**vision) -> dict:
    return {"embed_dim": 24, "vision_cfg": vision or VIT, "text_cfg": TEXT}


def random_state(config: dict, seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {k: v.clone() for k, v in open_clip.CLIP(**config).state_dict().items()}


def random_clip(folder: Path, **vision) -> Clip:
    """A model with random weights; `vision` as in an open_clip config."""
    config = config_of(**vision)
    return load(config, random_state(config), folder)
