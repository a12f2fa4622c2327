"""Checkpoint files: read without running what is in them, and loaded into a model only if they are that model's.

Nothing is unpickled: checkpoints are safetensors, or .pt files read with weights_only=True. The one kind of TorchScript
archive that is read is OpenAI's own, recognised by its SHA-256.
"""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from special_steps.clip.registry import is_openai, published_entry
from special_steps.core.errors import UserError, one_line

# What reading and loading a broken or foreign file raises, besides UserError.
LOADING_ERRORS = (
    SafetensorError,
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    StopIteration,
)


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict from .safetensors, or from .pt and the like with weights_only=True.

    Raises:
        UserError: for missing, truncated or corrupt files, and files that hold anything else.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint file")
    try:
        state: Any  # what a .pt file holds is known only after the checks
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except LOADING_ERRORS as error:
        raise UserError(
            f"{path}: not a whole checkpoint that can be read safely ({one_line(error)});"
            " fetch it again, or save its state dict as .safetensors"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not state:
        raise UserError(f"{path}: holds no state dict; save the model's as .safetensors")
    if not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise UserError(f"{path}: holds more than the tensors of a state dict; save only those")
    return state


def load_weights(model: torch.nn.Module, path: Path, name: str) -> None:
    """Load a checkpoint into `model`, with open_clip's own conversions of old formats.

    Args:
        model: open_clip's; changed in place.
        path: .safetensors, .pt and the like, or OpenAI's TorchScript archive.
        name: of the model, for messages.

    Raises:
        UserError: for files that can't be read safely, and those of another model.
    """
    try:
        if _is_torchscript(path):
            state = _read_openai(path)
            _check_positions(model, state, path, name)
            model.load_state_dict(state)
        else:
            _check_positions(model, read_state(path), path, name)
            open_clip.load_checkpoint(model, str(path), strict=True, weights_only=True)
    except LOADING_ERRORS as error:
        raise UserError(f"{path}: does not match model {name}: {one_line(error)}") from error


def _check_positions(
    model: torch.nn.Module, state: dict[str, torch.Tensor], path: Path, name: str
) -> None:
    """Refuse position embeddings of another size: open_clip would resize them without a word."""
    own = model.state_dict()
    for key in ("visual.positional_embedding", "positional_embedding"):
        found = state.get(key, state.get("module." + key))
        wanted = own.get(key, own.get("text." + key))
        if found is not None and wanted is not None and found.shape != wanted.shape:
            raise UserError(
                f"{path}: does not match model {name}: {key} is {tuple(found.shape)},"
                f" the model's is {tuple(wanted.shape)}"
            )


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _read_openai(path: Path) -> dict[str, torch.Tensor]:
    """State dict of an original archive of OpenAI's, which is TorchScript and as such a program.

    It is opened only when its digest is one that OpenAI published.
    """
    entry = published_entry(path)
    if entry is None or not is_openai(entry):
        raise UserError(
            f"{path}: a TorchScript archive that is not OpenAI's (by its SHA-256), so it is not opened;"
            " save its state dict as .safetensors"
        )
    state = torch.jit.load(str(path), map_location="cpu").state_dict()
    for key in ("input_resolution", "context_length", "vocab_size"):  # open_clip's have none
        state.pop(key, None)
    return state
