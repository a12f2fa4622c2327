"""What the steps up to co-training are given: from the settings, for the rules and for `quick_map` alike.

Settings are as `core.settings.load` returns them. Each function gives a step's options by name, or the paths, relative
to the folder of the run, of what it reads: which files those are hangs on the settings, too.
"""

import os
from typing import Any

from special_steps.core.errors import UserError

DEMO = "resources/demo/"  # the files that a rule makes

Settings = dict[str, Any]


def data_file(settings: Settings, path: str) -> str:
    """A scene's file: absolute as it is; the demo's, which a rule makes; else from the data folder."""
    if path.startswith(DEMO):
        return path
    return os.path.normpath(os.path.join(settings["data"], path))


def mask_settings(settings: Settings, scene: str) -> Settings:
    """What leaves out pixels of a scene, with the paths of its files."""
    given = settings["scenes"][scene]
    mask = given["mask"] and given["mask"] | {"path": data_file(settings, given["mask"]["path"])}
    area = given["area"] and data_file(settings, given["area"])
    return {"mask": mask, "mask_quality": given["mask_quality"], "area": area}


def cube_settings(settings: Settings, scene: str) -> Settings:
    """Options of ingest, besides the scene's files."""
    own = {k: v for k, v in settings["scenes"][scene]["cube"].items() if k != "path"}
    return own | mask_settings(settings, scene)


def rgb_settings(settings: Settings) -> Settings:
    """Options of rgb."""
    given = settings["rgb"]
    return {"wavelengths": given["wavelengths"], "percentiles": given["stretch"]}


def model_settings(settings: Settings, clip: str) -> Settings:
    """Options of text that say which CLIP it is."""
    return {k: settings["clips"][clip][k] for k in ("model", "weights")}


def text_settings(settings: Settings, scene: str, clip: str) -> Settings:
    """Options of text that say what it reads."""
    classes = settings["scenes"][scene]["classes"]
    return {"classes": classes, "templates": settings["clips"][clip]["templates"]}


def dense_settings(settings: Settings, clip: str) -> Settings:
    """Options of clip_scale."""
    return {k: v for k, v in settings["clips"][clip].items() if k != "templates"}


def own_spectra(settings: Settings, scene: str) -> dict[str, str]:
    """The user's own files of spectra, by class or synonym."""
    given = settings["scenes"][scene]["spectra"]
    return {k: data_file(settings, v) for k, v in given.items()}


def check_files(settings: Settings) -> None:
    """Raise UserError for files of spectra and labels that are not there.

    Nobody should learn it from a late job, and Snakemake would silently take what an earlier run has made without them.
    """
    for scene, given in settings["scenes"].items():
        labels = given["labels"] and data_file(settings, given["labels"])
        if labels and not os.path.isfile(labels):
            raise UserError(
                f"config: scenes.{scene}.labels: {labels} is no file; draw points or polygons with a column 'class'"
                " (GeoPackage, GeoJSON, CSV), and give that file; relative paths start from the folder in data"
            )
        for name, file in own_spectra(settings, scene).items():
            if not os.path.isfile(file):
                raise UserError(
                    f"config: scenes.{scene}.spectra: '{name}' has {file}, which is no file;"
                    " relative paths start from the folder in data"
                )


def evidence_settings(settings: Settings, scene: str) -> Settings:
    """Options of evidence."""
    given = settings["scenes"][scene]
    own = {k: given[k] for k in ("classes", "materials", "units")}
    return own | {"spectra": own_spectra(settings, scene)}


def own_labels(settings: Settings, scene: str, run: str) -> str | None:
    """The user's own class probabilities, in place of CLIP's."""
    own = settings["runs"][run]["pseudo_labels"]
    return own and data_file(settings, own["path"].replace("{scene}", scene))


def scale_maps(settings: Settings, scene: str, run: str) -> list[str]:
    """What fuse averages: the user's own map, or a store for each scale of the run; none without a CLIP."""
    own = own_labels(settings, scene, run)
    if own:
        return [own]
    given = settings["runs"][run]
    folder = f"results/{scene}/clip/{given['clip']}"
    return [f"{folder}/scale-{scale}.zarr" for scale in given["scales"]]


def evidence_files(settings: Settings, scene: str, run: str) -> list[str]:
    """What the spectral library says of the scene, for runs that ask it."""
    asked = settings["runs"][run]["evidence"] == "library"
    files = [f"results/{scene}/evidence.zarr", f"results/{scene}/evidence.json"]
    return files if asked else []


def clip_checked(settings: Settings, scene: str, run: str) -> list[str]:
    """Spectra that CLIP's labels are compared with, where they are joined with the library's."""
    given = settings["runs"][run]
    asked = evidence_files(settings, scene, run) and given["clip"] != "none"
    return [f"results/{scene}/features-hsi.zarr"] if asked and not given["pseudo_labels"] else []


def given_labels(settings: Settings, scene: str) -> list[str]:
    """Labels that people gave, on the scene's grid; nothing where they gave none."""
    return [f"results/{scene}/labels.zarr"] if settings["scenes"][scene]["labels"] else []


def taught_by(settings: Settings, scene: str, run: str) -> list[str]:
    """These, and the spectra of which they speak."""
    given = given_labels(settings, scene)
    features = f"results/{scene}/features-{settings['runs'][run]['input']}.zarr"
    return [*given, features] if given else []


def fuse_settings(settings: Settings, scene: str, run: str) -> Settings:
    """Options of fuse, besides what it reads."""
    own = settings["runs"][run]["pseudo_labels"]
    names = list(settings["scenes"][scene]["classes"])
    return {"class_names": names, "align": bool(own and own["align"])}


def features_settings(settings: Settings, input: str) -> Settings:
    """Options of features."""
    given = settings["features"]
    return {"input": input, "percentiles": given["stretch"], "components": given["components"]}
