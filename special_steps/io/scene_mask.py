"""Which pixels of a scene are left out besides those without values: clouds, a mask, all outside an area."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from special_steps.core.errors import UserError
from special_steps.core.store import Grid
from special_steps.io.grids import as_source, on_scene_grid
from special_steps.io.masks import read_mask
from special_steps.io.record import Source
from special_steps.io.source import open_source
from special_steps.io.vectors import inside, polygon_files

log = logging.getLogger("special")

USUALLY = (
    "cloud",
    "cloud_shadow",
)  # quality layers that are left out unless the config says otherwise


def scene_mask(
    source: Source,
    *,
    mask: Mapping[str, Any] | None,
    mask_quality: Sequence[str] | None,
    area: Path | None,
) -> tuple[np.ndarray, list[Path]]:
    """Pixels that a scene's settings leave out; each reason is logged with its share.

    Args:
        source: the opened scene.
        mask: settings of a raster: path, values, align; None for none.
        mask_quality: names of layers of `source.quality`; None for clouds and their shadows where there are any.
        area: file of polygons; None for the whole scene.

    Returns:
        (y, x) bool, True where left out; and the files that were read for it.

    Raises:
        UserError: for unknown layers, files that do not fit the scene, and when no pixel is left.
    """
    where, size = source.files[0], source.shape[1:]
    left_out, files = np.zeros(size, bool), list[Path]()
    names = (
        mask_quality if mask_quality is not None else [n for n in USUALLY if n in source.quality]
    )
    for name in names:
        if name not in source.quality:
            known = ", ".join(source.quality) or "none"
            raise UserError(
                f"{where}: scenes.<name>.mask_quality: no layer '{name}'; the product has here: {known}"
            )
        layer = source.quality[name](slice(0, size[0]), slice(0, size[1]))
        left_out |= layer
        _say(layer, f"{where.name}: {name}, by mask_quality", mask_quality is None)
    if mask:
        raster = open_source(mask["path"], one_layer=True)
        at = str(raster.files[0])
        grid = Grid(source.crs, source.transform)
        there = on_scene_grid(raster, grid, size, align=mask["align"], what="mask")
        # nothing is said about pixels outside of the raster, also where 0 is a value that masks
        layer = read_mask(as_source(raster, there), mask["values"], at) & ~there.outside
        left_out |= layer
        files += raster.files
        _say(layer, at, False)
    if area:
        layer = ~inside(area, source.crs, source.transform, size)
        left_out |= layer
        files += polygon_files(area)
        _say(layer, f"{area}: outside the area", False)
    if left_out.all():
        raise UserError(f"{where}: mask, mask_quality and area leave out every pixel; check them")
    return left_out, files


def _say(layer: np.ndarray, what: str, unasked: bool) -> None:
    """Warn of what nobody asked for, where it takes anything away."""
    level = logging.WARNING if unasked and layer.any() else logging.INFO
    hint = "; mask_quality: [] keeps them" if unasked else ""
    log.log(level, "%s: %.1f %% of the pixels are left out%s", what, 100 * layer.mean(), hint)
