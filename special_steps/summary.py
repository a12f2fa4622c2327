"""One table over scenes, runs and seeds: mean and spread of what the evaluation found."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from special_steps.core.atomic import atomic_write
from special_steps.core.cli import run

STAGES = ["pseudo", "warmup", "final"]
SCORES = ["oa", "aa", "kappa"]


def summarise(metrics: pd.DataFrame) -> pd.DataFrame:
    """Mean and sample standard deviation over seeds of each scene, run and stage.

    Args:
        metrics: columns scene, run, stage, seed, oa, aa, kappa; one row per evaluated map.

    Returns:
        A row per scene, run and stage (in the order of the method), columns seeds, and
        `<score>_mean`, `<score>_std` (0 for a single seed).
    """
    stage = pd.Categorical(metrics["stage"], STAGES, ordered=True)
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


def summary(*, metrics: list[Path], csv: Path, markdown: Path, html: Path) -> None:
    """Gather the metrics of all maps.

    Args:
        metrics: JSON files made by evaluate.
        csv: table to write, numbers in full.
        markdown: the same for a README.
        html: the same for the report, with the scores of every class.
    """
    found = [json.loads(path.read_text()) for path in metrics]
    table = summarise(pd.DataFrame(found))
    shown = readable(table)
    classes = pd.DataFrame([row | _map_id(f) for f in found for row in f["classes"]])
    with atomic_write(csv) as file:
        table.to_csv(file, index=False)
    with atomic_write(markdown) as file:
        rows = [list(shown.columns), ["---"] * len(shown.columns), *shown.values.tolist()]
        file.write_text("".join(f"| {' | '.join(map(str, row))} |\n" for row in rows))
    with atomic_write(html) as file:
        file.write_text(_page(shown, classes))


def _map_id(found: dict[str, Any]) -> dict[str, Any]:
    return {key: found[key] for key in ("scene", "run", "stage")}


def _page(shown: pd.DataFrame, classes: pd.DataFrame) -> str:
    order = {"class": list(dict.fromkeys(classes["class"])), "stage": STAGES}
    ordered = {key: pd.Categorical(classes[key], order[key], ordered=True) for key in order}
    groups = classes.assign(**ordered).groupby(["scene", "run", *order], sort=True, observed=True)
    scores = ["producers_accuracy", "users_accuracy", "f1", "iou"]
    per_class = groups[scores].mean().join(groups["pixels"].first()).reset_index()
    per_class.columns = [name.replace("s_accuracy", "'s accuracy") for name in per_class.columns]
    style = (
        "body{font:15px/1.5 sans-serif;margin:2em auto;max-width:60em;padding:0 1em}"
        "table{border-collapse:collapse;margin:1em 0}th,td{padding:.3em .8em;text-align:left;"
        "border-bottom:1px solid #ddd}thead{background:#f3f3f3}"
    )
    return (
        f"<!doctype html><meta charset=utf-8><title>Accuracy</title><style>{style}</style>"
        "<h1>Accuracy</h1><p>Mean ± standard deviation over seeds. <i>pseudo</i>: fused CLIP"
        " labels; <i>warmup</i>: after the spectral warm-up; <i>final</i>: the last epoch.</p>"
        + shown.to_html(index=False, border=0)
        + "<h2>Classes (mean over seeds)</h2>"
        + per_class.to_html(index=False, border=0, float_format=lambda v: f"{v:.3f}", na_rep="–")
    )


if __name__ == "__main__":
    run(summary)
