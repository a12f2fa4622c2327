"""How far a tensor is from the wanted one."""

import torch


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest difference, relative to the largest value that is wanted."""
    return ((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30)).item()
