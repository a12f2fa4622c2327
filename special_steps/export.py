"""The maps that people open: GeoTIFFs of classes and confidence, and a picture beside the RGB."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

import numpy as np

from special_steps.core.atomic import atomic_write
from special_steps.core.cli import run
from special_steps.core.palette import NO_DATA, class_colours, rgb_of
from special_steps.core.store import (
    Grid,
    class_names,
    grid_of,
    open_store,
    read_array,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger("special")


def write_raster(
    path: Path,
    data: np.ndarray,
    description: str,
    grid: Grid,
    nodata: float,
    colours: dict[int, tuple[int, int, int, int]] | None = None,
    tags: dict[str, str] | None = None,
) -> None:
    """Write a map as a tiled, compressed GeoTIFF, georeferenced where the scene is.

    Args:
        path: the file.
        data: (y, x), uint8 or float32.
        description: what the band holds.
        grid: where the pixels lie.
        nodata: value that means no data.
        colours: red, green, blue and alpha (0 to 255) of values.
        tags: names and texts for the file's header.
    """
    import rasterio  # here and in map_figure: what takes time to load is loaded when it is used
    from rasterio.crs import CRS
    from rasterio.transform import Affine

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
        "nodata": nodata,
    }
    if colours:
        profile["photometric"] = "palette"
    if grid.crs:
        profile["crs"] = CRS.from_wkt(grid.crs)
    if grid.transform:
        profile["transform"] = Affine(*grid.transform)
    with atomic_write(path) as file, rasterio.open(file, "w", **profile) as raster:
        if colours:  # before the data: the file's kind is settled with the first
            raster.write_colormap(1, colours)
        raster.write(data, 1)
        raster.set_band_description(1, description)
        raster.update_tags(**(tags or {}))


def turned_north(grid: Grid, shape: tuple[int, int]) -> tuple[Grid, np.ndarray]:
    """A north-up grid over a scene's, and which of the scene's pixels lies at each place of it.

    Pixels keep their area; where the scene's grid is only flipped or turned by 90 degrees, also their sides, so that
    every pixel is there once.

    Args:
        grid: with a transform.
        shape: the scene's (height, width).

    Returns:
        The grid, and (y, x) int64: position in the flattened scene of the pixel whose area holds the centre of each
        new pixel; -1 where none does.
    """
    from affine import Affine

    assert grid.transform is not None
    height, width = shape
    place = Affine(*grid.transform)
    a, b, _, d, e, _ = grid.transform
    area = float(np.sqrt(abs(place.determinant)))
    if b == d == 0:
        across, down = abs(a), abs(e)
    elif a == e == 0:
        across, down = abs(b), abs(d)
    else:
        across, down = area, area
    corners = [place @ corner for corner in ((0, 0), (width, 0), (0, height), (width, height))]
    left, right = min(x for x, _ in corners), max(x for x, _ in corners)
    bottom, top = min(y for _, y in corners), max(y for _, y in corners)
    columns, rows = (
        int(np.ceil(n - 1e-6)) for n in ((right - left) / across, (top - bottom) / down)
    )
    new = Affine(across, 0, left, 0, -down, top)
    back = ~place @ new
    found = np.full((rows, columns), -1, np.int64)
    x = np.arange(columns) + 0.5
    for row in range(rows):
        column_of = back.a * x + back.b * (row + 0.5) + back.c
        row_of = back.d * x + back.e * (row + 0.5) + back.f
        inside = (column_of >= 0) & (column_of < width) & (row_of >= 0) & (row_of < height)
        pixel = row_of[inside].astype(np.int64) * width + column_of[inside].astype(np.int64)
        found[row, inside] = pixel
    return Grid(grid.crs, tuple(new)[:6]), found


def is_turned(grid: Grid) -> bool:
    """Whether a grid's rows do not run from west to east."""
    return grid.transform is not None and (grid.transform[1] != 0 or grid.transform[3] != 0)


def category_names(class_names: list[str]) -> str:
    """GDAL's side file that names the values of a class map, 0 first."""
    names = "".join(f"<Category>{escape(n)}</Category>" for n in ("no data", *class_names))
    return (
        '<PAMDataset><PAMRasterBand band="1">'
        f"<CategoryNames>{names}</CategoryNames></PAMRasterBand></PAMDataset>\n"
    )


def map_figure(
    image: np.ndarray, labels: np.ndarray, confidence: np.ndarray, class_names: list[str]
) -> "Figure":
    """The RGB image, the class map with its legend, and the confidence, in a row (wide scenes: a column).

    Args:
        image: (y, x, 3) float32 in [0, 1].
        labels: (y, x) uint8, 1..K, 0 = no data.
        confidence: (y, x) float32 in [0, 1], NaN = no data.
        class_names: the K classes.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    palette = class_colours(class_names)
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
    *,
    prediction: Path,
    rgb: Path,
    class_map: Path,
    confidence_map: Path,
    picture: Path,
    north_up: bool | None,
) -> None:
    """Write a scene's maps.

    Args:
        prediction: store with `labels` and `margin`.
        rgb: the scene's RGB store.
        class_map: GeoTIFF to write: uint8 classes from 1 with colours and names, 0 = no data; a
            side file `.aux.xml` names the classes for GDAL.
        confidence_map: GeoTIFF to write: float32 margin, NaN = no data.
        picture: PNG to write: image, class map and confidence side by side.
        north_up: whether to turn the maps north up, pixels by nearest neighbour; null for scenes on a rotated grid
            only.
    """
    store = open_store(prediction, labels=("y", "x"), margin=("y", "x"), nodata=("y", "x"))
    image = read_array(open_store(rgb, rgb=("band", "y", "x")), "rgb").transpose(1, 2, 0)
    names, grid = class_names(store), grid_of(store)
    labels, nodata, margin = (read_array(store, name) for name in ("labels", "nodata", "margin"))
    margin[nodata] = np.nan
    north_up = is_turned(grid) if north_up is None else north_up
    if north_up and grid.transform is not None:
        grid, pixel = turned_north(grid, labels.shape)
        nowhere = pixel < 0
        labels = np.where(nowhere, np.uint8(0), labels.ravel()[pixel])
        margin = np.where(nowhere, np.float32(np.nan), margin.ravel()[pixel])
        image = image.reshape(-1, 3)[pixel]
        log.info("maps are turned north up, %d x %d pixels", *labels.shape)
    write_raster(
        class_map,
        labels,
        "land cover",
        grid,
        nodata=0,
        colours={0: (0, 0, 0, 0)}
        | {i + 1: (*rgb_of(c), 255) for i, c in enumerate(class_colours(names))},
        tags={f"CLASS_{i + 1}": name for i, name in enumerate(names)},
    )
    with atomic_write(class_map.with_name(f"{class_map.name}.aux.xml")) as file:
        file.write_text(category_names(names))
    description = "confidence: best minus second best class probability"
    write_raster(confidence_map, margin, description, grid, nodata=float("nan"))
    with atomic_write(picture) as file:
        map_figure(image, labels, margin, names).savefig(file, dpi=110)


if __name__ == "__main__":
    run(export)
