"""Tensors: which device they are on, and on disk as safetensors, written whole."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save

from special_steps.core.atomic import atomic_write


def find_device() -> torch.device:
    """The GPU when there is one, else the CPU; float32 means float32 on both.

    By default convolutions on recent cards round to 10 bits (TF32): the bundled CLIP's cosines were off by 3e-3 there.
    """
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named tensors of any device and layout as a safetensors file, whole or not at all.

    Args:
        path: the file.
        tensors: by name.
        metadata: text by name, kept in the file's header.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as file:
        file.write_bytes(save(plain, dict(metadata) if metadata else None))
