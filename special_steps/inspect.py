"""Inspect: what is in a file, as the workflow would read it, and a config to begin with."""

import json
import logging
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from special_steps.core.atomic import atomic_write
from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.core.notes import as_yaml
from special_steps.core.spectral import check_coverage, interpolate, stretch
from special_steps.io.archive import unpack_to
from special_steps.io.bands import Bands, choose_bands
from special_steps.io.fill import flat_values, missing_values, unstated_fill
from special_steps.io.record import Source
from special_steps.io.scene_mask import USUALLY
from special_steps.io.source import is_archive, open_source

log = logging.getLogger("special")

SIDE = 500  # rows and columns that are looked at, at most
RGB = [655.0, 553.0, 451.0]  # nm
ANY: dict[str, Any] = {"wavelengths": None, "scale": None, "bad_ranges": [], "drop_bands": []}


class Sample(NamedTuple):
    """Rows and columns of a scene, evenly thinned out."""

    rgb: np.ndarray  # (3, y, x) float32, NaN where masked; empty without wavelengths
    masked: np.ndarray  # (y, x) bool: some good band has no value, or the file masks it
    cloud: np.ndarray  # (y, x) bool: by the product's own layer
    flat: np.ndarray  # (y, x), see flat_values
    low: float  # percentiles 2 and 98 of the good bands' values, scaled
    high: float
    dtype: np.dtype


