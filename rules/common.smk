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

from special_steps.core import arguments
from special_steps.core.arguments import DEMO
from special_steps.core.campaigns import TOGETHER, learned_on, learns_together
from special_steps.core.campaigns import members, runs_of
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
    arguments.check_files(settings)
except UserError as error:
    raise WorkflowError(str(error))

SCENES, CLIPS, RUNS = settings["scenes"], settings["clips"], settings["runs"]
MAPPED = [(s, r) for s in SCENES for r in runs_of(settings, s)]
# those with labels of their own, from which they learn or another scene does
LABELLED = [(s, r) for s, r in MAPPED if not SCENES[s]["apply"]]


wildcard_constraints:
    scene="|".join([*SCENES, TOGETHER] if members(settings) else SCENES),
    run="|".join(RUNS),
    clip="|".join(CLIPS),
    scale=r"[0-9.]+",
    seed=r"\d+",
    input="hsi|rgb",
    stage=r"pseudo|cotrain|consensus|baseline|seed-\d+/(network|warmup|final)|applied(-cotrain)?",
    applied="applied|applied-cotrain",
    folder=r"|quick/|seed-\d+/",


def flags(options):
    """Options as a command line; all but text as JSON, so that what is not set is null."""
    words = []
    for name, value in options.items():
        words += [f"--{name}", value if isinstance(value, str) else json.dumps(value)]
    return shlex.join(words)


# what `quick_map` asks, too
data_file = functools.partial(arguments.data_file, settings)
mask_settings = functools.partial(arguments.mask_settings, settings)
own_labels = functools.partial(arguments.own_labels, settings)
scale_maps = functools.partial(arguments.scale_maps, settings)
evidence_files = functools.partial(arguments.evidence_files, settings)
clip_checked = functools.partial(arguments.clip_checked, settings)
own_spectra = functools.partial(arguments.own_spectra, settings)
given_labels = functools.partial(arguments.given_labels, settings)
taught_by = functools.partial(arguments.taught_by, settings)


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


def mask_files(scene):
    masks = mask_settings(scene)
    raster = with_sidecars([masks["mask"]["path"]]) if masks["mask"] else []
    area = polygon_files(Path(masks["area"])) if masks["area"] else []
    return raster + list(map(str, area))


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


def label_sidecars(scene, run):
    """What is read with the user's own class probabilities."""
    own = own_labels(scene, run)
    return [file for file in all_files(own) if file != own] if own else []


def witnesses():
    """What is known of words and spectra without ground truth: scene, run (None: all), file."""
    both = [
        (s, r, f"results/{s}/{r}/witnesses.json")
        for s, r in LABELLED
        if (evidence_files(s, r) and scale_maps(s, r)) or given_labels(s)
    ]
    asking = dict.fromkeys(s for s, r in LABELLED if evidence_files(s, r))
    return [(s, None, f"results/{s}/evidence.json") for s in asking] + both


def presences(folder=""):
    """What is known of whether each class is there at all: scene, run, file; where words and pixels met."""
    return [
        (s, r, f"results/{s}/{r}/{folder}presence.json")
        for s, r in LABELLED
        if RUNS[r]["method"] != "none" and folder in exported(s, r)
    ]


def told_without_truth():
    """All that is known of maps without ground truth: scene, run (None: all), file."""
    applied = [(s, r) for s, r in MAPPED if stages(s, r)[-1] == "applied"]
    told = [(s, r, f"results/{s}/{r}/applied.json") for s, r in applied]
    return witnesses() + told + presences()


def reference_files(scene):
    """Points that people have filled, and beside them how they were drawn."""
    points = data_file(SCENES[scene]["reference"])
    strata = str(strata_file(Path(points)))
    return [points] + [strata] * os.path.isfile(strata)


