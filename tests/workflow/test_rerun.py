"""What runs again after what: the rerun matrix, from the rules themselves.

For every rule: a setting that it takes, a line of its module and of all modules that it imports, comments, the content
of its inputs, and inputs that are touched but not changed. What shall run again follows from two accounts that are not
the digests': what Snakemake says of all jobs (inputs, outputs, commands), and what Python loads for a step.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from jobs import Job, and_what_follows, jobs_of, outputs_of
from runs import ROOT, SMALL, command

pytestmark = pytest.mark.slow

PACKAGE = ROOT / "special_steps"
MODULES = sorted(
    str(path.relative_to(PACKAGE).with_suffix("")).replace("/", ".")
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
)
TABLES = sorted(
    str(path.relative_to(PACKAGE))
    for kind in ("csv", "html")
    for path in PACKAGE.rglob(f"*.{kind}")
)
TRAINING = "bundled_clip.training."
KERNELS = sorted(
    path.name for path in (PACKAGE / "kernels").iterdir() if path.suffix in (".cpp", ".h")
)


class Place(NamedTuple):
    """A copy of the project, and a folder in which it has run."""

    project: Path
    folder: Path

    def dry(self, *options: str, config: dict[str, Any] | None = None) -> list[Job]:
        """The jobs of a dry run of the project in the folder, with another config if given."""
        words = command("--dry-run", "--printshellcmds", "--nolock", *options)
        words[words.index("-s") + 1] = str(self.project / "workflow" / "Snakefile")
        if config:
            file = self.folder / f"{abs(hash(json.dumps(config)))}.yaml"
            file.write_text(yaml.safe_dump(config))
            words[words.index("my.yaml")] = file.name
        done = subprocess.run(words, cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return jobs_of(done.stdout + done.stderr)


def copied(finished: Path, where: Path) -> Place:
    project, folder = where / "project", where / "folder"
    leave = shutil.ignore_patterns(
        ".venv", ".git", "results", ".snakemake", "resources", ".*_cache"
    )
    shutil.copytree(ROOT, project, ignore=leave)
    shutil.copytree(finished, folder, symlinks=True)
    return Place(project, folder)


@pytest.fixture(scope="module")
def untouched(finished, tmp_path_factory) -> Place:
    """For tests that put back what they change."""
    return copied(finished, tmp_path_factory.mktemp("untouched"))


@pytest.fixture
def place(finished, tmp_path) -> Place:
    return copied(finished, tmp_path)


@pytest.fixture(scope="module")
def every_job(untouched) -> list[Job]:
    """All jobs of the run."""
    return untouched.dry("--forceall")


def test_nothing_runs_again_when_nothing_changed(untouched):
    assert untouched.dry() == []


# --- settings -----------------------------------------------------------------------------------


def changed(*path: str, value: Any) -> dict[str, Any]:
    """The small run's config with another value of one setting."""
    config = deepcopy(SMALL)
    inner = config
    for name in path[:-1]:
        inner = inner.setdefault(name, {})
    inner[path[-1]] = value
    return config


