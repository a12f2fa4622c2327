"""Reads the configuration, builds paths and command lines; no rule in here."""

import json
import os
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

ROOT = Path(workflow.current_basedir).parent
sys.path.insert(0, str(ROOT))
# Steps run from any folder, by Snakemake's own Python even when its environment is not activated (unless conda brings
# another), and when the workflow is another workflow's module. Waiting threads sleep: where cores are shared, torch's
# spinning ones make everybody (5 x measured) slower.
own_python = (
    []
    if workflow.deployment_settings.deployment_method
    else [Path(sys.executable).parent]
)
shell.prefix(
    "set -euo pipefail; export OMP_WAIT_POLICY=PASSIVE"
    f" PYTHONPATH={shlex.quote(str(ROOT))}"
    f" PATH={':'.join(shlex.quote(str(p)) for p in own_python)}{':' if own_python else ''}$PATH; "
)

from special_steps.core.digest import digest_of
from special_steps.core.errors import UserError
from special_steps.core.settings import load
from special_steps.materials.words import check_overrides

try:
    settings = load(config)
    for name, scene in settings["scenes"].items():
        check_overrides(
            scene["materials"], scene["classes"], f"config: scenes.{name}.materials"
        )
except UserError as error:
    raise WorkflowError(str(error))

DEMO = "resources/demo/"  # the files that a rule here makes
SCENES, CLIPS, RUNS = settings["scenes"], settings["clips"], settings["runs"]


wildcard_constraints:
    scene="|".join(SCENES),
    run="|".join(RUNS),
    clip="|".join(CLIPS),
    scale=r"[0-9.]+",
    seed=r"\d+",
    input="hsi|rgb",
    stage=r"pseudo|cotrain|consensus|baseline|seed-\d+/(network|warmup|final)",
    folder=r"|quick/|seed-\d+/",


def flags(options):
    """Options as a command line; all but text as JSON, so that what is not set is null."""
    words = []
    for name, value in options.items():
        words += [f"--{name}", value if isinstance(value, str) else json.dumps(value)]
    return shlex.join(words)


def data_file(path):
    """A scene's file: absolute as it is; the demo's, which a rule makes; else from the data folder."""
    if path.startswith(DEMO):
        return path
    return os.path.normpath(os.path.join(settings["data"], path))


def data_files(paths):
    return [data_file(p) for p in ([paths] if isinstance(paths, str) else paths)]


def headers(paths):
    """ENVI headers beside the files: an edited header means another cube."""
    beside = [h for p in paths for h in (Path(p).with_suffix(".hdr"), Path(f"{p}.hdr"))]
    there = [str(h) for h in beside if h.is_file() or str(h) == f"{DEMO}scene.hdr"]
    return [h for h in there if h not in paths]


def cube_settings(scene):
    return {k: v for k, v in SCENES[scene]["cube"].items() if k != "path"}


def class_names(scene):
    return list(SCENES[scene]["classes"])


def model_files(clip):
    """The user's files that a CLIP is read from: a changed one means other pseudo-labels."""
    paths = [CLIPS[clip][key] for key in ("model", "weights", "jbu_weights")]
    return [p for p in paths if p and os.path.isfile(p)]


def bundled_model():
    """What the bundled model is: wherever the project lies, another one means a rerun."""
    folder = ROOT / "special_steps" / "bundled_clip"
    described = json.loads((folder / "model_config.json").read_text())
    return [(folder / "weights.sha256").read_text().split()[0], described]


def bundled_weights(clip):
    """The same, for a CLIP that uses it."""
    return bundled_model() if CLIPS[clip]["model"] == "bundled" else None


def model_settings(clip):
    return {k: CLIPS[clip][k] for k in ("model", "weights")}


def dense_settings(clip):
    return {k: v for k, v in CLIPS[clip].items() if k != "templates"}


def scale_maps(scene, run):
    """What fuse averages: the user's own map, or a store for each scale of the run; none without a CLIP."""
    own = RUNS[run]["pseudo_labels"]
    if own:
        return [data_file(own.replace("{scene}", scene))]
    folder = f"results/{scene}/clip/{RUNS[run]['clip']}"
    return [f"{folder}/scale-{scale}.zarr" for scale in RUNS[run]["scales"]]


def evidence_files(scene, run):
    """What the spectral library says of the scene, for runs that ask it."""
    asked = RUNS[run]["evidence"] == "library"
    files = [f"results/{scene}/evidence.zarr", f"results/{scene}/evidence.json"]
    return files if asked else []


def witnesses():
    """What is known of words and spectra without ground truth: scene, run (None: all), file."""
    both = [
        (s, r, f"results/{s}/{r}/witnesses.json")
        for s in SCENES
        for r in RUNS
        if evidence_files(s, r) and scale_maps(s, r)
    ]
    asking = [s for s in SCENES if any(evidence_files(s, r) for r in RUNS)]
    return [(s, None, f"results/{s}/evidence.json") for s in asking] + both