def look(source: Source, bands: Bands | None) -> Sample:
    """Read thinned rows of a scene.

    Args:
        source: the opened file.
        bands: as the workflow would take them; None where the file does not say enough.
    """
    count, height, width = source.shape
    step = max(-(-height // SIDE), -(-width // SIDE), 1)
    order = np.arange(count) if bands is None else bands.position
    good = np.ones(count, bool) if bands is None else bands.good
    scale = np.ones(count) if bands is None else bands.scale
    offset = np.zeros(count) if bands is None else bands.offset
    others, zero_is_nodata = [v for v in source.nodata if v != 0], 0 in source.nodata
    can_show = bands is not None and _covers(bands)
    cloud = source.quality.get("cloud", lambda rows, columns: np.zeros((1, width), bool))
    pictures, gaps, masks, clouds, flats, values = [], [], [], [], [], []
    for y in range(0, height, step):
        rows, columns = slice(y, y + 1), slice(0, width)
        block = source.read(rows, columns)[order][:, :, ::step]
        missing = missing_values(block, others)
        mask = np.zeros(block.shape[1:], bool)
        if zero_is_nodata:
            mask |= (block[good] == 0).all(0)
        if source.masked:
            mask |= np.asarray(source.masked(rows, columns))[:, ::step]
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = block / scale[:, None, None] + offset[:, None, None]
        if can_show and bands is not None:
            pictures.append(interpolate(scaled[good], bands.nm[good], RGB).astype(np.float32))
        values.append(scaled[good][~missing[good] & ~mask][::7].astype(np.float32))
        flats.append(flat_values(block, good & ~missing.all((1, 2)), ~mask))
        gaps.append(missing)
        masks.append(mask)
        clouds.append(np.asarray(cloud(rows, columns))[:, ::step])
    lacking, masked, cloudy, flat = (
        np.concatenate(parts, axis=-2) for parts in (gaps, masks, clouds, flats)
    )
    masked |= lacking[good & ~lacking.all((1, 2))].any(0)  # empty bands do not mask
    flat[masked] = np.nan
    known = np.concatenate(values)
    low, high = np.percentile(known, [2, 98]) if len(known) else (np.nan, np.nan)
    rgb = np.concatenate(pictures, 1) if pictures else np.empty((3, 0, 0), np.float32)
    if rgb.size:
        rgb[:, masked] = np.nan
    return Sample(rgb, masked, cloudy, flat, float(low), float(high), block.dtype)


def _covers(bands: Bands) -> bool:
    try:
        check_coverage(bands.nm[bands.good], RGB, "")
    except UserError:
        return False
    return True


def report(source: Source, bands: Bands | None, sample: Sample) -> list[tuple[str, str]]:
    """What a file holds, as names and texts."""
    count, height, width = source.shape
    lines = [
        (
            "size",
            f"{height} x {width} pixels (height x width), {count} bands of {sample.dtype.name}",
        )
    ]
    if bands is not None:
        spacing = float(np.median(np.diff(bands.nm))) if len(bands.nm) > 1 else 0.0
        text = f"{bands.nm[0]:g} to {bands.nm[-1]:g} nm, about {spacing:.3g} nm apart"
        if bands.fwhm is not None:
            text += f", {np.nanmedian(bands.fwhm):.3g} nm wide (FWHM)"
        lines.append(("wavelengths", text))
        if not bands.good.all():
            lines.append(
                ("bad bands", f"{(~bands.good).sum()}: {_ranges(bands.nm[~bands.good])} nm")
            )
    lines.append(("values", _values(source, sample)))
    stated = ", ".join(f"{v:g}" for v in source.nodata) or "not stated"
    own = " and a mask of the file" if source.masked else ""
    share = f"{100 * sample.masked.mean():.1f} % of the pixels"
    lines.append(("no data", f"{stated}{own}; {share} have none in some good band"))
    lines.append(("place", _place(source)))
    if source.quality:
        whole = slice(0, height), slice(0, width)
        shares = {name: layer(*whole).mean() for name, layer in source.quality.items()}
        parts = [f"{name} {100 * share:.1f} %" for name, share in shares.items() if share]
        none = [name for name, share in shares.items() if not share]
        parts += [f"no {', '.join(none)}"] if none else []
        lines.append(("quality", ", ".join(parts)))
        left_out = " and ".join(name for name in USUALLY if name in shares)
        if left_out:
            lines.append(("left out", f"{left_out}, unless the config has mask_quality: []"))
    if source.variables:
        parts = [f"{n} {tuple(map(int, s))}" for n, s in source.variables.items()]
        lines.append(("variables", ", ".join(parts[:12]) + (", ..." if len(parts) > 12 else "")))
    return lines


def _ranges(nm: np.ndarray) -> str:
    """Wavelengths as ranges: those near each other are one, also where another detector's bands lie between them."""
    parts = np.split(nm, np.flatnonzero(np.diff(nm) > 30) + 1)
    texts = [f"{p[0]:.0f}" if len(p) == 1 else f"{p[0]:.0f} to {p[-1]:.0f}" for p in parts]
    return ", ".join(texts[:8]) + (", ..." if len(texts) > 8 else "")


def _values(source: Source, sample: Sample) -> str:
    if np.isnan(sample.low):
        return "none"
    text = f"mostly {sample.low:.4g} to {sample.high:.4g}"
    if np.any(source.scale != 1) or np.any(source.offset != 0):
        each = np.unique(source.scale)
        stated = f"divided by {each[0]:g}" if len(each) == 1 else "scaled by band"
        text += f", {stated} as the file says"
    if sample.high > 2:
        text += "; not reflectances from 0 to 1: scaled (cube.scale), or radiances"
    return text


def _place(source: Source) -> str:
    if source.transform is None:
        return "no georeference: maps will have none"
    from rasterio.crs import CRS

    a, b, _, d, e, _ = source.transform
    name, unit = "unknown CRS", "units"
    if source.crs:
        crs = CRS.from_wkt(source.crs)
        code = crs.to_epsg()
        # by its number: some files leave theirs "unnamed"
        wkt = CRS.from_epsg(code).to_wkt() if code else source.crs
        found = re.search(r'"([^"]+)"', wkt)
        name = (found[1] if found else "CRS") + (f" (EPSG:{code})" if code else "")
        metres = ("metre", "meter", "m")
        unit = "degrees" if crs.is_geographic else crs.linear_units
        unit = "m" if unit.lower() in metres else unit
    turned = np.degrees(np.arctan2(d, a))
    way = (
        "north up"
        if b == d == 0 and e < 0
        else "south up"
        if b == d == 0
        else f"turned by {turned:.4g} degrees"
    )
    return f"{name}, pixels of {np.hypot(a, d):.6g} x {np.hypot(b, e):.6g} {unit}, {way}"


def snippet(path: Path, settings: dict[str, str], classes: list[str]) -> str:
    """A config for the file, with settings of its cube as YAML."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem)
    if len(name) > 40:  # products' names are long; whole parts of it
        name = re.sub(r"[_-]+[^_-]*$", "", name[:41]) or name[:40]
    name = name.strip("-_") or "scene"
    lines = [
        "scenes:",
        f"  {json.dumps(name)}:",
        "    cube:",
        f"      path: {json.dumps(str(path))}",
    ]
    lines += [f"      {key}: {value}" for key, value in settings.items()]
    lines += ["    classes:"]
    lines += [f"      - {json.dumps(c, ensure_ascii=False)}" for c in classes]
    return "\n".join(lines) + "\n"


def write_picture(path: Path, rgb: np.ndarray, cloud: np.ndarray) -> None:
    """Write a quick colour picture (3, y, x), NaN for no data, as PNG; small ones in larger pixels.

    Clouds, (y, x) bool, do not count for the stretch: beside them land is dark.
    """
    from PIL import Image

    known = rgb[:, ~np.isnan(rgb[0]) & ~cloud]
    limits = np.percentile(known, [1, 99]) if known.size else (0.0, 1.0)
    shown = stretch(np.nan_to_num(rgb), (float(limits[0]), float(limits[1])))
    shown[np.isnan(rgb)] = 1
    times = max(1, SIDE // max(shown.shape[1:]))
    shown = shown.repeat(times, 1).repeat(times, 2)
    with atomic_write(path) as file:
        Image.fromarray((shown * 255).astype(np.uint8).transpose(1, 2, 0)).save(file, format="PNG")


def inspect(file: Path, *, classes: str = "", picture: Path | None = None) -> None:
    """Say what is in a scene's file, make a quick picture of it, and print a config to begin with.

    Args:
        file: a scene's file, or the folder or archive of a product
        classes: class names for the config, such as "water, trees, asphalt"
        picture: PNG to write; without it, the file's name with .inspect.png in the present folder
    """
    with TemporaryDirectory() as folder:
        opened = file
        if is_archive(file):
            opened = Path(folder)
            unpack_to(file, opened)
        source = open_source(opened)
        bands, why = None, ""
        try:
            bands = choose_bands(source, **ANY)
        except UserError as error:
            why = str(error)
        sample = look(source, bands)
        print(f"{file}: {source.kind or 'an array'}")
        for name, text in report(source, bands, sample):
            print(f"  {name:12} {text}")
    settings, fills = {}, unstated_fill(sample.flat)
    if source.wavelengths is None:
        settings["wavelengths"] = (
            "{first: 400, last: 2500} # nm, or a list: write those of your sensor"
        )
    for value, share in fills.items():
        text = as_yaml(value, sample.dtype)
        print(
            f"  look at this {text} fills {100 * share:.1f} % of the pixels in all bands: no data?"
        )
    if fills:  # the setting takes the place of what the file states
        given = [as_yaml(v, sample.dtype) for v in (*source.nodata, *fills) if np.isfinite(v)]
        doubtful = " and ".join(as_yaml(v, sample.dtype) for v in fills)
        settings["nodata"] = f"[{', '.join(given)}] # take out {doubtful} where it is a measurement"
    for note in (*source.notes, *(bands.notes if bands else ()), *([why] if why else [])):
        print(f"  look at this {note}")
    if sample.rgb.size:
        picture = picture or Path(f"{file.stem}.inspect.png")
        write_picture(picture, sample.rgb, sample.cloud)
        print(f"  picture      {picture}")
    else:
        print("  picture      none: the good bands do not cover red, green and blue")
    names = [name.strip() for name in classes.split(",") if name.strip()]
    print("\nA config for it, as my.yaml:\n")
    print(snippet(file, settings, names or ["water", "trees", "asphalt"]), end="")
    print("\nThen run: snakemake --cores all --configfile my.yaml")


if __name__ == "__main__":
    run(inspect, positional=True)