def assessments():
    """Maps that are assessed with the scene's reference points: scene, run, file; not the quick ones."""
    return [
        (s, r, f"results/{s}/{r}/{folder}assessment.json")
        for s, r in MAPPED
        if SCENES[s]["reference"]
        for folder in exported(s, r)
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


def learned(scene, run):
    """The scene whose training maps a scene: itself, the one that it is applied from, or TOGETHER."""
    return learned_on(settings, scene, run)


def features_of(scene, run):
    """What a run learns from."""
    if scene == TOGETHER:
        return f"results/{TOGETHER}/{run}/features-hsi.zarr"
    return f"results/{scene}/features-{RUNS[run]['input']}.zarr"


def seeds(scene, run):
    """Folder of each training of a run on a scene."""
    trained = RUNS[run]["method"] in TRAININGS and learned(scene, run) == scene
    return [f"seed-{seed}/" for seed in RUNS[run]["seeds"]] if trained else []


# what the trainings of a method are, in order: rules, and names of their tables of epochs; and the last one's store
TRAININGS = {"agreement": ["network"], "published": ["warmup", "refine"]}
TRAINED = {"agreement": "network", "published": "final"}


def stages(scene, run):
    """All maps of a run, in the order of the method."""
    if learned(scene, run) != scene:
        return ["pseudo"] * ((scene, run) in LABELLED) + ["applied"]
    trained = seeds(scene, run)
    following = {
        "agreement": ["cotrain", *(f"{seed}network" for seed in trained), "consensus"],
        "published": [
            *(f"{seed}{stage}" for seed in trained for stage in ("warmup", "final")),
            "consensus",
        ],
        "none": [],
    }
    return ["pseudo", *following.get(RUNS[run]["method"], ["baseline"])]


def exported(scene, run):
    """Folders that a run's maps are exported to, and the stage that each shows."""
    method, last = RUNS[run]["method"], stages(scene, run)[-1]
    first = "applied-cotrain" if last == "applied" else "cotrain"
    quick = {"quick/": first} if method == "agreement" else {}
    single = seeds(scene, run) if settings["export"]["seeds"] else []
    return {"": last} | quick | {s: f"{s}{TRAINED[method]}" for s in single}


def applied_from(scene, run, applied):
    """What a scene is mapped by: the other scene's features, map, and what co-training and networks learned."""
    source = learned(scene, run)
    folder, method = f"results/{source}/{run}/", RUNS[run]["method"]
    quick = applied == "applied-cotrain"
    trained = [] if quick else seeds(source, run)
    return {
        "features": features_of(source, run),
        "source": f"{folder}{'cotrain' if quick else 'consensus'}.zarr",
        "cotrain": f"{folder}cotrain.safetensors" if method == "agreement" else None,
        "networks": [
            f"{folder}{seed}{TRAINED[method]}.safetensors" for seed in trained
        ],
    }


def values_of(scene, source):
    """Names of a scene and of the one that it is mapped by, and what the config says of their values."""
    first = members(settings)[0] if source == TOGETHER else source
    return {
        "scene": scene,
        "units": SCENES[scene]["units"],
        "source_scene": source,
        "source_units": SCENES[first]["units"],
    }


def tile_of(run):
    """Side of what a run's networks see at a time."""
    training = "network" if RUNS[run]["method"] == "agreement" else "training"
    return RUNS[run][training]["tile"]


def stacked_scenes(run):
    """The scenes that one classifier learns from, as the step takes them."""
    return [
        {
            "scene": scene,
            "cube": f"results/{scene}/cube.zarr",
            "pseudo": f"results/{scene}/{run}/pseudo.zarr",
            "units": SCENES[scene]["units"],
        }
        for scene in members(settings)
    ]


def campaigns():
    """Scenes that one model maps, by the scene that it learned from, and the run."""
    found = {}
    for scene, run in MAPPED:
        found.setdefault((learned(scene, run), run), []).append(scene)
    return {of: scenes for of, scenes in found.items() if len(scenes) > 1}


def mosaic_maps(source, run):
    return [f"results/{scene}/{run}/map.tif" for scene in campaigns()[source, run]]


def own_trainings():
    """Scenes and runs with a training of their own, that of several scenes among them."""
    together = [r for r in RUNS if learns_together(settings, r)]
    own = [(s, r) for s, r in MAPPED if learned(s, r) == s]
    return own + [(TOGETHER, r) for r in together]


def cotrained(scene, run):
    """What the map of a run is made of, beside its networks."""
    made = RUNS[run]["method"] == "agreement"
    return [f"results/{scene}/{run}/cotrain.zarr"] if made else []


def rejecting(run, folder):
    """Confidence under which a map's pixels are unknown; None for maps of single seeds, whose margin is no probability."""
    return None if folder.startswith("seed-") else RUNS[run]["reject"]


def rejecting_stage(scene, run, stage):
    """The same, for the stages that a run's maps are exported from."""
    shown = [folder for folder, last in exported(scene, run).items() if last == stage]
    return rejecting(run, shown[0]) if shown else None


def unknown():
    """Maps with pixels of unknown class: scene, run, confidence that a class needs; not the quick ones."""
    return [(s, r, rejecting(r, "")) for s, r in MAPPED if rejecting(r, "") is not None]


def voting(scene, run):
    """Stores of the networks that a run's map is made of: what can agree with it, or not."""
    last = TRAINED.get(RUNS[run]["method"])
    return [f"results/{scene}/{run}/{seed}{last}.zarr" for seed in seeds(scene, run)]


def networks_asked(scene, run, folder):
    """How many they are; None for a map that is not made of several networks."""
    return len(seeds(scene, run)) or None if folder == "" else None


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


def scenes_like(scene):
    """The scene whose bands a scene has to have."""
    sources = {learned(s, r) for s, r in MAPPED if s == scene} - {scene}
    if TOGETHER in sources:
        sources = {members(settings)[0]} - {scene}
    return next(iter(sources), None)


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
                "like": scenes_like(scene),
                "class_names": class_names(scene),
                "labels": given["labels"] and data_file(given["labels"]),
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
    every = [*SCENES, TOGETHER] if members(settings) else SCENES
    logs = [file for scene in every for file in Path("logs", scene).rglob("*.log")]
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
        for scene, run in MAPPED
        if SCENES[scene]["ground_truth"]
        for stage in stages(scene, run)
    ]


