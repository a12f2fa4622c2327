"""The state of a training on disk: an interrupted training goes on from its last epoch, to the same bits."""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from special_steps.classifier.mambahsi import MambaHSI
from special_steps.core.digest import digest_of
from special_steps.core.errors import UserError
from special_steps.core.store import file_digest
from special_steps.core.tensors import write_tensors

log = logging.getLogger("special")


def fingerprint_of(step: str, settings: dict[str, Any], inputs: list[Path]) -> str:
    """Digest of all that a training depends on: a checkpoint of another one is not resumed.

    The code that the step runs counts, too: a changed line starts over, a changed comment does not.
    """
    digests = [digest_of(step), *(file_digest(p) for p in inputs)]
    metadata = {"settings": settings, "digests": digests}
    return hashlib.sha256(json.dumps(metadata, sort_keys=True, default=str).encode()).hexdigest()


def save_state(
    path: Path,
    model: MambaHSI,
    optimizer: torch.optim.Adam,
    labels: np.ndarray,
    rows: list[dict[str, Any]],
    fingerprint: str,
) -> None:
    """Write weights, Adam's moments, the last labels and a row per epoch as safetensors, whole or not at all."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"adam.{key}.{name}"] = value
    tensors["labels"] = torch.from_numpy(labels)
    write_tensors(path, tensors, {"fingerprint": fingerprint, "rows": json.dumps(rows)})


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say which file is damaged or of another network."""
    try:
        yield
    except (SafetensorError, OSError, RuntimeError, KeyError, ValueError) as error:
        raise UserError(f"{path}: not a training state ({error}); delete it") from error


def load_weights(path: Path, model: MambaHSI) -> dict[str, torch.Tensor]:
    """Read the weights that save_state wrote into a model; return all tensors of the file.

    Raises:
        UserError: when the file is damaged or of another network.
    """
    with _reading(path):
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        weights = {k.removeprefix("model."): v for k, v in tensors.items() if k[:6] == "model."}
        model.load_state_dict(weights)
    return tensors


def load_state(
    path: Path, model: MambaHSI, optimizer: torch.optim.Adam
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Read what save_state wrote into model and optimizer; return labels (y, x) uint8 and rows.

    Raises:
        UserError: when the file is damaged or of another network.
    """
    tensors = load_weights(path, model)
    with _reading(path):
        with safe_open(path, "pt") as file:
            rows = json.loads((file.metadata() or {})["rows"])
        labels = tensors["labels"].numpy()
    for name, parameter in model.named_parameters():
        for key in ("step", "exp_avg", "exp_avg_sq"):
            value = tensors.get(f"adam.{key}.{name}")
            if value is not None:
                # Adam keeps its step counter on the CPU
                optimizer.state[parameter][key] = (
                    value if key == "step" else value.to(parameter.device)
                )
    return labels, rows


def resume(
    path: Path, fingerprint: str, model: MambaHSI, optimizer: torch.optim.Adam
) -> tuple[np.ndarray, list[dict[str, Any]]] | None:
    """Load the checkpoint of an interrupted run of the same training; None when there is none."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            same = (file.metadata() or {}).get("fingerprint") == fingerprint
    except (SafetensorError, OSError):
        same = False
    if not same:
        log.info("%s belongs to other settings, data or code: starting over", path)
        return None
    labels, rows = load_state(path, model, optimizer)
    log.info("resuming after epoch %d from %s", rows[-1]["epoch"], path)
    return labels, rows
