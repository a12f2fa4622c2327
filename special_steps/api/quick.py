"""A land-cover map in one call from Python: the steps of the workflow's target `quick`, one after another."""

import difflib
import io
import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import xarray
import yaml
from threadpoolctl import threadpool_limits

from special_steps import __version__
from special_steps.clip_scale import clip_scale
from special_steps.core import arguments
from special_steps.core.errors import UserError
from special_steps.core.notes import gathered
from special_steps.core.palette import class_colours
from special_steps.core.settings import config_of, load, schema
from special_steps.core.store import class_names, grid_of, open_store
from special_steps.cotrain import cotrain
from special_steps.evidence import evidence
from special_steps.features import features
from special_steps.fuse import fuse
from special_steps.ingest import ingest, ingest_source
from special_steps.io.array_xarray import WHERE, source_of
from special_steps.io.source import is_archive
from special_steps.labels import labels
from special_steps.materials.words import check_overrides
from special_steps.rgb import rgb
from special_steps.text import text
from special_steps.unpack import unpack

log = logging.getLogger("special")

SCENE, RUN, IN_MEMORY = "scene", "quick", str(WHERE)
# Settings of what a quick map does not do: networks, files, other scenes and runs, evaluation.
NOT_HERE = ("scenes", "runs", "path", "ground_truth", "reference", "seeds", "classifier", "network",
            "training", "refine", "export", "apply", "train_together", "reject")  # fmt: skip

Cube = str | Path | Sequence[str | Path] | xarray.DataArray | xarray.Dataset
Classes = Sequence[str | Mapping[str, Sequence[str]]] | Mapping[str, Sequence[str]]


def quick_map(cube: Cube, classes: Classes, **settings: Any) -> xarray.Dataset:
    """Map land cover from class names: what `snakemake quick` makes of the scene, to the last bit.

    The scene is worked on in a folder of temporary files, which goes in any case; `TMPDIR` says where, and it takes a
    few times the scene's own size there. The result is in memory.

    Args:
        cube: a file or folder of any known format (`python -m special_steps.inspect` reads the same), a list of
            GeoTIFFs, or an xarray cube: dimensions named for band, y and x in any order, wavelengths along the band's
            in nm or micrometres; NaN is no data.
        classes: class names in plain words; a class with synonyms is a mapping, such as {"water": ["sea", "river"]}.
        settings: of workflow/docs/SETTINGS.md by their names there, of the scene (`materials={...}`), its cube
            (`nodata=0`, `wavelengths=[...]`) and the run (`clip="none"`, `scales=[1]`). Relative paths start from the
            working folder.

    Returns:
        `probabilities` (class, y, x) float32, zeros where no data; `labels` (y, x) uint8, 0 for no data, else the
        class's number from 1 (`flag_values`, `flag_meanings`, `flag_colors` in its attributes); `margin` (y, x)
        float32, best minus second best probability; `nodata` (y, x) bool; and `confidence` (y, x) float32, the chance
        that the label is right, where co-training knows it. Coordinates are `class` (names), `band` (nm, increasing)
        with `good_band` and, where known, `fwhm` (nm), and, where they are known, `y` and `x` (centres of pixels) and
        `spatial_ref` (the CRS, as CF, GDAL and rioxarray have it). Attributes hold `warnings`, a list of sentences,
        and `config`, the YAML to run the workflow with.

    Raises:
        UserError: for mistakes in scene, classes and settings, in one line with the fix.
    """
    in_memory = isinstance(cube, xarray.DataArray | xarray.Dataset)
    with (
        tempfile.TemporaryDirectory(prefix="special-") as folder,
        _in_python_words(folder, IN_MEMORY if in_memory else str(cube)) as told,
        _no_progress_bars(),
    ):
        loaded = _settings(IN_MEMORY if in_memory else cube, classes, settings)
        scene = Path(folder) / "results" / SCENE
        _ingest(cube, scene / "cube.zarr", loaded, told)
        return _described(_map(scene, loaded), scene / "cube.zarr", loaded, told)