DEMO, TRUTH = ("scenes", "demo"), ("scenes", "demo", "ground_truth")
PUBLISHED = SMALL["runs"]["published"]["training"]
LABELS = SMALL["scenes"]["demo"]["ground_truth"]["labels"]
SETTINGS = {
    "ingest": [
        changed(*DEMO, "cube", "scale", value=5000),
        changed(*DEMO, "cube", "bad_ranges", value=[[400, 450]]),
        changed(*DEMO, "cube", "nodata", value=-1),
        changed(*DEMO, "cube", "nodata", value=[-1, 0]),
        changed(*DEMO, "cube", "drop_bands", value=[1, "3-5"]),
        changed(*DEMO, "mask_quality", value=[]),
    ],
    "rgb": [
        changed("rgb", "stretch", value=[1, 99]),
        changed("rgb", "wavelengths", value=[660, 550, 450]),
    ],
    "text": [
        changed(*DEMO, "classes", value=["water", {"trees": ["forest"]}, *list(LABELS)[2:]]),
        changed("clips", value={"bundled": {"model": "bundled", "templates": ["{}"]}}),
    ],
    "clip_scale": [
        changed("clips", value={"bundled": {"model": "bundled", "stride": 56}}),
        changed("clips", value={"bundled": {"model": "bundled", "upsampling": "bilinear"}}),
        changed("clips", value={"bundled": {"model": "bundled", "global_bias": -0.1}}),
    ],
    "evidence": [
        changed(*DEMO, "materials", value={"roof": ["tile"]}),
        changed(*DEMO, "materials", value={"roof": []}),
        changed(*DEMO, "units", value="reflectance"),
        changed(
            *DEMO, "spectra", value={"roof": str(ROOT / "README.md")}
        ),  # any file: nothing is run
        changed(*DEMO, "classes", value=["water", {"trees": ["forest"]}, *list(LABELS)[2:]]),
    ],
    "fuse": [
        changed("scales", value=[1, 2]),
        changed("evidence", value="none"),
        changed("runs", "hsi", "clip", value="none"),
        changed("runs", "labels", "evidence", value="library"),
    ],
    "features": [
        changed("features", "stretch", value=[1, 99]),
        changed("features", "components", value=4),
    ],
    "network": [
        changed("network", value=SMALL["network"] | {"noise": 0.2}),
        changed("network", value=SMALL["network"] | {"random_samples": 100}),
        changed("runs", "hsi", "network", value={"samples_per_class": 100}),
        changed("classifier", "hidden", value=8),
        changed("seeds", value=[0, 1]),
    ],
    "consensus": [changed("seeds", value=[0, 1])],
    "baseline": [changed("runs", "lda", "method", value="qda")],
    "warmup": [
        changed("runs", "published", "training", value=PUBLISHED | {"noise": 0.2}),
        changed("classifier", "hidden", value=8),
        changed("seeds", value=[0, 1]),
    ],
    "refine": [
        changed("refine", "hard_weight", value=0.2),
        changed("refine", "class_components", value=4),
    ],
    "export": [
        changed("export", "north_up", value=True),
        changed("reject", value=0.5),
        changed("colours", value={"water": "#0000ff"}),
        changed(*DEMO, "colours", value={"roof": [1, 2, 3]}),
    ],
    "page": [
        changed("colours", value={"water": "#0000ff"}),
        changed("export", "min_area", value=500),  # a page says how to make it again
    ],
    "signatures": [changed("colours", value={"water": "#0000ff"})],
    "polygons": [
        changed("export", "min_area", value=500),
        changed("colours", value={"water": "#0000ff"}),
    ],
    "stac": [
        changed("colours", value={"water": "#0000ff"}),
        changed("clips", value={"bundled": {"model": "bundled", "templates": ["{}"]}}),
    ],
    "evaluate": [
        changed("reject", value=0.5),
        changed(*TRUTH, "unlabelled", value=[0, 99]),
        changed(*TRUTH, "labels", value=LABELS | {"roof": 5, "asphalt": 6}),
    ],
}


@pytest.mark.parametrize("rule", SETTINGS)
def test_a_changed_setting_runs_the_rules_that_take_it_and_what_follows(untouched, every_job, rule):
    before = {job.outputs: job.command for job in every_job}
    for config in SETTINGS[rule]:
        jobs = untouched.dry("--forceall", config=config)
        takers = [job for job in jobs if before.get(job.outputs) != job.command]
        assert rule in {job.rule for job in takers}
        wanted = outputs_of(and_what_follows(takers, jobs))
        assert outputs_of(untouched.dry(config=config)) == wanted


def test_every_rule_that_takes_settings_is_in_the_matrix(every_job):
    """Rules that take none do not look different, whatever the config says."""
    without = {"demo", "cotrain", "curves", "presence", "summary"}
    assert {job.rule for job in every_job} - without == set(SETTINGS)


def test_a_setting_of_the_alias_kind_runs_nothing(untouched):
    """The same value, written in another way."""
    classes = SMALL["scenes"]["demo"]["classes"]
    assert untouched.dry(config=changed(*DEMO, "classes", value=[{c: []} for c in classes])) == []


