"""A page to look at: image, map, spectra, accuracy and warnings in one file that works from disk and by mail.

What the browser needs is in the file: pictures as data URIs, arrays compressed with zlib in base64, script and style. A
policy in its head forbids it the network. Its size has a bound, whatever the scene's: large scenes are thinned.
"""

import base64
import csv
import io
import json
import math
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr

from special_steps import __version__
from special_steps.core.assessed import headline
from special_steps.core.assessed import rows as assessed_rows
from special_steps.core.atomic import atomic_write
from special_steps.core.calibration import kind_of
from special_steps.core.classes import UNKNOWN
from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.core.palette import class_colours, rgb_of
from special_steps.core.prediction import check_reject, shown_labels
from special_steps.core.spectral import gap_of
from special_steps.core.stages import STAGES
from special_steps.core.store import (
    Grid,
    array_of,
    class_names,
    grid_of,
    open_store,
    read_array,
    tile_rows,
)
from special_steps.core.svg import Line, line_chart
from special_steps.io.class_spectra import ClassSpectra, read_class_spectra
from special_steps.io.geotiff import is_turned
from special_steps.io.ground_area import pixel_areas
from special_steps.materials.told import Nearest, as_bright, conflicts, nearest_words, read_evidence

TEMPLATE = Path(__file__).with_suffix(".html")
# The bound of the page's size. Each pixel costs at most 1 byte each for image, map (twice), confidence and
# disagreement; base64 makes 4 bytes of 3. Together at most (5 M + 1.8 M) * 4/3 = 9.1 MB, of noise.
PIXELS = 1_000_000
SPECTRA = 1_800_000  # bytes
READERS = 2  # chunks of the cube in memory
PANELS = 24  # classes whose spectra are drawn, the largest
MIXED = 5  # pairs of classes that are named as mixed up
CONFIDENCE = {
    "calibrated": "Confidence, calibrated without ground truth: of all pixels with 80 %, about 80 % should be mapped"
    " right. For a whole scene it can be 0.1 to 0.2 off.",
    "probability": "Confidence: the probability that the networks give the class, as they have it: not calibrated.",
    "margin": "Confidence: how far the most probable class is ahead of the second one (0 %: a tie). It is not"
    " calibrated: no probability of being right.",
}
CURVES = {  # columns of the tables of epochs: what they show
    "Loss": ["loss_agreed", "loss_soft", "loss_random", "loss_confident", "loss_hard"],
    "Pixels that keep their label": ["agreement"],
}
DASHES = ["none", "6 3", "2 3", "8 3 2 3", "1 2"]


class Layers(NamedTuple):
    """What is seen of a scene: every pixel, or one in the middle of each block of `step` x `step` pixels."""

    step: int
    image: np.ndarray  # (y, x, 3) uint8, mean of each block
    labels: np.ndarray  # (y, x) uint8, 1..K, K + 1 = unknown, 0 = no data
    confidence: np.ndarray  # (y, x) uint8, per cent
    calibrated: bool  # whether that is the probability of being right, else the margin
    disagreement: np.ndarray | None  # (y, x) uint8, per cent of the seeds' maps
    pixels: np.ndarray  # (row, K + 2) int64: pixels of each label in each row of the whole scene


class Spectra(NamedTuple):
    """Some pixels' spectra, on a grid."""

    step: int
    rows: np.ndarray  # (pixel,) int64
    columns: np.ndarray  # (pixel,) int64
    values: np.ndarray  # (pixel, band) float32
    probabilities: np.ndarray  # (pixel, class) float32


