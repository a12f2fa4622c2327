"""Words meet spectra: a spectral library says what each pixel's material is, in all bands, without a picture.

The second witness beside CLIP. Each class's words stand for materials; a pixel is as near to a class as to the nearest
spectrum of its materials. No weights, no training, no GPU; it works where pixels are too coarse for any picture model.
"""

import csv
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from special_steps.core.atomic import atomic_write
from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.core.prediction import write_prediction_strips
from special_steps.core.store import (
    array_of,
    grid_of,
    open_store,
    read_array,
    read_pixels,
    tile_rows,
)
from special_steps.materials.library import material_spectra, own_spectra
from special_steps.materials.nearest import LEAST, Near, nearest, unit_length
from special_steps.materials.units import units_of
from special_steps.materials.words import ClassMaterials, materials_of_classes, sentences

log = logging.getLogger("special")

RANGE = (420, 2400)  # nm: library and atmosphere are known there
# nm, where the air's oxygen and water vapour absorb: what is left there is the correction's error
ABSORBED = ((755, 770), (930, 980), (1110, 1160), (1320, 1480), (1760, 2000))
FEWEST = 8  # bands; in fewer, shapes of spectra say little
COMPONENTS = 20  # of a view, that distances are measured in
SAMPLE = 20_000  # pixels that components and scales are found from
BLOCK = 4096  # pixels at a time
# degrees from a pixel to its nearest spectrum: 2 to 9 where Samson, MUUFL and the demo have what their classes say,
# 18 and more where a class that covers much of the scene is not named
FAR = 15.0
FLOOR = 0.02  # of the typical value: darker is noise, and its logarithm would be, too


class View(NamedTuple):
    """Spectra as points whose distances ignore brightness: of unit length, or logarithms without their mean."""

    logarithms: bool
    mean: np.ndarray  # (band,) float32
    axes: np.ndarray  # (band, component) float32
    library: tuple[np.ndarray, ...]  # by class that has spectra, (spectrum, component) float32
    scale: float  # median over pixels of the smallest distance


def usable_bands(wavelengths: np.ndarray, good: np.ndarray) -> np.ndarray:
    """The bands (band,) bool that reflectance is trusted in: good ones outside the air's absorption, 420-2400 nm."""
    inside = good & (wavelengths >= RANGE[0]) & (wavelengths <= RANGE[1])
    for low, high in ABSORBED:
        inside &= (wavelengths < low) | (wavelengths > high)
    return inside


def seen(spectra: np.ndarray, logarithms: bool) -> np.ndarray:
    """Spectra (spectrum, band) at any scale in a view, float32."""
    spectra = spectra.astype(np.float32)
    if not logarithms:
        return unit_length(spectra)
    typical = np.maximum(np.abs(spectra).mean(1, keepdims=True), LEAST)
    logs = np.log(np.maximum(spectra / typical, np.float32(FLOOR)))
    return logs - logs.mean(1, keepdims=True)


def fit_view(pixels: np.ndarray, library: Sequence[np.ndarray], logarithms: bool) -> View:
    """A view's components, from a sample of pixels and all of the library.

    Args:
        pixels: (pixel, band) float32, a sample.
        library: by class, (spectrum, band) float32 at the same bands.
        logarithms: which view.
    """
    points = seen(pixels, logarithms)
    known = [seen(spectra, logarithms) for spectra in library]
    both = np.concatenate([points, *known])
    mean = both.mean(0)
    axes = np.linalg.eigh(np.cov(both.T).reshape(len(mean), -1))[1][:, ::-1][:, :COMPONENTS]
    axes = axes.astype(np.float32)
    view = View(logarithms, mean, axes, tuple((spectra - mean) @ axes for spectra in known), 1.0)
    smallest = view_distances(view, pixels).min(0)
    return view._replace(scale=float(np.median(smallest)) or 1.0)


def view_distances(view: View, spectra: np.ndarray) -> np.ndarray:
    """Distance to the nearest library spectrum of each class that has any, (class, pixel) float32, in view.scale."""
    found = np.empty((len(view.library), len(spectra)), np.float32)
    for start in range(0, len(spectra), BLOCK):
        points = (seen(spectra[start : start + BLOCK], view.logarithms) - view.mean) @ view.axes
        lengths = np.einsum("ij,ij->i", points, points)
        for k, known in enumerate(view.library):
            squares = points @ (-2 * known.T) + np.einsum("ij,ij->i", known, known)
            found[k, start : start + len(points)] = squares.min(1) + lengths
    return np.sqrt(np.maximum(found, 0)) / np.float32(view.scale)