def _settings(path: Any, classes: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of one run of one scene, checked and with defaults.

    Raises:
        UserError: for settings that do not exist, or that a quick map would ignore.
    """
    here = [name for name in NOT_HERE if name in given]
    if here:
        raise UserError(
            f"config: '{here[0]}' is not for a quick map, which is one scene's, without networks and files; leave it"
            " out, or run the workflow"
        )
    scene: dict[str, Any] = {"classes": classes}
    if isinstance(classes, Mapping):
        scene["classes"] = [{name: words} if words else name for name, words in classes.items()]
    scene["cube"] = {"path": path if path is IN_MEMORY else _absolute(path)}
    config: dict[str, Any] = {"data": os.getcwd(), "runs": {RUN: {}}, "scenes": {SCENE: scene}}
    rules = schema()["properties"]
    of_scene = rules["scenes"]["additionalProperties"]["properties"]
    levels = [(config, rules), (scene, of_scene), (scene["cube"], of_scene["cube"]["properties"])]
    known = {name: level for level, names in reversed(levels) for name in names}
    for name, value in given.items():
        # an unknown name goes where the nearest one belongs, so that the schema's message suggests it
        near = name if name in known else next(iter(difflib.get_close_matches(name, known, 1)), "")
        known.get(near, config)[name] = value
    config["data"] = os.path.abspath(str(config["data"]))
    loaded = load(json.loads(json.dumps(config, default=_as_json)))
    if loaded["runs"][RUN]["method"] != "agreement":
        raise UserError(
            f"config: method: '{loaded['runs'][RUN]['method']}' has no quick map, only 'agreement' has: its"
            " co-training makes it; leave it out, or run the workflow"
        )
    check_overrides(
        loaded["scenes"][SCENE]["materials"],
        loaded["scenes"][SCENE]["classes"],
        f"config: scenes.{SCENE}.materials",
    )
    arguments.check_files(loaded)
    return loaded


def _absolute(path: Any) -> Any:
    """A path, or each of a list, from the working folder; anything else is left to the schema."""
    if isinstance(path, str | Path):
        return os.path.abspath(path)
    return [_absolute(p) for p in path] if isinstance(path, list | tuple) else path


def _as_json(value: Any) -> Any:
    """What JSON has no word for: arrays and their numbers as lists and numbers, paths as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _ingest(cube: Cube, out: Path, loaded: dict[str, Any], told: list[str]) -> None:
    """Make cube.zarr of a cube in memory, or of the scene's files."""
    options = arguments.cube_settings(loaded, SCENE)
    if isinstance(cube, xarray.DataArray | xarray.Dataset):
        source = source_of(cube, **{key: options[key] for key in ("variable", "axes", "shape")})
        _as_job(ingest_source, source, out=out, settings=options, inputs=[], told=told)
        return
    paths = loaded["scenes"][SCENE]["cube"]["path"]
    files = [Path(path) for path in ([paths] if isinstance(paths, str) else paths)]
    if len(files) == 1 and is_archive(files[0]) and files[0].exists():
        product = out.with_name("product")
        unpack(archive=files[0], out=product)
        files = [product]
    options["area"] = options["area"] and Path(options["area"])
    _as_job(ingest, cube=files, out=out, **options)


def _map(scene: Path, loaded: dict[str, Any]) -> Path:
    """The steps from cube.zarr on, in the workflow's order; the store of the map.

    Args:
        scene: folder of the scene's results, where cube.zarr is.
        loaded: the settings.
    """
    top, run = scene.parents[1], loaded["runs"][RUN]
    cube, image, own = scene / "cube.zarr", scene / "rgb.zarr", scene / RUN
    _as_job(rgb, cube=cube, out=image, **arguments.rgb_settings(loaded))
    checked = [top / path for path in arguments.clip_checked(loaded, SCENE, RUN)]
    prepared = {name: scene / f"features-{name}.zarr" for name in ("hsi", "rgb")}
    for name, source in (("hsi", cube), ("rgb", image)):
        if run["input"] == name or prepared[name] in checked:
            options = arguments.features_settings(loaded, name)
            _as_job(features, source=source, out=prepared[name], **options)
    maps = [top / path for path in arguments.scale_maps(loaded, SCENE, RUN)]
    if maps and not run["pseudo_labels"]:
        clip, words = run["clip"], maps[0].with_name("text.npz")
        options = arguments.model_settings(loaded, clip)
        options |= arguments.text_settings(loaded, SCENE, clip)
        _as_job(text, out=words, **options)
        options = arguments.dense_settings(loaded, clip)
        options["jbu_weights"] = options["jbu_weights"] and Path(options["jbu_weights"])
        for scale, out in zip(run["scales"], maps, strict=True):
            clip_scale(rgb=image, text=words, out=out, scale=scale, **options)
    library = [top / path for path in arguments.evidence_files(loaded, SCENE, RUN)]
    if library:
        options = dict(zip(("out", "found"), library, strict=True))
        options |= arguments.evidence_settings(loaded, SCENE)
        _as_job(evidence, cube=cube, table=scene / "evidence.csv", **options)
    given = [top / path for path in arguments.taught_by(loaded, SCENE, RUN)]
    if given:
        options = arguments.fuse_settings(loaded, SCENE, RUN)
        file = Path(arguments.data_file(loaded, loaded["scenes"][SCENE]["labels"]))
        _as_job(labels, cube=cube, file=file, out=given[0], class_names=options["class_names"])
    labelled, learned = own / "pseudo.zarr", own / "cotrain.zarr"
    _as_job(
        fuse,
        maps=maps,
        evidence=library,
        given=given,
        features=checked[0] if checked else None,
        rgb=image,
        out=labelled,
        witnesses=own / "witnesses.json",
        **arguments.fuse_settings(loaded, SCENE, RUN),
    )
    spectra, diagnosis = prepared[run["input"]], own / "cotrain.json"
    _as_job(
        cotrain,
        features=spectra,
        pseudo=labelled,
        out=learned,
        model=own / "cotrain.safetensors",
        diagnosis=diagnosis,
    )
    return learned


def _as_job(step: Callable[..., None], *given: Any, **options: Any) -> None:
    """Run a step with one thread for numerical libraries, as its job does: with more they sum in another order."""
    with threadpool_limits(1):
        step(*given, **options)


def _described(
    store: Path, cube: Path, loaded: dict[str, Any], told: Sequence[str]
) -> xarray.Dataset:
    """A prediction's store as a Dataset in memory, with what a user wants to know beside it."""
    with xarray.open_zarr(store) as opened:
        found = opened.load().drop_encoding()
    with xarray.open_zarr(cube) as opened:
        beside = [n for n in ("band", "good_band", "fwhm") if n in opened.variables]
        found = found.assign_coords({n: opened[n].variable.load() for n in beside})
    found["band"].attrs |= {"units": "nm", "standard_name": "radiation_wavelength"}
    grid = grid_of(open_store(store))
    # what lists of mappings say is said below in a way that netCDF can hold, too
    for one in (found, *found.data_vars.values()):
        for name in ("zarr_conventions", "provenance", "digest", "files", "complete"):
            one.attrs.pop(name, None)
    if grid.crs is not None or grid.transform is not None:
        place = {} if grid.crs is None else {"crs_wkt": grid.crs, "spatial_ref": grid.crs}
        if grid.transform is not None:
            a, b, c, d, e, f = grid.transform
            place["GeoTransform"] = " ".join(map(repr, (c, a, b, f, d, e)))
        found = found.assign_coords(spatial_ref=((), 0, place))
        for one in found.data_vars.values():
            if one.dims[-2:] == ("y", "x"):
                one.encoding["grid_mapping"] = "spatial_ref"
    names = class_names(open_store(store))
    colours = class_colours(names, loaded["scenes"][SCENE]["colours"])
    found["labels"].attrs |= {
        "flag_values": np.arange(1, len(names) + 1, dtype=np.uint8),
        "flag_meanings": " ".join("_".join(name.split()) for name in names),
        "flag_colors": " ".join(colours),
    }
    config = yaml.safe_dump(config_of(loaded, SCENE, RUN), sort_keys=False, allow_unicode=True)
    found.attrs |= {"warnings": list(told), "config": config, "special_version": __version__}
    return found


@contextmanager
def _in_python_words(folder: str, cube: str) -> Iterator[list[str]]:
    """Yield a list of the warnings so far; they, and errors, name cube and settings as the user does."""
    of_cube = schema()["properties"]["scenes"]["additionalProperties"]["properties"]["cube"]
    setting = rf"\b(scenes\.(<name>|{SCENE})\.)?cube\.(?=({'|'.join(of_cube['properties'])})\b)"

    def plain(line: str) -> str:
        line = re.sub(
            rf"\bscenes\.(<name>|{SCENE})(\.cube)?(\.(?!cube\.)|: )", "", re.sub(setting, "", line)
        )
        results = f"{folder}{os.sep}results{os.sep}{SCENE}{os.sep}"
        line = line.replace(f"{results}cube.zarr", cube).replace(results, "")
        return re.sub(r"^config: ", "quick_map: ", line)

    def rewrite(record: logging.LogRecord) -> bool:
        record.msg, record.args = plain(record.getMessage()), None
        return True

    log.addFilter(rewrite)
    try:
        with gathered() as told:
            yield told
    except UserError as error:
        raise UserError(plain(str(error))) from None
    finally:
        log.removeFilter(rewrite)


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Keep steps from bars, which they show where they write to a terminal; what else they write comes at the end."""
    try:
        with redirect_stderr(io.StringIO()) as said:
            yield
    finally:
        sys.stderr.write(said.getvalue())
