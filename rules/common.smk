"""Reads the configuration, builds paths and command lines; no rule in here."""

import functools
import json
import os
import shlex
import sys
import tempfile
from pathlib import Path
from subprocess import CalledProcessError

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
from special_steps.core.settings import config_of, load
from special_steps.io.reference_sample import strata_file
from special_steps.io.source import is_archive, source_files
from special_steps.io.vectors import polygon_files
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


@functools.cache
def all_files(path):
    """A file, or folder, with all that is read with it (headers, sidecars): an edited one means another scene."""
    if path.startswith(DEMO):
        return [path] if path.endswith(".tif") else [path, f"{DEMO}scene.hdr"]
    return list(dict.fromkeys(str(file) for file in source_files(path))) or [path]


def with_sidecars(paths):
    return [file for path in paths for file in all_files(path)]


def cube_paths(scene):
    """What ingest opens: the scene's files, or the folder that its archive is unpacked to."""
    paths = data_files(SCENES[scene]["cube"]["path"])
    if len(paths) == 1 and is_archive(paths[0]):
        return [f"results/{scene}/product"]
    return paths


def scene_files(scene):
    """What ingest reads of a scene."""
    paths = cube_paths(scene)
    return paths if paths[0].startswith("results/") else with_sidecars(paths)


def mask_settings(scene):
    """What leaves out pixels of a scene, with the paths of its files."""
    given = SCENES[scene]
    mask = given["mask"] and given["mask"] | {"path": data_file(given["mask"]["path"])}
    area = given["area"] and data_file(given["area"])
    return {"mask": mask, "mask_quality": given["mask_quality"], "area": area}


def mask_files(scene):
    masks = mask_settings(scene)
    raster = with_sidecars([masks["mask"]["path"]]) if masks["mask"] else []
    area = polygon_files(Path(masks["area"])) if masks["area"] else []
    return raster + list(map(str, area))


def cube_settings(scene):
    own = {k: v for k, v in SCENES[scene]["cube"].items() if k != "path"}
    return own | mask_settings(scene)


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


def own_labels(scene, run):
    """The user's own class probabilities, in place of CLIP's."""
    own = RUNS[run]["pseudo_labels"]
    return own and data_file(own["path"].replace("{scene}", scene))


def scale_maps(scene, run):
    """What fuse averages: the user's own map, or a store for each scale of the run; none without a CLIP."""
    own = own_labels(scene, run)
    if own:
        return [own]
    folder = f"results/{scene}/clip/{RUNS[run]['clip']}"
    return [f"{folder}/scale-{scale}.zarr" for scale in RUNS[run]["scales"]]


def label_sidecars(scene, run):
    """What is read with the user's own class probabilities."""
    own = own_labels(scene, run)
    return [file for file in all_files(own) if file != own] if own else []


def aligned(run):
    """Whether the user's own class probabilities are brought to the scene's grid."""
    own = RUNS[run]["pseudo_labels"]
    return bool(own and own["align"])


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


def presences(folder=""):
    """What is known of whether each class is there at all: scene, run, file; the maps of `none` are the labels."""
    return [
        (s, r, f"results/{s}/{r}/{folder}presence.json")
        for s in SCENES
        for r in RUNS
        if RUNS[r]["method"] != "none" and folder in exported(r)
    ]


def clip_checked(scene, run):
    """Spectra that CLIP's labels are compared with, where they are joined with the library's."""
    asked = evidence_files(scene, run) and RUNS[run]["clip"] != "none"
    own = RUNS[run]["pseudo_labels"]
    return [f"results/{scene}/features-hsi.zarr"] if asked and not own else []


def own_spectra(scene):
    return {k: data_file(v) for k, v in SCENES[scene]["spectra"].items()}


def reference_files(scene):
    """Points that people have filled, and beside them how they were drawn."""
    points = data_file(SCENES[scene]["reference"])
    strata = str(strata_file(Path(points)))
    return [points] + [strata] * os.path.isfile(strata)


def assessments():
    """Maps that are assessed with the scene's reference points: scene, run, file; not the quick ones."""
    return [
        (s, r, f"results/{s}/{r}/{folder}assessment.json")
        for s in SCENES
        if SCENES[s]["reference"]
        for r in RUNS
        for folder in exported(r)
        if folder != "quick/"
    ]


