"""One table over scenes, runs and seeds: mean and spread of accuracies; and what is known without truth."""

import json
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from special_steps.core.assessed import headline, rows
from special_steps.core.atomic import atomic_write
from special_steps.core.classes import UNKNOWN
from special_steps.core.cli import run
from special_steps.core.stages import STAGES
from special_steps.core.store import open_store

SCORES = ["oa", "aa", "kappa", "ece"]
BY_POINTS = "Accuracy and areas by reference points"


def summarise(metrics: pd.DataFrame) -> pd.DataFrame:
    """Mean and sample standard deviation over seeds of each scene, run and stage.

    Args:
        metrics: columns scene, run, stage, seed, oa, aa, kappa, ece; one row per evaluated map.

    Returns:
        A row per scene, run and stage (in the order of the method), columns seeds, and
        `<score>_mean`, `<score>_std` (0 for a single seed).
    """
    stage = pd.Categorical(metrics["stage"], list(STAGES), ordered=True)
    groups = metrics.assign(stage=stage).groupby(
        ["scene", "run", "stage"], sort=True, observed=True
    )
    parts: dict[str, pd.Series] = {"seeds": groups.size()}
    for score in SCORES:
        parts[f"{score}_mean"] = groups[score].mean()
        parts[f"{score}_std"] = groups[score].std().fillna(0)
    return pd.DataFrame(parts).reset_index()


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The summary as people read it: one column per score, "mean ± spread"."""
    shown = table[["scene", "run", "stage", "seeds"]].copy()
    for score in SCORES:
        pairs = zip(table[f"{score}_mean"], table[f"{score}_std"], table["seeds"], strict=True)
        shown[score.upper() if score != "kappa" else score] = [
            f"{mean:.3f} ± {std:.3f}" if seeds > 1 else f"{mean:.3f}" for mean, std, seeds in pairs
        ]
    return shown


def told(known: list[dict[str, Any]]) -> list[str]:
    """What is known without ground truth, a sentence each: agreements, each followed by its warnings.

    Args:
        known: of each scene or run: scene, run (None: of all runs), warnings; and where two were compared, agreement
            (a share) and between (which two).
    """
    lines = []
    for found in known:
        where = f"{found['scene']}, {found['run']}" if found["run"] else found["scene"]
        if found.get("agreement") is not None:
            lines.append(
                f"{where}: {found['between']} agree on {found['agreement']:.1%} of the pixels."
            )
        lines += [f"{where}: warning: {' '.join(text.split())}" for text in found["warnings"]]
    return lines


def unknown_shares(unknown: list[dict[str, Any]], metrics: list[dict[str, Any]]) -> list[str]:
    """How much of each map is of unknown class, a sentence each, and how right the rest is where there is ground truth.

    Args:
        unknown: of each map: scene, run, reject (confidence that a class needs), share (of the map that is unknown).
        metrics: as evaluate writes them.
    """
    lines = []
    for each in unknown:
        line = (
            f"{each['scene']}, {each['run']}: {each['share']:.1%} of the map is unknown, of confidence below"
            f" {each['reject']:g}"
        )
        of_run = [m for m in metrics if (m["scene"], m["run"]) == (each["scene"], each["run"])]
        for found in of_run:
            if "kept" in found and found["stage"] != "cotrain" and found["kept"]["oa"] is not None:
                line += (
                    f"; overall accuracy {found['kept']['oa']:.3f} of the {found['kept']['share']:.1%} of the reference"
                    f" pixels that keep their class, {found['oa']:.3f} of all"
                )
        lines.append(f"{line}.")
    return lines


def to_know(scenes: dict[str, Path], metrics: list[dict[str, Any]]) -> list[str]:
    """What reading the files warned of, each once with its scene.

    Args:
        scenes: cube.zarr of each, by name.
        metrics: as evaluate writes them.
    """
    stores = {name: open_store(path).attrs.asdict() for name, path in scenes.items()}
    told: list[tuple[str, Any]] = [(name, said["warnings"]) for name, said in stores.items()]
    told += [(each["scene"], each["warnings"]) for each in metrics]
    lines = (f"{name}: {text.replace('<name>', name)}" for name, texts in told for text in texts)
    return list(dict.fromkeys(lines))


def summary(
    *,
    scenes: dict[str, Path],
    metrics: list[Path],
    witnesses: list[dict[str, Any]],
    diagnoses: list[dict[str, str]],
    assessments: list[Path],
    unknown: list[dict[str, Any]],
    maps: list[list[Path]],
    csv: Path,
    markdown: Path,
    html: Path,
) -> None:
    """Gather the metrics of all maps, what a user should know, and what is known without ground truth.

    Args:
        scenes: cube.zarr of each scene, by its name.
        metrics: JSON files made by evaluate; none where no scene has ground truth.
        witnesses: of each scene's evidence (its run is None) and each fusion of it: scene, run, and the path of the
            JSON file made by evidence or fuse.
        diagnoses: of each co-training: scene, run, and the path of the JSON file made by cotrain.
        assessments: JSON files made by assess; none where no scene has reference points.
        unknown: of each map with pixels of unknown class: scene, run, reject (the confidence that a class needs), and
            the path of its `areas`, made by polygons.
        maps: files of each map, to be linked; they lie in folders below the summary's.
        csv: table to write, numbers in full.
        markdown: the same for a README.
        html: the same for the report, with the scores of every class.
    """
    found = [json.loads(path.read_text()) for path in metrics]
    asked, trained = (
        [each | json.loads(Path(each["path"]).read_text()) for each in group]
        for group in (witnesses, diagnoses)
    )
    trained = [{"between": "pseudo-labels and co-training"} | each for each in trained]
    known = asked + trained
    names, runs = (list(dict.fromkeys(each[key] for each in known)) for key in ("scene", "run"))
    lines = told(
        sorted(known, key=lambda each: (names.index(each["scene"]), runs.index(each["run"])))
    )
    assessed = [json.loads(Path(path).read_text()) for path in assessments]
    rejected = [each | {"share": _unknown(each["areas"])} for each in unknown]
    parts = {
        "What you should know": to_know(scenes, found + assessed),
        "Unknown": unknown_shares(rejected, found),
        "Without ground truth": lines,
    }
    table = summarise(pd.DataFrame(found, columns=["scene", "run", "stage", "seed", *SCORES]))
    shown = readable(table)
    with atomic_write(csv) as file:
        table.to_csv(file, index=False)
    with atomic_write(markdown) as file:
        links = [[path.relative_to(markdown.parent) for path in files] for files in maps]
        file.write_text(_markdown(shown, assessed, parts, links))
    with atomic_write(html) as file:
        file.write_text(_page(shown, found, assessed, parts, trained))


def _unknown(areas: str) -> float:
    """Share of a map that is of unknown class."""
    table = pd.read_csv(areas, keep_default_na=False)
    return float(table["share"].to_numpy()[table["class"] == UNKNOWN][0])


def _markdown(
    shown: pd.DataFrame,
    assessed: list[dict[str, Any]],
    sentences: dict[str, list[str]],
    links: list[list[Path]],
) -> str:
    parts = []
    if len(shown):
        parts.append(_pipes([list(shown.columns), *shown.values.tolist()]))
    if assessed:
        parts.append(f"## {BY_POINTS}\n")
    for each in assessed:
        parts.append(f"{_whose(each)}: {headline(each)}.\n\n{_pipes(rows(each))}")
    for title, texts in sentences.items():
        if texts:
            parts.append(f"## {title}\n\n" + "".join(f"- {text}\n" for text in texts))
    if links:
        parts.append("## Maps\n\n" + "".join(map(_links, links)))
    return "\n".join(parts) or "No scene has ground truth.\n"


def _links(files: list[Path]) -> str:
    """The files of a map, as a line of Markdown."""
    listed = ", ".join(f"[{path.name}]({path.as_posix()})" for path in files)
    return f"- {', '.join(files[0].parts[:-1])}: {listed}\n"


def _pipes(table: list[list[Any]]) -> str:
    """A table in Markdown; its first row names the columns."""
    parted = [table[0], ["---"] * len(table[0]), *table[1:]]
    return "".join(f"| {' | '.join(map(str, row))} |\n" for row in parted)


def _whose(each: dict[str, Any]) -> str:
    """Scene and run, and the seed where the run has a map for each."""
    seed = "" if each["seed"] is None else f", seed {each['seed']}"
    return f"{each['scene']}, {each['run']}{seed}"


def _page(
    shown: pd.DataFrame,
    found: list[dict[str, Any]],
    assessed: list[dict[str, Any]],
    sentences: dict[str, list[str]],
    trained: list[dict[str, Any]],
) -> str:
    style = (
        "body{font:15px/1.5 sans-serif;margin:2em auto;max-width:60em;padding:0 1em}"
        "table{border-collapse:collapse;margin:1em 0}th,td{padding:.3em .8em;text-align:left;"
        "border-bottom:1px solid #ddd}thead{background:#f3f3f3}"
    )
    page = (
        f"<!doctype html><meta charset=utf-8><title>Accuracy</title><style>{style}</style>"
        "<h1>Accuracy</h1>"
    )
    if found:
        there = [name for name in STAGES if name in set(shown["stage"])]
        meanings = "; ".join(f"<i>{name}</i>: {STAGES[name]}" for name in there)
        page += (
            "<p>Mean ± standard deviation over seeds. ECE: how far the confidence is from the accuracy."
            f" {meanings}.</p>"
            f"{_html(shown)}<h2>Classes (mean over seeds)</h2>{_html(_class_scores(found))}"
        )
    else:
        page += "<p>No scene has ground truth.</p>"
    if assessed:
        page += f"<h2>{BY_POINTS}</h2>"
    for each in assessed:
        head, *body = rows(each)
        page += f"<p>{escape(_whose(each))}: {escape(headline(each))}.</p>"
        page += _html(pd.DataFrame(body, columns=head))
    for title, texts in sentences.items():
        if texts:
            items = "".join(f"<li>{escape(text)}</li>" for text in texts)
            page += f"<h2>{title}</h2><ul>{items}</ul>"
    if trained:
        page += _html(_class_shares(trained))
    return page


def _html(table: pd.DataFrame) -> str:
    return table.to_html(index=False, border=0, float_format=lambda v: f"{v:.3f}", na_rep="–")


def _class_rows(found: list[dict[str, Any]], keys: list[str]) -> pd.DataFrame:
    """A row per class of each file, with what says whose it is."""
    return pd.DataFrame([{k: f[k] for k in keys} | row for f in found for row in f["classes"]])


def _class_scores(found: list[dict[str, Any]]) -> pd.DataFrame:
    classes = _class_rows(found, ["scene", "run", "stage"])
    order = {"class": list(dict.fromkeys(classes["class"])), "stage": list(STAGES)}
    ordered = {key: pd.Categorical(classes[key], order[key], ordered=True) for key in order}
    groups = classes.assign(**ordered).groupby(["scene", "run", *order], sort=True, observed=True)
    scores = ["producers_accuracy", "users_accuracy", "f1", "iou"]
    per_class = groups[scores].mean().join(groups["pixels"].first()).reset_index()
    per_class.columns = [name.replace("s_accuracy", "'s accuracy") for name in per_class.columns]
    return per_class


def _class_shares(known: list[dict[str, Any]]) -> pd.DataFrame:
    """How large each class is in pseudo-labels and co-training, and on how much of it they agree."""
    shares = _class_rows(known, ["scene", "run"]).set_index(["scene", "run", "class"])
    shares = shares[["pseudo_share", "cotrain_share", "agreement"]].astype(float)
    titles = {"pseudo_share": "share in pseudo-labels", "cotrain_share": "share in co-training"}
    return shares.rename(columns=titles).reset_index()


if __name__ == "__main__":
    run(summary)
