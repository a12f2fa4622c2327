"""Tensors on disk: safetensors, written whole."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save

from special_steps.core.atomic import atomic_write


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
