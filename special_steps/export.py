"""The maps that people open: GeoTIFFs of classes and confidence, and a picture beside the RGB."""

import itertools
import re
from pathlib import Path
from xml.sax.saxutils import escape

import matplotlib
import numpy as np
import rasterio
from matplotlib.colors import ListedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from rasterio.crs import CRS
from rasterio.transform import Affine

from special_steps.core.atomic import atomic_write
from special_steps.core.cli import run
from special_steps.core.store import open_store

# colours that maps of land cover use; a class takes the first whose word begins a word of its name
KNOWN = {
    "water": "#2b6cb0",
    "river": "#2b6cb0",
    "lake": "#2b6cb0",
    "sea": "#2b6cb0",
    "shadow": "#3b3b4f",
    "tree": "#1e6b2e",
    "forest": "#1e6b2e",
    "wood": "#1e6b2e",
    "grass": "#8fce5a",
    "meadow": "#8fce5a",
    "lawn": "#8fce5a",
    "low vegetation": "#8fce5a",
    "crop": "#e3d15b",
    "field": "#e3d15b",
    "soil": "#b5793f",
    "sand": "#e9d8a6",
    "rock": "#a89984",
    "asphalt": "#6e6e73",
    "road": "#6e6e73",
    "pavement": "#9a9aa1",
    "roof": "#c8413a",
    "tile": "#c8413a",
    "building": "#c8413a",
    "house": "#c8413a",
}
OTHERS = [to_hex(c) for c in matplotlib.colormaps["tab20"].colors]
GRID = [to_hex(c) for c in itertools.product(np.linspace(0.1, 0.9, 7), repeat=3)]
NO_DATA = "#ffffff"


def colours(class_names: list[str]) -> list[str]:
    """A colour for each of up to 255 classes, all different, the same for the same names.

    A class with a known word gets its usual colour, the first one of that colour; then each other
    class gets the free colour that is farthest from all given ones.
    """
    chosen: dict[int, str] = {}
    for i, name in enumerate(class_names):
        colour = _usual(name)
        if colour and colour not in chosen.values():
            chosen[i] = colour
    pool = OTHERS + GRID
    far = np.min([_distances(c, pool) for c in (NO_DATA, *chosen.values())], axis=0)
    for i in range(len(class_names)):
        if i not in chosen:
            pleasant = far[: len(OTHERS)]
            best = int(pleasant.argmax() if pleasant.max() > 0.2 else far.argmax())
            chosen[i] = pool[best]
            far = np.minimum(far, _distances(pool[best], pool))
    return [chosen[i] for i in range(len(class_names))]


def _usual(name: str) -> str | None:
    found = (c for word, c in KNOWN.items() if re.search(rf"\b{word}", name.lower()))
    return next(found, None)


def _distances(colour: str, pool: list[str]) -> np.ndarray:
    """Distance in RGB, 0 to 1.7, from each colour of the pool."""
    return np.linalg.norm(np.subtract([to_rgb(c) for c in pool], to_rgb(colour)), axis=1)


def _rgba(colour: str) -> tuple[int, int, int, int]:
    return (*(round(255 * c) for c in to_rgb(colour)), 255)


def write_raster(path: Path, data: np.ndarray, crs: str | None, transform, **options) -> None:
    """Write one band as a tiled, compressed GeoTIFF, georeferenced where the scene is."""
    profile = {
        "driver": "GTiff",
        "height": data.shape[0],
        "width": data.shape[1],
        "count": 1,
        "dtype": data.dtype,
        "compress": "deflate",
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "nodata": options.get("nodata"),
    }
    if "colormap" in options:
        profile["photometric"] = "palette"
    if crs:
        profile["crs"] = CRS.from_wkt(crs)
    if transform:
        profile["transform"] = Affine(*transform)
    with atomic_write(path) as file, rasterio.open(file, "w", **profile) as raster:
        if "colormap" in options:  # before the data: the file's kind is settled with the first
            raster.write_colormap(1, options["colormap"])
        raster.write(data, 1)
        raster.set_band_description(1, options["description"])
        raster.update_tags(**options.get("tags", {}))


def category_names(class_names: list[str]) -> str:
    """GDAL's side file that names the values of a class map, 0 first."""
    names = "".join(f"<Category>{escape(n)}</Category>" for n in ("no data", *class_names))
    return (
        '<PAMDataset><PAMRasterBand band="1">'
        f"<CategoryNames>{names}</CategoryNames></PAMRasterBand></PAMDataset>\n"
    )


def picture(
    image: np.ndarray, labels: np.ndarray, confidence: np.ndarray, class_names: list[str]
) -> Figure:
    """The RGB image, the class map with its legend, and the confidence, in a row (wide scenes: a column).

    Args:
        image: (y, x, 3) float32 in [0, 1].
        labels: (y, x) uint8, 1..K, 0 = no data.
        confidence: (y, x) float32 in [0, 1], NaN = no data.
        class_names: the K classes.
    """
    palette = colours(class_names)
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
    longest = max(len(handle.get_label()) for handle in handles)
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
    figure.colorbar(shown, ax=axes[2], label="best minus second best", fraction=0.05, pad=0.02)
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
    return figure


def _percent(part: int, whole: int) -> str:
    share = 100 * part / max(whole, 1)
    return "<1 %" if 0 < share < 0.5 else f"{share:.0f} %"


def export(
    *, prediction: Path, rgb: Path, classes: Path, confidence: Path, picture_file: Path
) -> None:
    """Write a scene's maps.

    Args:
        prediction: store with `labels` and `margin`.
        rgb: the scene's RGB store.
        classes: GeoTIFF to write: uint8 classes from 1 with colours and names, 0 = no data; a
            side file `.aux.xml` names the classes for GDAL.
        confidence: GeoTIFF to write: float32 margin, NaN = no data.
        picture_file: PNG to write.
    """
    store = open_store(prediction, labels=("y", "x"), margin=("y", "x"), nodata=("y", "x"))
    image = open_store(rgb, rgb=("band", "y", "x"))["rgb"][:].transpose(1, 2, 0)
    names, crs, transform = (store.attrs[k] for k in ("class_names", "crs", "transform"))
    labels = store["labels"][:]
    margin = np.where(store["nodata"][:], np.float32("nan"), store["margin"][:])
    table = {0: (0, 0, 0, 0)} | {i + 1: _rgba(c) for i, c in enumerate(colours(names))}
    tags = {f"CLASS_{i + 1}": name for i, name in enumerate(names)}
    write_raster(
        classes,
        labels,
        crs,
        transform,
        nodata=0,
        description="land cover",
        tags=tags,
        colormap=table,
    )
    with atomic_write(classes.with_name(f"{classes.name}.aux.xml")) as file:
        file.write_text(category_names(names))
    write_raster(
        confidence,
        margin,
        crs,
        transform,
        nodata=float("nan"),
        description="confidence: best minus second best class probability",
    )
    with atomic_write(picture_file) as file:
        picture(image, labels, margin, names).savefig(file, dpi=110)


if __name__ == "__main__":
    run(export)
