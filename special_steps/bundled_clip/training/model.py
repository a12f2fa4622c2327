"""Build, read and write the bundled model."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import load_file

from special_steps.clip.model import BUNDLED
from special_steps.clip.registry import sha256
from special_steps.core.atomic import atomic_write
from special_steps.core.tensors import write_tensors


def build() -> tuple[open_clip.CLIP, open_clip.SimpleTokenizer]:
    """An untrained model of the bundled shape, and its tokenizer."""
    config = json.loads((BUNDLED / "model_config.json").read_text(encoding="utf-8"))["model_cfg"]
    tokenizer = open_clip.SimpleTokenizer(context_length=config["text_cfg"]["context_length"])
    return open_clip.CLIP(**config), tokenizer


def load(folder: Path = BUNDLED) -> tuple[open_clip.CLIP, open_clip.SimpleTokenizer]:
    """The trained model in float32, ready for inference, and its tokenizer."""
    model, tokenizer = build()
    stored = load_file(folder / "weights.safetensors")
    # Batch-norm counters are integers and stay so.
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in stored.items()})
    return model.eval(), tokenizer


def save(model: open_clip.CLIP, folder: Path) -> None:
    """Write weights.safetensors (float16) and weights.sha256.

    Raises:
        ValueError: for a weight that is not finite in float16.
    """
    state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    largest = max(float(v.abs().max()) for v in state.values())
    if not torch.isfinite(torch.tensor(largest)):
        raise ValueError("a weight does not fit into float16")
    path = folder / "weights.safetensors"
    write_tensors(path, state)
    with atomic_write(folder / "weights.sha256") as file:
        file.write_text(f"{sha256(path)}  {path.name}\n", encoding="ascii")