def class_evidence(views: Sequence[View], spectra: np.ndarray, known: np.ndarray) -> np.ndarray:
    """How well each class's materials explain the spectra: softmax of minus the views' mean distances.

    A class without spectra is as far from every pixel as the others are in the median: it is neither favoured nor
    ruled out.

    Args:
        views: of the classes that have spectra.
        spectra: (pixel, band) float32.
        known: (class,) bool: which classes have spectra, at least one.

    Returns:
        (class, pixel) float32, columns sum to 1.
    """
    distances = np.empty((len(known), len(spectra)), np.float32)
    distances[known] = sum(view_distances(view, spectra) for view in views) / len(views)
    distances[~known] = np.median(distances[known], 0)
    distances -= distances.min(0)
    found = np.exp(-distances, out=distances)
    return np.divide(found, found.sum(0), out=found)


def class_library(
    meant: Sequence[ClassMaterials],
    own: Mapping[str, Path],
    wavelengths: np.ndarray,
    fwhm: np.ndarray | None,
    good: np.ndarray,
) -> tuple[np.ndarray, list[np.ndarray | None], list[list[str]]]:
    """The bands to compare in, and each class's spectra there.

    Args:
        meant: the classes' materials.
        own: files of the user's spectra, by class.
        wavelengths: (band,) nm.
        fwhm: (band,) nm, or None.
        good: (band,) bool.

    Returns:
        (band,) bool; by class (spectrum, band) float32 in these bands, or None; and by class and spectrum the name of
        its material, or of the user's file.
    """
    bands = usable_bands(wavelengths, good)
    named = {material for one in meant for material in one.materials}
    made = material_spectra(sorted(named), wavelengths, fwhm)
    added = {name: own_spectra(file, wavelengths, fwhm) for name, file in own.items()}
    for known in (*made.values(), *added.values()):
        bands &= np.isfinite(known).all(0)
    library: list[np.ndarray | None] = []
    owners = []
    for name, materials, _ in meant:
        parts = [made[m] for m in materials] + ([added[name]] if name in added else [])
        library.append(np.concatenate(parts)[:, bands] if parts else None)
        whose = zip((*materials, Path(own.get(name, "")).name), parts, strict=False)
        owners.append([material for material, part in whose for _ in part])
    return bands, library, owners


def far_away(near: Sequence[Near], names: Sequence[str]) -> list[str]:
    """A sentence for each class whose pixels have no spectrum near them."""
    return [
        f"what the spectral library calls '{name}' is far from all of its spectra, {found.angle:.0f} degrees: a class"
        " may be missing, or the library lacks what lies there, or the reflectance is wrong; look at evidence.png,"
        " add the class, or give spectra of your own with spectra"
        for name, found in zip(names, near, strict=True)
        if found.angle is not None and found.angle > FAR
    ]


def learn_views(
    pixels: np.ndarray, library: Sequence[np.ndarray | None]
) -> tuple[tuple[View, ...], np.ndarray]:
    """Both views of a scene, and which classes have spectra.

    Args:
        pixels: (pixel, band) float32, a sample.
        library: by class, (spectrum, band) float32 at the same bands; None: no spectra.
    """
    given = [spectra for spectra in library if spectra is not None]
    known = np.array([spectra is not None for spectra in library])
    return tuple(fit_view(pixels, given, logarithms) for logarithms in (False, True)), known


