"""Build, read and write the bundled model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import load_file, save_file

FOLDER = Path(__file__).parent.parent


def read_config() -> dict:
    """The model part of model_config.json, as open_clip.CLIP takes it."""
    return json.loads((FOLDER / "model_config.json").read_text(encoding="utf-8"))["model_cfg"]


def build() -> tuple[open_clip.CLIP, open_clip.SimpleTokenizer]:
    """An untrained model of the bundled shape, and its tokenizer."""
    config = read_config()
    tokenizer = open_clip.SimpleTokenizer(context_length=config["text_cfg"]["context_length"])
    return open_clip.CLIP(**config), tokenizer


def load(folder: Path = FOLDER) -> tuple[open_clip.CLIP, open_clip.SimpleTokenizer]:
    """The trained model in float32, ready for inference, and its tokenizer."""
    model, tokenizer = build()
    stored = load_file(folder / "weights.safetensors")
    # Batch-norm counters are integers and stay so.
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in stored.items()})
    return model.eval(), tokenizer


def save(model: open_clip.CLIP, folder: Path) -> None:
    """Write weights.safetensors (float16) and weights.sha256, each aside and then renamed."""
    state = {
        k: (v.half() if v.is_floating_point() else v).contiguous()
        for k, v in model.state_dict().items()
    }
    largest = max(float(v.abs().max()) for v in state.values())
    if not torch.isfinite(torch.tensor(largest)):
        raise ValueError("a weight does not fit into float16")
    partial = folder / "weights.partial"
    save_file(state, partial)
    digest = hashlib.sha256(partial.read_bytes()).hexdigest()
    partial.chmod(0o644)
    (folder / "digest.partial").write_text(f"{digest}  weights.safetensors\n", encoding="ascii")
    partial.rename(folder / "weights.safetensors")
    (folder / "digest.partial").rename(folder / "weights.sha256")