# --- code ---------------------------------------------------------------------------------------


# what a step loads when it comes to it, not when it starts: a text tower for words that the table does not have, and
# kernels where there is a GPU
TRITON = ["kernels.conv_triton", "kernels.scan_triton"]
LATE = {"evidence": ["clip.model", "clip.prompts"]}
LATE |= dict.fromkeys(("network", "warmup", "refine"), TRITON)


@pytest.fixture(scope="session")
def loaded() -> dict[str, set[str]]:
    """What Python loads of the package for each step: step -> modules, by their full names."""
    steps = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")
    code = (
        "import sys, {0}\n"
        "print(*[n.removeprefix('special_steps.') for n in sys.modules if n.startswith('special_steps.')])"
    )

    def load(step: str) -> set[str]:
        modules = ", ".join(f"special_steps.{name}" for name in (step, *LATE.get(step, [])))
        words = [sys.executable, "-c", code.format(modules)]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(steps, pool.map(load, steps), strict=True))


def add(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


@contextmanager
def edited(path: Path, text: str) -> Iterator[None]:
    """Text is added to a file for a while."""
    before = path.read_text()
    path.write_text(before + text)
    try:
        yield
    finally:
        path.write_text(before)


def test_a_comment_in_any_file_runs_nothing(place):
    for path in place.project.rglob("*"):
        if path.suffix in (".py", ".smk", ".yaml", ".sh", ".txt") or path.name == "Snakefile":
            add(path, "\n\n# a comment\n")
        elif path.suffix in (".cpp", ".h"):
            add(path, "\n\n// a comment\n/* another\n   one */\n")
    assert place.dry() == []


def test_a_docstring_runs_nothing(place):
    for path in (place.project / "special_steps").rglob("*.py"):
        add(path, '\n\n"""More to read."""\n')
    assert place.dry() == []


@pytest.mark.parametrize("module", [name for name in MODULES if not name.startswith(TRAINING)])
def test_a_line_of_a_module_runs_the_steps_that_load_it(untouched, every_job, loaded, module):
    steps = {step for step, names in loaded.items() if module in names}
    if module == "core.cli":
        steps = set()  # the command line around a step changes no result
    wanted = and_what_follows([job for job in every_job if job.rule in steps], every_job)
    path = untouched.project / "special_steps" / f"{module.replace('.', '/')}.py"
    with edited(path, "\n\nLINE = 1\n"):
        assert outputs_of(untouched.dry()) == outputs_of(wanted)


@pytest.mark.parametrize("name", TABLES)
def test_a_line_of_a_table_runs_the_steps_that_load_its_module(untouched, every_job, loaded, name):
    module = name.rpartition(".")[0].replace("/", ".")
    steps = {step for step, names in loaded.items() if module in names}
    assert steps
    wanted = and_what_follows([job for job in every_job if job.rule in steps], every_job)
    with edited(untouched.project / "special_steps" / name, "one more word,none,\n"):
        assert outputs_of(untouched.dry()) == outputs_of(wanted)


def test_lines_of_modules_that_no_step_loads_run_nothing(untouched, loaded):
    """The training of the bundled CLIP: its result is in the repository."""
    with ExitStack() as edits:
        for module in MODULES:
            if module.startswith(TRAINING):
                assert not any(module in names for names in loaded.values())
                path = untouched.project / "special_steps" / f"{module.replace('.', '/')}.py"
                edits.enter_context(edited(path, "\n\nLINE = 1\n"))
        assert untouched.dry() == []


@pytest.mark.parametrize("name", KERNELS)
def test_a_line_of_a_kernel_runs_the_steps_that_load_it(untouched, every_job, loaded, name):
    kernels = [path.stem for path in (PACKAGE / "kernels").glob("*.cpp")]
    users = [Path(name).stem] if name.endswith(".cpp") else kernels
    modules = {f"kernels.{stem}" for stem in users}
    steps = {step for step, names in loaded.items() if names & modules}
    assert steps
    wanted = and_what_follows([job for job in every_job if job.rule in steps], every_job)
    with edited(
        untouched.project / "special_steps" / "kernels" / name, "\n\nstatic int line = 1;\n"
    ):
        assert outputs_of(untouched.dry()) == outputs_of(wanted)


# --- inputs -------------------------------------------------------------------------------------

FILES = [
    "map.png", "map.tif", "map.tif.aux.xml", "map.qml", "confidence.tif", "probabilities.tif",
    "polygons.gpkg", "polygons.qml", "areas.csv",
]  # fmt: skip
BUNDLES = {f"results/demo/{run}/{name}" for run in SMALL["runs"] for name in FILES}
INPUTS = [
    *(f"results/demo/hsi/{name}" for name in FILES),  # those of other runs are alike
    "resources/demo/scene.img",
    "resources/demo/scene.hdr",
    "resources/demo/ground_truth.tif",
    "results/demo/cube.zarr",
    "results/demo/rgb.zarr",
    "results/demo/features-hsi.zarr",
    "results/demo/clip/bundled/text.npz",
    "results/demo/clip/bundled/scale-1.zarr",
    *(
        f"results/demo/{run}/pseudo.{kind}"
        for run in SMALL["runs"]
        for kind in ("zarr", "metrics.json")
    ),
    "results/demo/evidence.zarr",
    "results/demo/evidence.json",
    "results/demo/evidence.csv",
    *(f"results/demo/{run}/witnesses.json" for run in ("hsi", "lda")),
    *(f"results/demo/{run}/presence.json" for run in ("hsi", "published", "lda")),
    "results/demo/hsi/cotrain.zarr",
    "results/demo/hsi/cotrain.json",
    "results/demo/hsi/cotrain.metrics.json",
    "results/demo/hsi/seed-0/network.zarr",
    "results/demo/hsi/seed-0/network.csv",
    "results/demo/hsi/seed-0/network.metrics.json",
    "results/demo/hsi/consensus.zarr",
    "results/demo/hsi/consensus.metrics.json",
    "results/demo/published/seed-0/warmup.zarr",
    "results/demo/published/seed-0/warmup.safetensors",
    "results/demo/published/seed-0/warmup.csv",
    "results/demo/published/seed-0/warmup.metrics.json",
    "results/demo/published/seed-0/final.zarr",
    "results/demo/published/seed-0/final.metrics.json",
    "results/demo/published/seed-0/refine.csv",
    "results/demo/published/consensus.zarr",
    "results/demo/published/consensus.metrics.json",
    "results/demo/lda/baseline.zarr",
    "results/demo/lda/baseline.metrics.json",
]


def test_every_input_is_in_the_matrix(every_job):
    assert {file for job in every_job for file in job.inputs} == set(INPUTS) | BUNDLES


@contextmanager
def replaced(path: Path) -> Iterator[None]:
    """A file or store is replaced by another one for a while, as a step that runs again replaces it."""
    before = path.with_name(f".{path.name}.before")
    path.rename(before)
    try:
        if before.is_dir():
            leave = shutil.ignore_patterns(".snakemake_timestamp")
            shutil.copytree(before, path, ignore=leave)
            group = json.loads((path / "zarr.json").read_text())
            group["attributes"]["digest"] = "another"
            (path / "zarr.json").write_text(json.dumps(group))
            path.touch()  # the copy has the time of the original
        else:
            path.write_bytes(before.read_bytes() + b"\n")
        yield
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        before.rename(path)


@pytest.mark.parametrize("name", INPUTS)
def test_a_changed_input_runs_the_rules_that_take_it_and_what_follows(untouched, every_job, name):
    wanted = and_what_follows([job for job in every_job if name in job.inputs], every_job)
    with replaced(untouched.folder / name):
        assert outputs_of(untouched.dry()) == outputs_of(wanted)


def test_inputs_that_are_touched_run_nothing(place):
    for name in INPUTS:
        (place.folder / name).touch()
    assert place.dry() == []


def test_inputs_that_are_copied_run_nothing(place):
    for name in INPUTS:
        path = place.folder / name
        if path.is_file():
            shutil.copyfile(path, path.with_name("copy"))
            path.with_name("copy").replace(path)
    assert place.dry() == []