def evidence(
    *,
    cube: Path,
    classes: dict[str, list[str]],
    materials: dict[str, list[str]],
    spectra: dict[str, str],
    units: str,
    out: Path,
    found: Path,
    table: Path,
) -> None:
    """Ask the spectral library about every pixel.

    Args:
        cube: store made by ingest.
        classes: class name -> synonyms.
        materials: class name or synonym -> materials that stand for it, in place of the table's.
        spectra: class name -> file of your own spectra, beside the materials'.
        units: what the scene's values are: reflectance (at any scale), radiance (or digital numbers, which are
            corrected roughly), or auto: by the marks of sun and air, and radiance is not compared.
        out: store to write, class probabilities.
        found: JSON file to write: what the words were taken for, the nearest materials by class, and warnings.
        table: CSV file to write: each class's mean spectrum, and the nearest of its library, band by band.
    """
    store = open_store(cube, reflectance=("band", "y", "x"), nodata=("y", "x"))
    array, nodata = array_of(store, "reflectance"), read_array(store, "nodata")
    meant = materials_of_classes(classes, materials, _embed, "materials")
    warnings = sentences(meant, "materials")
    if nodata.all():
        raise UserError(f"{cube}: no pixel has data; look at the scene and its no-data value")
    wavelengths, good = read_array(store, "band"), read_array(store, "good_band")
    fwhm = read_array(store, "fwhm") if "fwhm" in store else None
    (sample,) = read_pixels([array], nodata, SAMPLE)
    good &= (sample != 0).any(1)  # a band that is zero everywhere is dead, whatever the file says
    own = {name: Path(file) for name, file in spectra.items()}
    bands, library, owners = class_library(meant, own, wavelengths, fwhm, good)
    reason = None
    if sum(spectra is not None for spectra in library) < min(2, len(classes)):
        reason = "fewer than two classes have materials"
    elif bands.sum() < FEWEST:
        reason = f"the scene has {bands.sum()} bands that the library knows, {FEWEST} are needed"
    views: tuple[View, ...] = ()
    near: list[Near] = []
    said: dict[str, str | None] = {"kind": None, "reason": None, "correction": None}
    correction = None
    if reason is None:
        correction, said, reason = units_of(units, wavelengths, fwhm, sample, good, bands)
    if reason:
        warnings.append(f"the spectral library has no say on this scene: {reason}")
    else:
        pixels = np.ascontiguousarray(sample[bands].T)
        if correction:
            pixels = correction(pixels)
            warnings.append(
                "radiance was corrected roughly for the spectral library, by what the scene itself shows: look at"
                " evidence.png, and give reflectance if you have it"
            )
        views, known = learn_views(pixels, library)
        labels = class_evidence(views, pixels, known).argmax(0)
        near = nearest(pixels, labels, library, owners)
        warnings += far_away(near, list(classes))

    def strips() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for rows in tile_rows(len(nodata)):
            valid = ~nodata[rows]
            part = np.full((len(classes), *valid.shape), 1 / len(classes), np.float32)
            if views and valid.any():
                pixels = np.asarray(array[:, rows])[bands][:, valid].T
                if correction:
                    pixels = correction(pixels)
                part[:, valid] = class_evidence(views, pixels, known)
            yield part, ~valid

    write_prediction_strips(
        out,
        strips(),
        nodata.shape,
        step="evidence",
        settings={"classes": classes, "materials": materials, "spectra": spectra, "units": units},
        inputs=[cube, *map(Path, spectra.values())],
        class_names=list(classes),
        grid=grid_of(store),
    )
    for warning in warnings:
        log.warning(warning)
    with atomic_write(found) as file:
        told = _told(meant, bands, owners, near, warnings) | {"units": said}
        file.write_text(json.dumps(told, indent=1) + "\n")
    with atomic_write(table) as file:
        _write_table(file, list(classes), near, wavelengths[bands])


def _embed(words: Sequence[str]) -> np.ndarray:
    """Embeddings of words that the table does not have; torch is imported for them alone."""
    from special_steps.clip.model import load_clip
    from special_steps.clip.prompts import embed, template_set

    clip = load_clip("bundled", None)
    return embed(clip, list(words), template_set(None, clip))


def _told(
    meant: Sequence[ClassMaterials],
    bands: np.ndarray,
    owners: Sequence[Sequence[str]],
    near: Sequence[Near],
    warnings: Sequence[str],
) -> dict[str, Any]:
    """What fuse, signatures and summary read; `near` is empty where the library was not used."""
    classes: list[dict[str, Any]] = [
        {"class": one.name, "materials": list(one.materials), "spectra": len(whose)}
        | {"words": {phrase: f.how for phrase, f in one.found.items()}}
        for one, whose in zip(meant, owners, strict=True)
    ]
    for told, found in zip(classes, near, strict=False):
        told |= {"share": found.share, "angle": found.angle, "nearest": found.materials}
    used = {"used": bool(near), "bands": int(bands.sum())}
    return used | {"classes": classes, "warnings": list(warnings)}


def _write_table(path: Path, names: Sequence[str], near: Sequence[Near], nm: np.ndarray) -> None:
    """A row for each class and band; the spectrum of the library is made as bright as the pixels' mean."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["class", "material", "wavelength", "pixels", "library"])
        for name, found in zip(names, near, strict=False):
            if found.mean is not None and found.spectrum is not None:
                for values in zip(nm, found.mean, found.spectrum, strict=True):
                    writer.writerow([name, found.material, *(f"{value:.6g}" for value in values)])


if __name__ == "__main__":
    run(evidence)
