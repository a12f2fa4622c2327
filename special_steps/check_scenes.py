"""Check all scenes' headers and ground truth before anything is computed."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.core.spectral import band_weights
from special_steps.core.store import Grid
from special_steps.io.bands import Bands, choose_bands
from special_steps.io.given_labels import read_given_labels
from special_steps.io.ground_truth import read_ground_truth
from special_steps.io.source import open_source

log = logging.getLogger("special")

OPENED_WITH = ("variable", "axes", "shape")  # settings of a cube
BANDS_BY = ("wavelengths", "scale", "bad_ranges", "drop_bands")


def check_scenes(*, scenes: Path) -> None:
    """Check scenes' headers, and their ground truth against header and class names.

    Args:
        scenes: JSON file, a list of scenes: {"scene": name, "cube": settings, "ground_truth": settings or null,
            "class_names": [...], "labels": path or null, "like": name of the scene whose bands it has to have or null};
            relative paths start from the working folder

    Raises:
        ExceptionGroup: with a UserError of each scene that has a mistake.
    """
    errors = []
    every = json.loads(scenes.read_text())
    bands: dict[str, Bands | None] = {}
    for one in every:
        name = one["scene"]
        try:
            bands[name] = check_scene(
                one["cube"], one["ground_truth"], one["class_names"], name, one.get("labels")
            )
        except UserError as error:
            text = str(error).replace("<name>", name)
            errors.append(UserError(f"scenes.{name}: {text}"))
    for one in every:
        own, wanted = bands.get(one["scene"]), bands.get(one["like"])
        if own and wanted:
            try:
                check_bands(own, wanted, one["scene"])
            except UserError as error:
                errors.append(error)
    if errors:
        raise ExceptionGroup("scenes have mistakes", errors)


def check_bands(own: Bands, wanted: Bands, name: str) -> None:
    """Refuse a scene that lacks a good band of the scene whose model maps it."""
    pairs = [(b.nm[b.good], None if b.fwhm is None else b.fwhm[b.good]) for b in (wanted, own)]
    (nm, fwhm), (given, given_fwhm) = pairs
    source = f"scenes.{name}"
    band_weights(nm, given, wanted_fwhm=fwhm, given_fwhm=given_fwhm, source=source)


def check_scene(
    cube: dict[str, Any],
    ground_truth: dict[str, Any] | None,
    class_names: list[str],
    name: str,
    labels: str | None = None,
) -> Bands | None:
    """Check one scene; not one whose files do not exist yet, which the workflow itself makes.

    Args:
        cube: the scene's settings `cube`.
        ground_truth: its settings `ground_truth`; None where it has none.
        class_names: its classes, in order.
        name: its name.
        labels: file of labels that people give; None where it has none.

    Returns:
        Its bands; None where its files do not exist.

    Raises:
        UserError: for the first mistake.
    """
    path = cube["path"]
    if not all(Path(p).exists() for p in ([path] if isinstance(path, str) else path)):
        return None
    source = open_source(path, **{key: cube[key] for key in OPENED_WITH})
    bands = choose_bands(source, **{key: cube[key] for key in BANDS_BY})
    place, size = Grid(source.crs, source.transform), (source.shape[1], source.shape[2])
    if labels is not None:
        read_given_labels(Path(labels), class_names, place, size)
    if ground_truth is None:
        return bands
    truth = dict(ground_truth)
    known = read_ground_truth(
        truth.pop("path"),
        class_names=class_names,
        scene_shape=size,
        scene_grid=place,
        **truth,
    )
    shares = np.bincount(known.ravel(), minlength=len(class_names) + 1) / known.size
    parts = zip(("unlabelled", *class_names), shares, strict=True)
    log.info("%s: ground truth fits: %s", name, ", ".join(f"{n} {100 * s:.1f} %" for n, s in parts))
    return bands


if __name__ == "__main__":
    run(check_scenes)