# now, not when a job needs them: Snakemake would silently take what an earlier run has made without them
for scene in SCENES:
    if SCENES[scene]["reference"] and not os.path.isfile(reference_files(scene)[0]):
        raise WorkflowError(
            f"config: scenes.{scene}.reference: {reference_files(scene)[0]} is no file; draw points of a map with"
            " python -m special_steps.reference_points, fill them, and give that file; relative paths start from the"
            " folder in data"
        )
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


# what the trainings of a method are, in order: rules, and names of their tables of epochs; and the last one's store
TRAININGS = {"agreement": ["network"], "published": ["warmup", "refine"]}
TRAINED = {"agreement": "network", "published": "final"}


def stages(run):
    """All maps of a run, in the order of the method."""
    following = {
        "agreement": ["cotrain", *(f"{s}network" for s in seeds(run)), "consensus"],
        "published": [
            *(f"{seed}{stage}" for seed in seeds(run) for stage in ("warmup", "final")),
            "consensus",
        ],
        "none": [],
    }
    return ["pseudo", *following.get(RUNS[run]["method"], ["baseline"])]


def exported(run):
    """Folders that a run's maps are exported to, and the stage that each shows."""
    method = RUNS[run]["method"]
    quick = {"quick/": "cotrain"} if method == "agreement" else {}
    single = seeds(run) if settings["export"]["seeds"] else []
    return {"": stages(run)[-1]} | quick | {s: f"{s}{TRAINED[method]}" for s in single}


def cotrained(scene, run):
    """What the map of a run is made of, beside its networks."""
    made = RUNS[run]["method"] == "agreement"
    return [f"results/{scene}/{run}/cotrain.zarr"] if made else []


def rejecting(run, folder):
    """Confidence under which a map's pixels are unknown; None for maps of single seeds, whose margin is no probability."""
    return None if folder.startswith("seed-") else RUNS[run]["reject"]


def rejecting_stage(run, stage):
    """The same, for the stages that a run's maps are exported from."""
    shown = [folder for folder, last in exported(run).items() if last == stage]
    return rejecting(run, shown[0]) if shown else None


def unknown():
    """Maps with pixels of unknown class: scene, run, confidence that a class needs; not the quick ones."""
    return [
        (s, r, rejecting(r, ""))
        for s in SCENES
        for r in RUNS
        if "" in exported(r) and rejecting(r, "") is not None
    ]


def uncalibrated(scene, run):
    """Pseudo-labels of a run without co-training, by which its map's confidence is told."""
    return [] if cotrained(scene, run) else [f"results/{scene}/{run}/pseudo.zarr"]


def voting(scene, run):
    """Stores of the networks that a run's map is made of: what can agree with it, or not."""
    last = TRAINED.get(RUNS[run]["method"])
    return [f"results/{scene}/{run}/{seed}{last}.zarr" for seed in seeds(run)]


def networks_asked(run, folder):
    """How many they are; None for a map that is not made of several networks."""
    return len(seeds(run)) or None if folder == "" else None


def prompts(scene, run):
    """Words of a run, and the CLIP that read them: for the account of how a map was made."""
    clip = RUNS[run]["clip"]
    read = None
    if clip != "none" and not RUNS[run]["pseudo_labels"]:
        given = CLIPS[clip]
        read = {key: given[key] for key in ("model", "weights", "templates")}
        if given["model"] == "bundled":
            read["sha256"] = bundled_model()[0]
    return {"classes": SCENES[scene]["classes"], "clip": read}


def read_models(scene, run):
    """The user's own files of that CLIP."""
    return model_files(RUNS[run]["clip"]) if prompts(scene, run)["clip"] else []


def truth_settings(scene):
    truth = SCENES[scene]["ground_truth"]
    return {k: v for k, v in truth.items() if k != "path"}


def scenes_to_check():
    """Scenes as check_scenes takes them, before any job starts; not those that a rule makes or unpacks."""
    checked = []
    for scene, given in SCENES.items():
        truth = given["ground_truth"]
        cube = given["cube"] | {"path": cube_paths(scene)}
        checked.append(
            {
                "scene": scene,
                "cube": cube | mask_settings(scene),
                "class_names": class_names(scene),
                "ground_truth": truth and truth | {"path": data_files(truth["path"])},
            }
        )
    return checked


