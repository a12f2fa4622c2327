"""A scene is mapped by what was learned on another one: no words, no CLIP, no library, no training."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from special_steps.classifier.checkpoint import load_weights
from special_steps.classifier.gaussian import class_moments, fit_views, nearest_distances, project
from special_steps.classifier.learned import Learned, predict_image, read_learned
from special_steps.classifier.mambahsi import MambaHSI, predict
from special_steps.classifier.tiles import Scene, blended, largest_tile_side
from special_steps.core.atomic import atomic_write
from special_steps.core.calibration import confidence, known_of
from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.core.matched import Matched, bands_of, open_matched
from special_steps.core.notes import gathered
from special_steps.core.prediction import averaged, write_prediction_strips
from special_steps.core.spectral import stretch
from special_steps.core.store import (
    array_of,
    class_names,
    open_store,
    read_array,
    read_pixels,
    tile_rows,
)
from special_steps.core.tensors import find_device
from special_steps.core.tiling import Tile
from special_steps.materials.alike import Sample, check_alike

log = logging.getLogger("special")

SAMPLE = 20_000  # pixels of each scene that are compared
FARTHEST = 0.99  # of the pixels that were learned from are nearer to a class than the distance that counts as far
MANY = 0.1  # of the new pixels that may be far; a hundredth is, in the scene that was learned from


def far_share(known: np.ndarray, labels: np.ndarray, classes: int, new: np.ndarray) -> float:
    """Share of new spectra that lie far from all that was learned from.

    Far: farther from every class (Mahalanobis distance among the components of both views) than nearly all pixels of
    the scene that was learned from are.

    Args:
        known: (pixel, band) float32 in [0, 1], of the scene that was learned from.
        labels: (pixel,) their classes, from 0.
        classes: K.
        new: (pixel, band) float32 in [0, 1].
    """
    views = fit_views(known)
    joint = project(views, known)
    moments = class_moments(joint, labels, classes)
    limit = np.quantile(nearest_distances(moments, joint), FARTHEST)
    return float((nearest_distances(moments, project(views, new)) > limit).mean())


def predict_tile(
    features: np.ndarray, valid: np.ndarray, learned: Learned | None, networks: Sequence[MambaHSI]
) -> np.ndarray:
    """Class probabilities of a tile as a run's own map has them: half co-training's, half the mean of the networks'.

    Args:
        features: (band, y, x) float32 in [0, 1], 0 where no data.
        valid: (y, x) bool, pixels with data.
        learned: by co-training; None for networks alone.
        networks: one of each seed; none for co-training alone.

    Returns:
        (class, y, x) float32.
    """
    seen = [predict(network, features) for network in networks]
    if learned is None:
        return averaged(seen)
    classes = len(learned.ensembles[0].present)
    found = np.full((classes, *valid.shape), 1 / classes, np.float32)
    predict_image(learned, features, valid, found)
    return averaged(seen, found) if seen else found


def scene_of(matched: Matched, limits: tuple[float, float], tile: int | None) -> Scene:
    """A matched cube as the networks see a scene, stretched as that which they learned from."""

    def read(part: Tile) -> torch.Tensor:
        features = stretch(matched.read(part), limits)
        features[:, matched.nodata[part]] = 0
        return torch.from_numpy(features)[None]

    bands = matched.read((slice(0, 1), slice(0, 1))).shape[0]
    shape = (matched.nodata.shape[0], matched.nodata.shape[1])
    return Scene(read, bands, matched.nodata, tile or largest_tile_side(bands, shape))


def apply(
    *,
    cube: Path,
    scene: str,
    units: str,
    features: Path,
    source: Path,
    source_scene: str,
    source_units: str,
    cotrain: Path | None,
    networks: list[Path],
    classifier: dict[str, int],
    tile: int | None,
    given: Path | None,
    out: Path,
    told: Path,
) -> None:
    """Map a scene by what another one's run has learned.

    Args:
        cube: store of the scene, made by ingest.
        scene: its name, for messages.
        units: what the config says of its values.
        features: store that was learned from, made by features or together.
        source: store of the map that the run made of it, for class names and labels.
        source_scene: its name, for messages.
        source_units: what the config says of its values.
        cotrain: safetensors file made by cotrain; null for a method without it.
        networks: safetensors files of the trained networks; [] for co-training alone.
        classifier: hidden, tokens.
        tile: side in pixels of what a network sees at a time; null for what memory allows.
        given: store of labels that people gave of the scene, which its model has learned from: certain; null for none.
        out: store to write, class probabilities, and how sure the map is, by what is known of the source.
        told: JSON file to write: share of the pixels that are far from all that was learned from, and warnings.
    """
    image = ("y", "x")
    prepared = open_store(features, features=("band", *image), band=("band",), nodata=image)
    mapped = open_store(source, labels=image, nodata=image)
    names, bands, limits = class_names(mapped), bands_of(prepared), _limits(features)
    learned = None if cotrain is None else _learned(cotrain, names)
    models = [_network(path, len(bands.nm), len(names), classifier) for path in networks]
    with gathered() as warnings:
        matched = open_matched(cube, bands)
        if matched.resampled:
            log.info("%s: bands differ from those of %s: resampled", cube, features)
        spectra = matched.sample(SAMPLE)
        known, labels = read_pixels(
            [array_of(prepared, "features"), read_array(mapped, "labels")[None]],
            read_array(prepared, "nodata"),
            SAMPLE,
        )
        known = np.ascontiguousarray(known.T)
        low, high = limits
        check_alike(
            Sample(source_scene, source_units, known * np.float32(high - low) + np.float32(low)),
            Sample(scene, units, spectra),
            bands,
        )
        far = far_share(known, labels[0].astype(int) - 1, len(names), stretch(spectra, limits))
        if far > MANY:
            log.warning(
                "%.0f %% of the pixels are unlike all that the model has learned from in %s (there 1 %% are): what they"
                " are called may be wrong; look at the map, or map the scene by itself, without apply",
                100 * far, source_scene,
            )  # fmt: skip
    log.info("%.1f %% of the pixels are far from all that was learned from", 100 * far)
    of_source = known_of(mapped)
    part = scene_of(matched, limits, tile)
    probabilities = blended(
        part,
        lambda t: predict_tile(part.read(t)[0].numpy(), ~matched.nodata[t], learned, models),
    )
    rows = tile_rows(len(matched.nodata))
    write_prediction_strips(  # where a calibrated confidence comes in: that of pixels whose witnesses nobody asked
        out,
        ((probabilities[:, r], matched.nodata[r]) for r in rows),
        matched.nodata.shape,
        step="apply",
        settings={
            "classifier": classifier,
            "tile": tile,
            "units": units,
            "known": of_source and of_source._asdict(),
        },
        inputs=[cube, features, source, *networks, *(path for path in (cotrain, given) if path)],
        class_names=names,
        grid=matched.grid,
        confidence=lambda found, _: confidence(found, of_source),
        given=None if given is None else read_array(open_store(given), "labels"),
    )
    with atomic_write(told) as file:
        file.write_text(json.dumps({"far": far, "warnings": warnings}, indent=1) + "\n")


def _limits(features: Path) -> tuple[float, float]:
    """The values that became 0 and 1 in the scene that was learned from."""
    limits: Any = open_store(features).attrs["limits"]
    return float(limits[0]), float(limits[1])


def _learned(path: Path, names: list[str]) -> Learned:
    learned, own = read_learned(path)
    if own != names:
        raise UserError(f"{path}: classes {', '.join(own)}, not {', '.join(names)}; delete it")
    if not learned.ensembles:
        raise UserError(
            f"{path}: co-training had nothing to learn from, as its pseudo-labels have no margin; use other words, or"
            " labels of your own, in the scene that it comes from"
        )
    return learned


def _network(path: Path, bands: int, classes: int, classifier: dict[str, int]) -> MambaHSI:
    model = MambaHSI(bands, classes, **classifier)
    load_weights(path, model)
    return model.to(find_device())


if __name__ == "__main__":
    run(apply)