def thinning(height: int, width: int, most: int) -> int:
    """The smallest side of square blocks of which there are `most` at most."""
    step = max(1, math.isqrt(height * width // max(most, 1)))
    while -(-height // step) * -(-width // step) > most:
        step += 1
    return step


def middles(size: int, step: int) -> np.ndarray:
    """The pixel in the middle of each block along a side, the last block's within the scene."""
    return np.minimum(np.arange(0, size, step) + step // 2, size - 1)


def read_layers(
    rgb: zarr.Group, prediction: zarr.Group, seeds: Sequence[zarr.Group], reject: float | None
) -> Layers:
    """Image, map, confidence and disagreement, thinned, a row of chunks in memory.

    Args:
        rgb: store with `rgb`.
        prediction: store with `labels` and `margin`; its `confidence` comes first, where it has one.
        seeds: stores of the same scene with `labels`; disagreement needs two.
        reject: pixels of less confidence are unknown; None for none.
    """
    calibrated = "confidence" in prediction
    labels = array_of(prediction, "labels")
    margin = array_of(prediction, "confidence" if calibrated else "margin")
    colours = array_of(rgb, "rgb")
    height, width = labels.shape
    step = thinning(height, width, PIXELS)
    ys, xs = middles(height, step), middles(width, step)
    shape = (len(ys), len(xs))
    sums, counts = np.zeros((3, *shape)), np.zeros(shape)
    shown, sure = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    against = np.zeros(shape, np.uint16)
    kinds = array_of(prediction, "class").shape[0] + 2
    pixels = np.zeros((height, kinds), np.int64)
    across = np.arange(0, width, step)
    for rows in tile_rows(height):
        here = shown_labels(prediction, rows, reject)
        of_row = here + kinds * np.arange(len(here))[:, None]
        pixels[rows] = np.bincount(of_row.ravel(), minlength=kinds * len(here)).reshape(-1, kinds)
        blocks, first = np.unique(np.arange(rows.start, rows.stop) // step, return_index=True)
        valid = here > 0
        part = np.asarray(colours[:, rows]) * valid
        for to, values in ((sums, part), (counts, valid)):
            of_rows = np.add.reduceat(values, first, axis=-2, dtype=np.float64)
            to[..., blocks, :] += np.add.reduceat(of_rows, across, axis=-1)
        inside = np.flatnonzero((ys >= rows.start) & (ys < rows.stop))
        if len(inside):
            local = np.ix_(ys[inside] - rows.start, xs)
            shown[inside] = here[local]
            sure[inside] = np.round(
                100 * np.clip(np.nan_to_num(np.asarray(margin[rows])[local]), 0, 1)
            )
            best = np.asarray(labels[rows])[local]  # of unknown pixels, too
            for seed in seeds:
                against[inside] += np.asarray(array_of(seed, "labels")[rows])[local] != best
    image = np.round(255 * np.clip(sums / np.maximum(counts, 1), 0, 1)).astype(np.uint8)
    disagreement = None
    if len(seeds) > 1:
        disagreement = np.round(100 * against / len(seeds)).astype(np.uint8)
    image = image.transpose(1, 2, 0)
    return Layers(step, image, shown, sure, calibrated, disagreement, pixels)


def read_spectra(cube: zarr.Group, prediction: zarr.Group) -> Spectra:
    """Spectra and probabilities of pixels on a grid; two chunks in memory.

    Args:
        cube: store with `reflectance` and `good_band`; bands that are not good are left out.
        prediction: store with `labels` and `probabilities`.
    """
    reflectance, labels = array_of(cube, "reflectance"), array_of(prediction, "labels")
    likely, good = array_of(prediction, "probabilities"), read_array(cube, "good_band")
    classes, (height, width), bands = likely.shape[0], labels.shape, int(good.sum())
    step = thinning(height, width, SPECTRA // (bands + classes + 16))
    ys, xs = middles(height, step), middles(width, step)

    def read(tile: tuple[slice, slice]) -> tuple[np.ndarray, ...]:
        inside = [
            at[(at >= part.start) & (at < part.stop)]
            for at, part in zip((ys, xs), tile, strict=True)
        ]
        rows, columns = (each.ravel() for each in np.meshgrid(*inside, indexing="ij"))
        local = (rows - tile[0].start, columns - tile[1].start)
        some = np.asarray(labels[tile])[local] > 0
        rows, columns, local = rows[some], columns[some], (local[0][some], local[1][some])
        if not len(rows):
            empty = np.zeros((0, bands), np.float32), np.zeros((0, classes), np.float32)
            return rows, columns, *empty
        values = np.asarray(reflectance[(slice(None), *tile)])[:, *local][good]
        return rows, columns, values.T, np.asarray(likely[(slice(None), *tile)])[:, *local].T

    tiles = [(rows, columns) for rows in tile_rows(height) for columns in tile_rows(width)]
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(read, tiles))
    rows, columns, values, chances = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((columns, rows))
    return Spectra(step, rows[order], columns[order], values[order], chances[order])


def quantised(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spectra in 256 steps from each one's lowest to its highest value.

    Args:
        values: (pixel, band) float32.

    Returns:
        (pixel, band) uint8, (pixel,) float32 lowest and (pixel,) float32 height of all steps together.
    """
    if not values.size:
        empty = np.zeros(len(values), np.float32)
        return values.astype(np.uint8), empty, empty
    low, high = values.min(1), values.max(1)
    height = np.where(high > low, high - low, 1).astype(np.float32)
    steps = np.round(255 * (values - low[:, None]) / height[:, None])
    return steps.astype(np.uint8), low, height


def area_text(area: float, unit: str) -> str:
    """An area as people say it: m2, ha or km2; or pixels, where a pixel's size is not known."""
    if unit != "m2":
        return f"{area:,.0f} px"
    for name, size in (("km²", 1e6), ("ha", 1e4)):
        if area >= 10 * size:
            return f"{area / size:,.{0 if area >= 100 * size else 1}f} {name}"
    return f"{area:,.0f} m²"


def share_text(share: float) -> str:
    """A share in per cent, never 0 for something."""
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def packed(array: np.ndarray) -> str:
    """An array's bytes, little-endian, compressed by zlib, as base64."""
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return base64.b64encode(zlib.compress(array.tobytes(), 9)).decode()


def data_uri(image: np.ndarray, palette: Sequence[tuple[int, int, int]] | None = None) -> str:
    """An image (y, x, 3) uint8 as JPEG, or labels (y, x) uint8 with their colours as PNG."""
    from PIL import Image

    stream = io.BytesIO()
    picture = Image.fromarray(image)
    if palette is None:
        picture.save(stream, "JPEG", quality=88 if image.shape[0] * image.shape[1] < 4e5 else 80)
        return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
    picture.putpalette(bytes(value for colour in palette for value in colour))
    picture.save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def numbers(values: Iterable[float]) -> list[float | None]:
    """Numbers for JSON, four digits of each; null for NaN."""
    return [float(f"{v:.4g}") if math.isfinite(v) else None for v in values]


def table(header: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    """An HTML table; the first column names the rows, the others are numbers. Cells are HTML."""
    head = "".join(f'<th scope="col">{name}</th>' for name in header)
    body = "".join(
        f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in rest) + "</tr>"
        for first, *rest in rows
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}"><table><caption>{escape(caption)}'
        f"</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def section(name: str, title: str, body: str) -> str:
    """A part of the page, with its heading."""
    return (
        f'<section aria-labelledby="{name}"><h2 id="{name}">{escape(title)}</h2>{body}</section>\n'
    )


def paragraphs(*texts: str) -> str:
    """Plain texts, each a paragraph."""
    return "".join(f"<p>{escape(text)}</p>" for text in texts if text)


def swatch(colour: str) -> str:
    """A patch of a class's colour."""
    return f'<span class="swatch" style="background:{colour}"></span>'


def sayings(scene: str, gathered: Iterable[Mapping[str, Any]], kind: str) -> list[str]:
    """What steps had to say, each sentence once.

    Args:
        scene: its name, for sentences that say how to change its settings.
        gathered: what steps wrote, with lists of sentences or without.
        kind: of the sentences: warnings or notes.
    """
    lines = (
        " ".join(str(text).replace("<name>", scene).split()).removesuffix(".")
        for found in gathered
        for text in found.get(kind, [])
    )
    return list(dict.fromkeys(lines))


def sentences_part(name: str, title: str, texts: Sequence[str]) -> str:
    """A list of sentences, or nothing."""
    if not texts:
        return ""
    items = "".join(f"<li>{escape(text[:1].upper() + text[1:])}.</li>" for text in texts)
    return section(name, title, f'<ul class="sentences">{items}</ul>')


def accuracy_part(
    metrics: Sequence[Mapping[str, Any]],
    assessed: Sequence[dict[str, Any]],
    colours: Mapping[str, str],
    calibrated: bool,
    reject: float | None,
) -> str:
    """How right the map is, by reference points and by ground truth; without them, what that means.

    Args:
        metrics: as evaluate writes them, the shown map's last.
        assessed: as assess writes it, one or none.
        colours: by class.
        calibrated: whether the map's confidence is a probability.
        reject: pixels of less confidence are shown as unknown.
    """
    by_points = "".join(_by_points(found, colours) for found in assessed)
    if not metrics and by_points:
        return section("accuracy", "How right is the map?", by_points)
    if not metrics:
        what = "is the run's own estimate" if calibrated else "says how clearly one class won"
        text = (
            f"No ground truth was given, so nothing here proves how right the map is. Confidence {what}, which is not"
            " the same. To find out, compare some places of the map with what you know of them:"
            " python -m special_steps.reference_points draws them."
        )
        return section("accuracy", "How right is the map?", paragraphs(text))
    shown = metrics[-1]
    intro = (
        f"Compared with ground truth at {shown['pixels']:,} pixels, which the workflow did not use for anything else:"
        f" {100 * shown['oa']:.1f} % of them are mapped right (overall accuracy). The mean of the classes is"
        f" {100 * shown['aa']:.1f} % (average accuracy); kappa, which takes away what chance would get right, is"
        f" {shown['kappa']:.2f}."
    )
    if shown.get("learned_from"):
        intro += f" Left out: {shown['learned_from']:,} pixels with labels of yours, which the map has learned from."
    if reject is not None:
        intro += " Pixels that are shown as unknown count here by their most probable class."
    meaning = (
        "Producer's accuracy: of what is this class in the ground truth, how much the map finds. User's accuracy: of"
        " what the map calls this class, how much really is this."
    )
    rows = [
        (
            swatch(colours.get(one["class"], "#888")) + escape(one["class"]),
            *(_percent(one[key]) for key in ("producers_accuracy", "users_accuracy", "f1")),
            f"{one['pixels']:,}",
        )
        for one in shown["classes"]
    ]
    heads = ["class", "producer’s accuracy", "user’s accuracy", "F1", "reference pixels"]
    left = table(heads, rows, "Accuracy of each class")
    right = _mixed_up(shown)
    stages: dict[str, list[Mapping[str, Any]]] = {}
    for one in metrics:
        stages.setdefault(one["stage"], []).append(one)
    if len(stages) > 1:
        lines = [
            (
                f"{escape(stage)}<br><small>{escape(STAGES.get(stage, ''))}</small>",
                *(_over_seeds([one[key] for one in found]) for key in ("oa", "aa", "kappa")),
                str(len(found)),
            )
            for stage, found in stages.items()
        ]
        heads = ["step", "overall accuracy", "average accuracy", "kappa", "maps"]
        caption = "The maps on the way to this one (mean ± standard deviation over seeds)"
        right += table(heads, lines, caption)
    body = f'<div class="beside"><div>{left}</div><div>{right}</div></div>'
    body = by_points + paragraphs(intro, meaning) + body + _calibration(shown, calibrated)
    return section("accuracy", "How right is the map?", body)


def _calibration(shown: Mapping[str, Any], calibrated: bool) -> str:
    """How far confidence says what is right, and what is gained by leaving out what is not sure: two charts.

    Where there is no calibrated confidence, evaluate takes the probability of the best class in its place.
    """
    charts = []
    what = "confidence" if calibrated else "probability of the best class"
    bins = [one for one in shown.get("reliability") or () if one["pixels"]]
    if bins:
        x, y = _columns(bins, "confidence", "accuracy")
        ideal = Line(
            np.array([0.0, 1.0]), np.array([0.0, 1.0]), "stroke:var(--soft);stroke-dasharray:4 3"
        )
        text = f"On the dashed line, {what} says exactly how often the map is right; below the line it says too much."
        if shown.get("ece") is not None:
            text = (
                f"{what[:1].upper()}{what[1:]} and accuracy differ by {100 * shown['ece']:.1f} percentage points in the"
                f" mean (expected calibration error). {text}"
            )
        chart = line_chart(
            [ideal, Line(x, y, "stroke:var(--line0)")],
            label=f"Accuracy of pixels by {what}, beside the line of perfect agreement",
            x_title=what,
            y_title="share that is right",
            from_zero=True,
        )
        charts.append((f"Is the {what} true?", chart, text))
    curve = shown.get("reject_curve") or ()
    if len(curve) > 1:
        x, y = _columns(curve, "kept", "accuracy")
        half = float(np.interp(0.5, x, y))
        chart = line_chart(
            [Line(x, y, "stroke:var(--line0)")],
            label="Accuracy of the surest pixels, by the share of pixels that is kept",
            x_title="share of pixels kept, the surest first",
            y_title="share of them that is right",
        )
        text = (
            f"Of the surest half of the pixels {100 * half:.1f} % are right, of all {100 * y[-1]:.1f} %."
            + " The setting reject leaves unsure pixels out as unknown." * calibrated
        )
        charts.append(("What if unsure pixels are left out?", chart, text))
    panels = "".join(
        f'<article class="panel"><h3>{escape(title)}</h3>{chart}<p>{escape(text)}</p></article>'
        for title, chart, text in charts
    )
    return f'<div class="panels">{panels}</div>' if panels else ""


def _columns(rows: Sequence[Mapping[str, Any]], x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
    """Two columns of a table, sorted by the first; without rows that lack the second."""
    pairs = sorted((float(row[x]), float(row[y])) for row in rows if row[y] is not None)
    first, second = np.array(pairs).reshape(-1, 2).T
    return first, second


def _by_points(found: dict[str, Any], colours: Mapping[str, str]) -> str:
    """What a sample of reference points says, with its uncertainty."""
    line = headline(found)
    text = (
        f"By reference points: {line}. In brackets is where the true value lies with 95 % confidence. The area is"
        " what the class covers on the ground, corrected for the map's mistakes; beside it, what the map has."
    )
    head, *lines = assessed_rows(found)
    cells = (
        (swatch(colours.get(name, "#888")) + escape(name), *map(escape, rest))
        for name, *rest in lines
    )
    return paragraphs(text) + table(
        list(map(escape, head)), cells, "Accuracy and areas by reference points"
    )


def _mixed_up(shown: Mapping[str, Any]) -> str:
    """The most frequent mistakes, in words."""
    matrix = np.array(shown.get("confusion", [[0]]))
    np.fill_diagonal(matrix, 0)
    names = [one["class"] for one in shown["classes"]]
    worst = np.argsort(-matrix, axis=None, kind="stable")[:MIXED]
    pairs = [divmod(int(i), len(matrix)) for i in worst if matrix.flat[i] > 0]
    if not pairs:
        return ""
    items = "".join(
        f"<li>{escape(names[true])} is mapped as {escape(names[called])}: {matrix[true, called]:,} pixels</li>"
        for true, called in pairs
    )
    return f'<p class="soft">Mixed up most often:</p><ul>{items}</ul>'


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _over_seeds(values: Sequence[float]) -> str:
    mean = f"{np.mean(values):.3f}"
    return f"{mean} ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else mean


def spectra_part(
    names: Sequence[str],
    colours: Sequence[str],
    spectra: ClassSpectra,
    evidence: Mapping[str, Mapping[str, Any]],
    nearest: Mapping[str, Nearest],
) -> str:
    """A panel for each class: mean and spread of its spectra, and the nearest one of the spectral library.

    Args:
        names: the classes.
        colours: their colours.
        spectra: of the classes, in good bands.
        evidence: what evidence.json says of each class.
        nearest: the library's nearest spectra.
    """
    largest = np.argsort(-spectra.pixels, kind="stable")[:PANELS]
    panels = []
    for i in sorted(largest):
        name = names[i]
        if not spectra.pixels[i]:
            panels.append(_panel(name, colours[i], "<p>The map has no pixel of this class.</p>"))
            continue
        nm, mean = spectra.wavelengths, spectra.mean[i]
        lines = [Line(nm, mean, f"stroke:{colours[i]}", spectra.spread[i])]
        label = f"Mean spectrum of {name} with its standard deviation"
        if name in nearest:
            near = nearest[name]
            style = "stroke:currentColor;stroke-dasharray:5 3"
            lines.append(Line(near.wavelengths, as_bright(near, nm, mean), style))
            label += ", and the nearest spectrum of the library"
        chart = line_chart(
            lines,
            label=label,
            x_title="wavelength (nm)",
            y_title="the scene’s values",
            gap=gap_of(nm),
            from_zero=True,
        )
        text = escape(nearest_words(evidence.get(name)))
        panels.append(_panel(name, colours[i], f"{chart}<p>{text}</p>"))
    texts = [
        "Line: mean of all pixels that the map calls this class. Band: one standard deviation to each side. The numbers"
        " are in spectra.csv beside this page."
    ]
    if nearest:
        texts.append(
            "Dashes: the nearest spectrum of the spectral library to what the library alone calls this class, made as"
            " bright. Where line and dashes differ in shape, the class may hold something else."
        )
    if len(names) > PANELS:
        texts.append(f"The {PANELS} largest of {len(names)} classes are drawn.")
    body = paragraphs(*texts) + f'<div class="panels">{"".join(panels)}</div>'
    return section("spectra", "What the classes look like in all bands", body)


def _panel(name: str, colour: str, body: str) -> str:
    return f'<article class="panel"><h3>{swatch(colour)}{escape(name)}</h3>{body}</article>'


def curves_part(tables: Mapping[str, Sequence[Mapping[str, str]]]) -> str:
    """How the trainings went.

    Args:
        tables: of each seed: rows with epoch, and what the training logged.
    """
    charts = []
    for title, columns in CURVES.items():
        lines, names = [], []
        for column in columns:
            for at, rows in enumerate(tables.values()):
                values = np.array([float(row.get(column) or "nan") for row in rows])
                if np.isfinite(values).any():
                    epochs = np.array([float(row["epoch"]) for row in rows])
                    hue = f"stroke:var(--line{columns.index(column) % 5})"
                    lines.append(Line(epochs, values, f"{hue};stroke-dasharray:{DASHES[at % 5]}"))
                    names.append(column)
        if lines:
            kinds = dict.fromkeys(names)
            key = "".join(
                f'<li><span class="stroke" style="background:var(--line{columns.index(name) % 5})"></span>'
                f"{name.removeprefix('loss_')}</li>"
                for name in kinds
            )
            chart = line_chart(
                lines,
                label=f"{title} by epoch",
                x_title="epoch",
                y_title="",
                whole_x=True,
                size=(420, 200),
            )
            key = f'<ul class="key">{key}</ul>' if len(kinds) > 1 else ""
            charts.append(f'<article class="panel"><h3>{title}</h3>{chart}{key}</article>')
    if not charts:
        return ""
    seeds = (
        f"One line for each of {len(tables)} seeds, told apart by dashes."
        if len(tables) > 1
        else ""
    )
    texts = ["No ground truth is involved here; the map is the last epoch’s.", seeds]
    body = paragraphs(*texts) + f'<div class="panels">{"".join(charts)}</div>'
    return section("curves", "How the training went", body)


def config_text(config: Mapping[str, Any]) -> str:
    """The config as YAML that people write."""
    import yaml

    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100)


def made_part(config: Mapping[str, Any], stage: str, versions: Mapping[str, str]) -> str:
    """What was run, and how to run it again."""
    names = ", ".join(f"{name} {number}" for name, number in versions.items())
    before = (
        f"The map is {STAGES.get(stage, stage)}. It was made by SPECIAL {__version__}, with {names}. To run it again,"
        " save these settings as my.yaml and run: "
    )
    return section(
        "made",
        "How it was made",
        f"<p>{escape(before)}<code>snakemake --cores all --configfile my.yaml</code></p>"
        '<p><button type="button" id="copy">Copy the settings</button> <span id="copied" role="status"></span></p>'
        f'<pre id="config" tabindex="0" aria-label="Settings of this run, YAML">{escape(config_text(config))}</pre>',
    )


def legend_rows(
    names: Sequence[str], colours: Sequence[str], pixels: np.ndarray, areas: np.ndarray, unit: str
) -> str:
    """A row with a switch for each class, and one for no data.

    Args:
        names: the K classes, and unknown where pixels are left out as such.
        colours: theirs.
        pixels: (label,) of each, 0 = no data.
        areas: the same in `unit`, m2 or pixels.
        unit: which.
    """
    whole = max(int(pixels[1:].sum()), 1)
    rows = []
    for i, (name, colour) in enumerate(zip(names, colours, strict=True), 1):
        rows.append(
            f'<tr><th scope="row"><label><input type="checkbox" checked data-class="{i}">{swatch(colour)}'
            f"{escape(name)}</label></th><td>{share_text(pixels[i] / whole)}</td>"
            f"<td>{area_text(areas[i], unit)}</td></tr>"
        )
    if pixels[0]:
        rows.append(
            '<tr><th scope="row"><span class="none">no data</span></th><td></td>'
            f"<td>{area_text(areas[0], unit)}</td></tr>"
        )
    return "".join(rows)


def for_script(
    layers: Layers,
    spectra: Spectra,
    means: ClassSpectra,
    names: Sequence[str],
    colours: Sequence[str],
    grid: Grid,
    shape: tuple[int, int],
    reject: float | None,
) -> dict[str, Any]:
    """What the page's script reads, JSON-able."""
    steps, low, height = quantised(spectra.values)
    chances = np.round(255 * spectra.probabilities).astype(np.uint8)
    places = np.stack([spectra.rows, spectra.columns], -1).astype(np.uint32)
    maps = {"labels": layers.labels, "confidence": layers.confidence}
    if layers.disagreement is not None:
        maps["disagreement"] = layers.disagreement
    return {
        "height": shape[0],
        "width": shape[1],
        "step": layers.step,
        "rows": layers.labels.shape[0],
        "columns": layers.labels.shape[1],
        "transform": grid.transform,
        "names": list(names),
        "colours": list(colours),
        "reject": reject,
        "maps": {name: packed(array) for name, array in maps.items()},
        "wavelengths": numbers(means.wavelengths),
        "gap": gap_of(means.wavelengths),
        "mean": [numbers(values) for values in means.mean],
        "spread": [numbers(values) for values in means.spread],
        "spectra": {
            "step": spectra.step,
            "count": len(steps),
            "places": packed(places),
            "values": packed(steps),
            "low": packed(low.astype(np.float32)),
            "height": packed(height),
            "probabilities": packed(chances),
        },
    }


def filled(template: str, parts: Mapping[str, str]) -> str:
    """The template with each {{name}} replaced, once: what a part brings is not looked at again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def page(
    *,
    cube: Path,
    rgb: Path,
    prediction: Path,
    seeds: list[Path],
    map_id: dict[str, Any],
    spectra: Path,
    evidence: list[Path],
    told: list[Path],
    metrics: list[Path],
    assessment: list[Path],
    tables: dict[str, list[Path]],
    config: dict[str, Any],
    colours: dict[str, str],
    reject: float | None,
    out: Path,
) -> None:
    """Write a page with the map and all that is known of it.

    Args:
        cube: store made by ingest.
        rgb: store made by rgb.
        prediction: store with the map's `labels`, `margin` and `probabilities`.
        seeds: stores of the seeds' maps, for where they disagree.
        map_id: which map it is: scene, run, stage, seed.
        spectra: CSV file made by spectra.
        evidence: JSON and CSV file made by evidence, or none.
        told: other JSON files with `warnings`, and with `notes` where there is something else to say.
        metrics: JSON files made by evaluate, the map's last; none without ground truth.
        assessment: JSON file made by assess, or none.
        tables: of each seed, CSV files of its training in order.
        config: the settings that the run can be repeated with.
        colours: the user's own colours (#rrggbb) of classes.
        reject: pixels of less confidence are unknown, not of their most probable class; null for none.
        out: HTML file to write.

    Raises:
        UserError: for stores of another size, and for `reject` where the confidence is not calibrated.
    """
    scene = map_id["scene"]
    pixels = open_store(cube, reflectance=("band", "y", "x"), good_band=("band",))
    image = open_store(rgb, rgb=("band", "y", "x"))
    map_dims = {"labels": ("y", "x"), "margin": ("y", "x"), "probabilities": ("class", "y", "x")}
    predicted = open_store(prediction, **map_dims)
    others = [open_store(path, labels=("y", "x")) for path in seeds]
    shape = array_of(predicted, "labels").shape
    sizes = {path: array_of(store, name).shape[-2:] for path, store, name in (
        (cube, pixels, "reflectance"), (rgb, image, "rgb"),
        *((path, store, "labels") for path, store in zip(seeds, others, strict=True)),
    )}  # fmt: skip
    for path, size in sizes.items():
        if size != shape:
            raise UserError(
                f"{path}: {size[0]} x {size[1]} pixels, but {prediction} has {shape[0]} x {shape[1]};"
                " delete both and run again"
            )
    check_reject(prediction, predicted, reject)
    names, grid = class_names(predicted), grid_of(predicted)
    palette = class_colours(names, colours)
    listed, shown = names, palette
    if reject is not None:
        listed = [*names, UNKNOWN]
        shown = class_colours(listed, colours, unknown=True)
    layers = read_layers(image, predicted, others, reject)
    counts = layers.pixels.sum(0)
    row_areas = pixel_areas(grid, (shape[0], shape[1]))
    unit = "pixels" if row_areas is None else "m2"
    areas = counts if row_areas is None else row_areas @ layers.pixels
    means = read_class_spectra(spectra, names).good_bands()
    known, nearest = read_evidence(evidence)
    scores = [json.loads(path.read_text()) for path in metrics]
    assessed = [json.loads(path.read_text()) for path in assessment]
    others_said = [json.loads(path.read_text()) for path in (*evidence[:1], *told)]
    gathered = [pixels.attrs.asdict(), *others_said, *scores, *assessed]
    gathered.append({"warnings": conflicts(names, means, nearest)})
    warnings, notes = (sayings(scene, gathered, kind) for kind in ("warnings", "notes"))
    provenance: Any = predicted.attrs["provenance"]
    versions = {k: v for k, v in provenance.get("versions", {}).items() if k != "special"}
    trainings = {
        seed: [row for path in files for row in _rows(path)] for seed, files in tables.items()
    }
    data = for_script(
        layers,
        read_spectra(pixels, predicted),
        means,
        names,
        shown,
        grid,
        (shape[0], shape[1]),
        reject,
    )
    parts = {
        "title": escape(f"Land cover of {scene}, run {map_id['run']}"),
        "scene": escape(scene),
        "about": escape(_about(map_id, shape, row_areas, len(means.wavelengths), layers, grid)),
        "count": _link(warnings),
        "image": data_uri(layers.image),
        "map": data_uri(layers.labels, [(255, 255, 255), *map(rgb_of, shown)]),
        "aspect": f"{layers.labels.shape[1] / layers.labels.shape[0]:.4f}",
        "disagreement": "" if layers.disagreement is not None else "hidden disabled",
        "seeds": str(len(others)),
        "confidence": CONFIDENCE[kind_of(predicted)],
        "warnings": sentences_part("warnings", "What you should know", warnings)
        + sentences_part("notes", "Notes", notes),
        "legend": legend_rows(listed, shown, counts, areas, unit),
        "unknown": _unknown(reject),
        "parts": "".join(
            [
                accuracy_part(
                    scores,
                    assessed,
                    dict(zip(names, palette, strict=True)),
                    layers.calibrated,
                    reject,
                ),
                spectra_part(names, palette, means, known, nearest),
                curves_part(trainings),
                made_part(config, map_id["stage"], versions),
            ]
        ),
        "data": json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
    }
    with atomic_write(out) as file:
        file.write_text(filled(TEMPLATE.read_text(encoding="utf-8"), parts), encoding="utf-8")


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def _about(
    map_id: Mapping[str, Any],
    shape: Sequence[int],
    row_areas: np.ndarray | None,
    bands: int,
    layers: Layers,
    grid: Grid,
) -> str:
    """What the page shows, in a line or two."""
    size = "" if row_areas is None else f" of {math.sqrt(np.median(row_areas)):.3g} m"
    seed = f", seed {map_id['seed']}" if map_id.get("seed") is not None else ""
    thinned = f" Shown: one of {layers.step} x {layers.step} pixels." if layers.step > 1 else ""
    return (
        f"Run {map_id['run']}{seed}: {shape[1]:,} x {shape[0]:,} pixels{size}, {bands} bands,"
        f" {layers.pixels.shape[1] - 2} classes.{thinned}{directions(grid)}"
    )


def directions(grid: Grid) -> str:
    """Where north is on the page, which shows the scene's own grid; nothing where it is up."""
    if grid.transform is None or not (is_turned(grid) or grid.transform[4] > 0):
        return ""
    a, b, _, d, e, _ = grid.transform
    mirrored = a * e - b * d
    # what a step north is in columns and rows, as an angle from up to the right
    angle = math.degrees(math.atan2(-b / mirrored, -a / mirrored))
    where = f"{abs(angle):.0f}° to the {'right' if angle > 0 else 'left'} of up"
    where = "down" if abs(angle) > 179.5 else where
    return (
        f" The page shows the scene’s own grid, as it was recorded: north is {where}"
        f"{', and the picture is mirrored' * (mirrored > 0)}. The coordinates of a pixel are right all the same."
        + " The GeoTIFFs are turned north up, unless the settings say otherwise."
        * is_turned(grid)
    )


def _unknown(reject: float | None) -> str:
    """What the legend's last line means."""
    if reject is None:
        return ""
    return (
        f'<p class="soft" id="unknown">Unknown: confidence under {100 * reject:g} %. The areas of the classes are'
        " without these pixels.</p>"
    )


def _link(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    things = "one thing" if len(warnings) == 1 else f"{len(warnings)} things"
    return f'<a class="note" href="#warnings">There {"is" if len(warnings) == 1 else "are"} {things} to know first</a>'


if __name__ == "__main__":
    run(page)