def check_scenes():
    """Compare headers, masks and ground truth of all scenes in one process."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(scenes_to_check(), file)
        file.flush()
        try:
            shell(
                f"python -m special_steps.check_scenes --scenes {shlex.quote(file.name)}"
            )
        except CalledProcessError:
            raise WorkflowError("nothing was run: the errors above come first")


def say_warnings():
    """At a run's end: what the logs of its scenes warn of, in the order in which it was found, each warning once."""
    logs = [file for scene in SCENES for file in Path("logs", scene).rglob("*.log")]
    lines = {}
    for file in sorted(logs, key=os.path.getmtime):
        _, scene, *folders = file.parts[:-1]
        if folders and folders[0] not in (*RUNS, "clip"):  # of another config
            continue
        for line in file.read_text(errors="replace").splitlines():
            text = line.partition(" warning: ")[2].replace("<name>", scene)
            if text:
                lines[f"warning: {scene}: {text}"] = None
    if lines:
        print("\nWhat you should know:", *lines, sep="\n", file=sys.stderr)


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
    return [file for folder in folders for file in map_files(scene, run, folder)]


def map_files(scene, run, folder):
    """A map with all that is made of it."""
    last = ["stac-item.json"] + ["index.html"] * settings["export"]["page"]
    last += ["assessment.json"] * bool(SCENES[scene]["reference"])
    files = [f"results/{scene}/{run}/{folder}{name}" for name in last]
    return bundle(scene, run, folder) + files


def linked():
    """The files of each map of whole runs, for the summary."""
    return [
        map_files(scene, run, folder)
        for scene in SCENES
        for run in RUNS
        for folder in exported(run)
        if folder != "quick/"
    ]


def stages_before(run, folder):
    """The maps on the way to the one in a folder, itself last."""
    last = exported(run)[folder]
    before = stages(run)[: stages(run).index(last) + 1]
    if folder.startswith("seed-"):  # not those of other seeds
        before = [s for s in before if s.startswith(folder) or "/" not in s]
    return before


def page_inputs(scene, run, folder):
    """What a page shows besides the map, by the option that takes it."""
    where = f"results/{scene}/{run}/"
    trained = seeds(run) if folder == "" else [s for s in seeds(run) if s == folder]
    told = [file for s, r, file in witnesses() if (s, r) == (scene, run)]
    if (scene, run) in diagnosed():
        told.append(f"{where}cotrain.json")
    if not folder.startswith("seed-"):
        told += [file for s, r, file in presences(folder) if (s, r) == (scene, run)]
    known = evidence_files(scene, run)[1:]
    return {
        "seeds": voting(scene, run) if folder == "" else [],
        "evidence": [*known, f"results/{scene}/evidence.csv"] if known else [],
        "told": told,
        "metrics": [
            f"{where}{stage}.metrics.json"
            for stage in stages_before(run, folder)
            if SCENES[scene]["ground_truth"]
        ],
        "assessment": [
            file
            for _, _, file in assessments()
            if file == f"{where}{folder}assessment.json"
        ],
        "tables": {
            seed.strip("/"): [
                f"{where}{seed}{training}.csv"
                for training in TRAININGS[RUNS[run]["method"]]
            ]
            for seed in trained
        },
    }


def bundle(scene, run, folder):
    """The files of a map, for a GIS."""
    names = ["map.png", "map.tif", "map.tif.aux.xml", "map.qml", "confidence.tif"]
    names += ["probabilities.tif", "polygons.gpkg", "polygons.qml", "areas.csv"]
    if folder == "" and len(voting(scene, run)) > 1:
        names.append("disagreement.tif")
    return [f"results/{scene}/{run}/{folder}{name}" for name in names]


def all_results():
    pairs = [(scene, run) for scene in SCENES for run in RUNS]
    curves = [
        f"results/{s}/{r}/{seed}epochs.png" for s, r in pairs for seed in seeds(r)
    ]
    exports = [file for s, r in pairs for file in maps(s, r)]
    return exports + curves + evidence_pictures(RUNS) + ["results/summary.csv"]


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