def clip_checked(scene, run):
    """Spectra that CLIP's labels are compared with, where they are joined with the library's."""
    asked = evidence_files(scene, run) and RUNS[run]["clip"] != "none"
    own = RUNS[run]["pseudo_labels"]
    return [f"results/{scene}/features-hsi.zarr"] if asked and not own else []


def own_spectra(scene):
    return {k: data_file(v) for k, v in SCENES[scene]["spectra"].items()}


# now, not when a job needs them: Snakemake would silently take what an earlier run has made without them
for scene in SCENES:
    for name, file in own_spectra(scene).items():
        if not os.path.isfile(file):
            raise WorkflowError(
                f"config: scenes.{scene}.spectra: '{name}' has {file}, which is no file;"
                " relative paths start from the folder in data"
            )


def seeds(run):
    """Folder of each training of a run."""
    trained = RUNS[run]["method"] in TRAININGS
    return [f"seed-{seed}/" for seed in RUNS[run]["seeds"]] if trained else []


# what the trainings of a method are, in order: rules, and names of their tables of epochs
TRAININGS = {"agreement": ["network"], "published": ["warmup", "refine"]}


def stages(run):
    """All maps of a run, in the order of the method."""
    following = {
        "agreement": ["cotrain", *(f"{s}network" for s in seeds(run)), "consensus"],
        "published": [f"{s}{m}" for s in seeds(run) for m in ("warmup", "final")],
        "none": [],
    }
    return ["pseudo", *following.get(RUNS[run]["method"], ["baseline"])]


def exported(run):
    """Folders that a run's maps are exported to, and the stage that each shows."""
    method = RUNS[run]["method"]
    if method == "published":
        return {folder: f"{folder}final" for folder in seeds(run)}
    quick = {"quick/": "cotrain"} if method == "agreement" else {}
    return {"": stages(run)[-1]} | quick


def truth_settings(scene):
    truth = SCENES[scene]["ground_truth"]
    return {k: v for k, v in truth.items() if k != "path"}


def checks():
    """Commands that compare each ground truth with its scene's header before any job starts."""
    for scene, given in SCENES.items():
        if given["ground_truth"]:
            options = {"class_names": class_names(scene)}
            for part in ("cube", "ground_truth"):
                options[part] = given[part] | {"path": data_files(given[part]["path"])}
            yield f"python -m special_steps.check_ground_truth {flags(options)}"


def map_id(scene, run, stage):
    """Which map it is, for the summary."""
    seed, _, name = stage.rpartition("/")
    seed = int(seed.removeprefix("seed-")) if seed else None
    return {"scene": scene, "run": run, "seed": seed, "stage": name}


def all_metrics():
    return [
        f"results/{scene}/{run}/{stage}.metrics.json"
        for scene in SCENES
        if SCENES[scene]["ground_truth"]
        for run in RUNS
        for stage in stages(run)
    ]


def diagnosed():
    """Scenes and runs with a diagnosis, which needs no ground truth."""
    return [(s, r) for s in SCENES for r in RUNS if RUNS[r]["method"] == "agreement"]


def maps(scene, run, quick=False):
    """The maps of a run: of the whole run, or of a quick one."""
    folders = [f for f in exported(run) if (f == "quick/") == quick]
    names = ("map.png", "map.tif", "confidence.tif")
    return [f"results/{scene}/{run}/{f}{name}" for f in folders for name in names]


def all_results():
    pairs = [(scene, run) for scene in SCENES for run in RUNS]
    curves = [
        f"results/{s}/{r}/{seed}epochs.png" for s, r in pairs for seed in seeds(r)
    ]
    known = all_metrics() or diagnosed() or witnesses()
    table = ["results/summary.csv"] if known else []
    exports = [file for s, r in pairs for file in maps(s, r)]
    return exports + curves + evidence_pictures(RUNS) + table


def evidence_pictures(runs):
    return [
        f"results/{s}/evidence.png"
        for s in SCENES
        if any(evidence_files(s, r) for r in runs)
    ]


def quick_results(wildcards):
    """Maps without training, and how right they are where there is ground truth."""
    if not diagnosed():
        raise WorkflowError(
            "quick: no run has method 'agreement', whose co-training makes the quick map;"
            " add one, or run the whole workflow: snakemake --cores all"
        )
    files = [file for s, r in diagnosed() for file in maps(s, r, quick=True)]
    files += evidence_pictures({run for _, run in diagnosed()})
    for scene, run in diagnosed():
        if SCENES[scene]["ground_truth"]:
            files.append(f"results/{scene}/{run}/cotrain.metrics.json")
    return files
