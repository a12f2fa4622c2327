"""The maps that people open: GeoTIFFs of classes, confidence and probabilities, and a picture beside the RGB."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import zarr

from special_steps.core.atomic import atomic_write
from special_steps.core.calibration import kind_of
from special_steps.core.classes import UNKNOWN
from special_steps.core.cli import run
from special_steps.core.palette import NO_DATA, class_colours, rgb_of
from special_steps.core.prediction import check_reject, shown_labels
from special_steps.core.store import (
    array_of,
    class_names,
    grid_of,
    open_store,
    read_array,
    tile_rows,
)
from special_steps.io.class_map import UNKNOWN_TAG
from special_steps.io.geotiff import map_grid, moved, strips_of, write_raster
from special_steps.io.legend import attribute_table, raster_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger("special")

STEPS = 250  # of a probability in the map's bytes: 1 is stored as 250, and one step is 0.004
MEANINGS = {
    "calibrated": "probability of being right",
    "probability": "the networks' own probability",
    "margin": "best minus second best class probability",
}
EMPTY = 255  # byte of pixels without data


def as_bytes(probabilities: np.ndarray, nodata: np.ndarray) -> np.ndarray:
    """Probabilities in steps of 0.004, a quarter of float32's size.

    Args:
        probabilities: (class, y, x) float32 in [0, 1].
        nodata: (y, x) bool.

    Returns:
        (class, y, x) uint8, 0 to 250; 255 where no data.
    """
    steps = np.rint(probabilities * np.float32(STEPS)).clip(0, STEPS).astype(np.uint8)
    steps[:, nodata] = EMPTY
    return steps


def probability_strips(store: zarr.Group, pixel: np.ndarray | None) -> Iterator[np.ndarray]:
    """The probabilities of a store as bytes on the grid of its maps, in strips.

    Args:
        store: with `probabilities` and `nodata`.
        pixel: which pixel of the scene lies at each place (y, x), -1 for none; None for the scene's own grid.

    Yields:
        (class, rows, x) uint8, top to bottom.
    """
    probabilities, nodata = array_of(store, "probabilities"), array_of(store, "nodata")
    parts = (
        as_bytes(np.asarray(probabilities[:, rows]), np.asarray(nodata[rows]))
        for rows in tile_rows(nodata.shape[0])
    )
    if pixel is None:
        yield from parts
        return
    whole = np.empty(probabilities.shape, np.uint8)  # a strip of a turned map may cross the scene
    for rows, part in zip(tile_rows(nodata.shape[0]), parts, strict=True):
        whole[:, rows] = part
    for rows in tile_rows(len(pixel)):
        yield np.stack([moved(one, pixel[rows], EMPTY) for one in whole])


def map_figure(
    image: np.ndarray,
    labels: np.ndarray,
    confidence: np.ndarray,
    class_names: list[str],
    palette: list[str],
    meaning: str,
) -> "Figure":
    """The RGB image, the class map with its legend, and the confidence, in a row (wide scenes: a column).

    Args:
        image: (y, x, 3) float32 in [0, 1].
        labels: (y, x) uint8, 1..K, 0 = no data.
        confidence: (y, x) float32 in [0, 1], NaN = no data.
        class_names: the K classes, and `unknown` where the map has it.
        palette: their colours, #rrggbb.
        meaning: what the confidence is.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    height, width = labels.shape
    counts = np.bincount(labels.ravel(), minlength=len(palette) + 1)[1:]
    handles = [
        Patch(color=colour, label=f"{name} ({_percent(count, counts.sum())})")
        for colour, name, count in zip(palette, class_names, counts, strict=True)
    ]
    if not labels.all():
        handles.append(Patch(facecolor=NO_DATA, edgecolor="grey", label="no data"))
    wide = width > 2 * height
    # inches, of one panel; a title needs 3.2
    side = 13.0 if wide else float(np.clip(11 * width / height, 3.2, 5))
    tall = float(np.clip(side * height / width, 1.0, 11.0))
    shape = (side, 3 * (tall + 0.5)) if wide else (3 * side + 0.7, tall + 0.5)
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(len(handles), int(shape[0] / (0.085 * longest + 0.6))))
    lines = -(-len(handles) // columns)
    figure = Figure(figsize=(shape[0], shape[1] + 0.24 * lines + 0.2), layout="compressed")
    axes = figure.subplots(*((3, 1) if wide else (1, 3)))

    step = -(-max(height, width) // 2000)  # a picture, not the data: thin out large scenes
    thin = (slice(None, None, step), slice(None, None, step))
    axes[0].imshow(np.where(labels[thin][..., None] > 0, image[thin], 1))
    axes[0].set_title("Image", fontsize=10)
    axes[1].imshow(
        labels[thin],
        cmap=ListedColormap([NO_DATA, *palette]),
        vmin=-0.5,
        vmax=len(palette) + 0.5,
        interpolation="nearest",
    )
    axes[1].set_title("Land cover", fontsize=10)
    shown = axes[2].imshow(confidence[thin], cmap="viridis", vmin=0, vmax=1)
    axes[2].set_title("Confidence", fontsize=10)
    figure.colorbar(shown, ax=axes[2], label=meaning, fraction=0.05, pad=0.02)
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
    return figure


def _percent(part: int, whole: int) -> str:
    share = 100 * part / max(whole, 1)
    return "<1 %" if 0 < share < 0.5 else f"{share:.0f} %"


def export(
    *,
    prediction: Path,
    rgb: Path,
    class_map: Path,
    confidence_map: Path,
    probability_map: Path,
    style: Path,
    picture: Path,
    colours: dict[str, str],
    networks: int | None,
    reject: float | None,
    north_up: bool | None,
) -> None:
    """Write a scene's maps.

    All GeoTIFFs are cloud-optimised: tiled, deflated, with overviews.

    Args:
        prediction: store with `probabilities`, `labels` and `margin`; where it also has `confidence`, which is
            calibrated, that is the confidence.
        rgb: the scene's RGB store.
        class_map: GeoTIFF to write: uint8 classes from 1 with colours, 0 = no data; the classes' names are in its
            header (`CLASS_1` and so on). A side file `.aux.xml` holds GDAL's attribute table of values, names, colours.
        confidence_map: GeoTIFF to write: float32, NaN = no data.
        probability_map: GeoTIFF to write: a band for each class, uint8 with scale 0.004, 255 = no data.
        style: QGIS's style of the class map to write, `.qml`.
        picture: PNG to write: image, class map and confidence side by side.
        colours: the user's own colours (#rrggbb) of classes.
        networks: how many trained networks the map is made of, null where it is no joint map of networks; fewer than
            two can't disagree, and that is said.
        reject: pixels of less confidence are `unknown` on the class map, in the picture and in the tables of names,
            after the classes; null for none.
        north_up: whether to turn the maps north up, pixels by nearest neighbour; null for scenes on a rotated grid
            only.

    Raises:
        UserError: for `reject` where the confidence is not calibrated.
    """
    store = open_store(
        prediction,
        probabilities=("class", "y", "x"),
        labels=("y", "x"),
        margin=("y", "x"),
        nodata=("y", "x"),
    )
    image = read_array(open_store(rgb, rgb=("band", "y", "x")), "rgb")
    names = class_names(store)
    calibrated = "confidence" in store
    labels, nodata = (read_array(store, name) for name in ("labels", "nodata"))
    confidence = read_array(store, "confidence" if calibrated else "margin")
    confidence[nodata] = np.nan
    palette, tags = class_colours(names, colours), {}
    classes = names
    check_reject(prediction, store, reject)
    if reject is not None:
        value = len(names) + 1
        labels = shown_labels(store, slice(None), reject)
        names, tags = [*names, UNKNOWN], {UNKNOWN_TAG: str(value)}
        palette = class_colours(names, colours, unknown=True)
        _tell_unknown(labels, confidence, reject, value)
    grid, pixel = map_grid(grid_of(store), labels.shape, north_up)
    labels, confidence = moved(labels, pixel, 0), moved(confidence, pixel, np.nan)
    if pixel is not None:
        image = np.stack([moved(band, pixel, np.nan) for band in image])
        log.info("maps are turned north up, %d x %d pixels", *labels.shape)
    shape = (labels.shape[0], labels.shape[1])
    write_raster(
        class_map,
        strips_of(labels),
        shape,
        "uint8",
        ["land cover"],
        grid,
        nodata=0,
        resampling="mode",
        colours={0: (0, 0, 0, 0)} | {i: (*rgb_of(c), 255) for i, c in enumerate(palette, 1)},
        tags=tags | {f"CLASS_{i}": name for i, name in enumerate(names, 1)},
    )
    with atomic_write(class_map.with_name(f"{class_map.name}.aux.xml")) as file:
        file.write_text(attribute_table(names, palette), encoding="utf-8")
    with atomic_write(style) as file:
        file.write_text(raster_style(names, palette), encoding="utf-8")
    meaning = MEANINGS[kind_of(store)]
    write_raster(
        confidence_map,
        strips_of(confidence),
        shape,
        "float32",
        [f"confidence: {meaning}"],
        grid,
        nodata=float("nan"),
        resampling="average",
    )
    write_raster(
        probability_map,
        probability_strips(store, pixel),
        shape,
        "uint8",
        classes,
        grid,
        nodata=EMPTY,
        resampling="average",
        scale=1 / STEPS,
    )
    with atomic_write(picture) as file:
        image = image.transpose(1, 2, 0)
        map_figure(image, labels, confidence, names, palette, meaning).savefig(file, dpi=110)
    if networks == 1:
        log.warning("no map of disagreement: one network only; seeds: [0, 1, 2] trains three")
    elif networks is None:
        log.info("no map of disagreement: this map is no joint one of several networks")


def _tell_unknown(labels: np.ndarray, confidence: np.ndarray, reject: float, value: int) -> None:
    """Say how much of a map is unknown; a map of nothing else is worth a warning."""
    mapped, unknown = int((labels > 0).sum()), int((labels == value).sum())
    if mapped and unknown == mapped:
        log.warning(
            "all of the map is 'unknown': no pixel's confidence reaches reject %g, the highest is %.3f; make reject"
            " smaller",
            reject, np.nanmax(confidence),
        )  # fmt: skip
    elif mapped:
        log.info(
            "%.1f %% of the map is 'unknown', of confidence below %g",
            100 * unknown / mapped,
            reject,
        )


if __name__ == "__main__":
    run(export)
