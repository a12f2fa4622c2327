"""What co-training has learned: applied to the pixels of any scene with the same bands, and as a file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from special_steps.classifier.gaussian import Ensemble, Views, apply_ensemble, project
from special_steps.core.atomic import atomic_write
from special_steps.core.errors import UserError

ROWS = 16  # of an image at a time: spectra are copied


class Learned(NamedTuple):
    """Discriminants, ready for any pixel; their mean is the result."""

    views: Views
    ensembles: tuple[Ensemble, ...]  # none where there was nothing to learn


def predict(learned: Learned, spectra: np.ndarray) -> np.ndarray:
    """Class probabilities (class, pixel) float32 of spectra (pixel, band) float32."""
    joint = project(learned.views, spectra)
    found = [apply_ensemble(ensemble, joint) for ensemble in learned.ensembles]
    return sum(found[1:], found[0]) / len(found)


def predict_image(learned: Learned, bands: np.ndarray, valid: np.ndarray, out: np.ndarray) -> None:
    """The same of an image, a few rows at a time.

    Args:
        learned: with an ensemble at least.
        bands: (band, y, x) float32.
        valid: (y, x) bool: pixels with data.
        out: (class, y, x) float32, written where `valid`.
    """
    for y in range(0, len(valid), ROWS):
        few, mask = slice(y, y + ROWS), valid[y : y + ROWS]
        if mask.any():
            out[:, few][:, mask] = predict(learned, bands[:, few][:, mask].T)


def write_learned(path: Path, learned: Learned, class_names: Sequence[str]) -> None:
    """Write what was learned as safetensors, whole or not at all."""
    tensors: dict[str, np.ndarray] = {}
    for i, (mean, axes) in enumerate(zip(*learned.views, strict=True)):
        tensors |= {f"view-{i}.mean": mean, f"view-{i}.axes": axes}
    for i, ensemble in enumerate(learned.ensembles):
        tensors[f"ensemble-{i}.present"] = ensemble.present
        members: list[tuple[str, slice, list[np.ndarray]]] = []
        members += [(f"linear-{j}", part, own) for j, (part, *own) in enumerate(ensemble.linear)]
        members += [
            (f"quadratic-{j}", part, own) for j, (part, *own) in enumerate(ensemble.quadratic)
        ]
        for name, part, own in members:
            tensors[f"ensemble-{i}.{name}.part"] = np.array([part.start, part.stop])
            tensors |= {f"ensemble-{i}.{name}.{k}": values for k, values in enumerate(own)}
    plain = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
    with atomic_write(path) as file:
        file.write_bytes(save(plain, {"class_names": json.dumps(list(class_names))}))


def read_learned(path: Path) -> tuple[Learned, list[str]]:
    """What write_learned wrote, and the names of its classes.

    Raises:
        UserError: for a file that is missing, damaged or something else.
    """
    try:
        with safe_open(path, "np") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            names = json.loads((file.metadata() or {})["class_names"])
        views = Views(
            (tensors["view-0.mean"], tensors["view-1.mean"]),
            (tensors["view-0.axes"], tensors["view-1.axes"]),
        )
        ensembles: list[Ensemble] = []
        while f"ensemble-{len(ensembles)}.present" in tensors:
            place = f"ensemble-{len(ensembles)}"
            linear = [(part, m["0"], m["1"]) for part, m in _members(tensors, f"{place}.linear")]
            quadratic = [
                (part, m["0"], m["1"], m["2"])
                for part, m in _members(tensors, f"{place}.quadratic")
            ]
            ensembles.append(Ensemble(tensors[f"{place}.present"], linear, quadratic))
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(f"{path}: not what co-training writes ({error}); delete it") from error
    return Learned(views, tuple(ensembles)), names


def _members(
    tensors: dict[str, np.ndarray], place: str
) -> list[tuple[slice, dict[str, np.ndarray]]]:
    """Part and arrays of each member of one kind, in order."""
    found: list[tuple[slice, dict[str, np.ndarray]]] = []
    while f"{place}-{len(found)}.part" in tensors:
        member = f"{place}-{len(found)}."
        own = {k.removeprefix(member): v for k, v in tensors.items() if k.startswith(member)}
        first, last = own.pop("part")
        found.append((slice(int(first), int(last)), own))
    return found