def diagnosed():
    """Scenes and runs with a diagnosis, which needs no ground truth."""
    return [(s, r) for s, r in own_trainings() if RUNS[r]["method"] == "agreement"]


def maps(scene, run, quick=False):
    """The maps of a run: of the whole run, or of a quick one."""
    folders = [f for f in exported(scene, run) if (f == "quick/") == quick]
    return [file for folder in folders for file in map_files(scene, run, folder)]


def map_files(scene, run, folder):
    """A map with all that is made of it."""
    last = ["stac-item.json"] + ["index.html"] * settings["export"]["page"]
    last += ["assessment.json"] * bool(SCENES[scene]["reference"])
    files = [f"results/{scene}/{run}/{folder}{name}" for name in last]
    return bundle(scene, run, folder) + files


def linked():
    """The files of each map of whole runs, for the summary."""
    files = [
        map_files(scene, run, folder)
        for scene, run in MAPPED
        for folder in exported(scene, run)
        if folder != "quick/"
    ]
    return files + [[mosaic] for mosaic in mosaics()]


def mosaics():
    return [f"results/mosaic/{source}/{run}.vrt" for source, run in campaigns()]


def stages_before(scene, run, folder):
    """The maps on the way to the one in a folder, itself last."""
    last = exported(scene, run)[folder]
    if last.startswith("applied"):
        return [*stages(scene, run)[:-1], last]
    before = stages(scene, run)[: stages(scene, run).index(last) + 1]
    if folder.startswith("seed-"):  # not those of other seeds
        before = [s for s in before if s.startswith(folder) or "/" not in s]
    return before


def evidence_told(scene, run):
    """What the spectral library says of the scene's classes in words and lines, for runs that ask it."""
    known = evidence_files(scene, run)[1:] if (scene, run) in LABELLED else []
    return [*known, f"results/{scene}/evidence.csv"] if known else []


def page_inputs(scene, run, folder):
    """What a page shows besides the map, by the option that takes it."""
    where = f"results/{scene}/{run}/"
    own = [seed for seed in seeds(scene, run) if folder in ("", seed)]
    told = [file for s, r, file in witnesses() if (s, r) == (scene, run)]
    if (scene, run) in diagnosed():
        told.append(f"{where}cotrain.json")
    if (last := exported(scene, run)[folder]).startswith("applied"):
        told.append(f"{where}{last}.json")
    if not folder.startswith("seed-"):
        told += [file for s, r, file in presences(folder) if (s, r) == (scene, run)]
    return {
        "seeds": voting(scene, run) if folder == "" else [],
        "spectra": f"{where}{folder}spectra.csv",
        "evidence": evidence_told(scene, run),
        "told": told,
        "metrics": [
            f"{where}{stage}.metrics.json"
            for stage in stages_before(scene, run, folder)
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
            for seed in own
        },
    }


def bundle(scene, run, folder):
    """The files of a map, for a GIS."""
    names = ["map.png", "map.tif", "map.tif.aux.xml", "map.qml", "confidence.tif"]
    names += ["probabilities.tif", "polygons.gpkg", "polygons.qml", "areas.csv"]
    names += ["spectra.csv", "spectra.png"]
    if folder == "" and len(voting(scene, run)) > 1:
        names.append("disagreement.tif")
    return [f"results/{scene}/{run}/{folder}{name}" for name in names]


def all_results():
    curves = [
        f"results/{s}/{r}/{seed}epochs.png"
        for s, r in own_trainings()
        for seed in seeds(s, r)
    ]
    exports = [file for s, r in MAPPED for file in maps(s, r)]
    pictures = evidence_pictures(RUNS)
    return exports + mosaics() + curves + pictures + ["results/summary.csv"]


def evidence_pictures(runs):
    return [
        f"results/{s}/evidence.png"
        for s in dict.fromkeys(
            s for s, r in LABELLED if r in runs and evidence_files(s, r)
        )
    ]


def quick_results(wildcards):
    """Maps without training, and how right they are where there is ground truth."""
    if not diagnosed():
        raise WorkflowError(
            "quick: no run has method 'agreement', whose co-training makes the quick map;"
            " add one, or run the whole workflow: snakemake --cores all"
        )
    quick = [(s, r) for s, r in MAPPED if "quick/" in exported(s, r)]
    files = [file for s, r in quick for file in maps(s, r, quick=True)]
    files += evidence_pictures({run for _, run in quick})
    for scene, run in quick:
        if SCENES[scene]["ground_truth"]:
            stage = exported(scene, run)["quick/"]
            files.append(f"results/{scene}/{run}/{stage}.metrics.json")
    return files
