"""The table over scenes, runs and seeds."""

import csv
import html as entities
import json
import re

import numpy as np
import pandas as pd
import pytest

from special_steps.summary import readable, summarise, summary


def row(stage, seed, oa, scene="field", run="hsi"):
    return {
        "scene": scene, "run": run, "stage": stage, "seed": seed,
        "oa": oa, "aa": oa / 2, "kappa": oa - 0.1, "pixels": 100,
        "classes": [
            {"class": "water", "producers_accuracy": oa, "users_accuracy": 0.5, "f1": 0.5, "iou": 0.4, "pixels": 60},
            {"class": "a <tree>", "producers_accuracy": None, "users_accuracy": oa, "f1": 0, "iou": 0, "pixels": 0},
        ],
        "confusion": [[1, 0], [0, 1]],
    }  # fmt: skip


ROWS = [
    row("final", 0, 0.7), row("final", 1, 0.8), row("final", 2, 0.9),
    row("warmup", 0, 0.6), row("warmup", 1, 0.6), row("warmup", 2, 0.6),
    row("pseudo", None, 0.5),
    row("final", 5, 0.4, run="rgb"),
    row("pseudo", None, 0.3, scene="coast"),
]  # fmt: skip


def made(tmp_path, rows=ROWS):
    files = []
    for i, found in enumerate(rows):
        files.append(tmp_path / f"{i}.json")
        files[-1].write_text(json.dumps(found))
    out = {"csv": tmp_path / "s.csv", "markdown": tmp_path / "s.md", "html": tmp_path / "s.html"}
    summary(metrics=files, **out)
    return out


def test_mean_and_sample_deviation_over_seeds():
    table = summarise(pd.DataFrame(ROWS)).set_index(["scene", "run", "stage"])
    final = table.loc[("field", "hsi", "final")]
    assert final["seeds"] == 3
    assert final["oa_mean"] == pytest.approx(0.8)
    assert final["oa_std"] == pytest.approx(0.1)  # of 0.7, 0.8, 0.9 with n - 1
    assert final["aa_mean"] == pytest.approx(0.4)
    assert final["kappa_std"] == pytest.approx(0.1)
    assert table.loc[("field", "hsi", "warmup")]["oa_std"] == pytest.approx(0)


def test_a_single_seed_has_no_spread():
    table = summarise(pd.DataFrame([row("final", 0, 0.7)]))
    assert len(table) == 1
    assert table.loc[0, "oa_std"] == 0
    assert readable(table).loc[0, "OA"] == "0.700"


def test_rows_are_in_the_order_of_the_method():
    table = summarise(pd.DataFrame(ROWS))
    found = table[["scene", "run", "stage"]].astype(str).values.tolist()
    assert found == [
        ["coast", "hsi", "pseudo"],
        ["field", "hsi", "pseudo"],
        ["field", "hsi", "warmup"],
        ["field", "hsi", "final"],
        ["field", "rgb", "final"],
    ]


def test_markdown(tmp_path):
    assert made(tmp_path)["markdown"].read_text() == (
        "| scene | run | stage | seeds | OA | AA | kappa |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n"
        "| coast | hsi | pseudo | 1 | 0.300 | 0.150 | 0.200 |\n"
        "| field | hsi | pseudo | 1 | 0.500 | 0.250 | 0.400 |\n"
        "| field | hsi | warmup | 3 | 0.600 ± 0.000 | 0.300 ± 0.000 | 0.500 ± 0.000 |\n"
        "| field | hsi | final | 3 | 0.800 ± 0.100 | 0.400 ± 0.050 | 0.700 ± 0.100 |\n"
        "| field | rgb | final | 1 | 0.400 | 0.200 | 0.300 |\n"
    )


def test_csv_has_the_numbers_in_full(tmp_path):
    with made(tmp_path)["csv"].open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 5
    assert float(rows[3]["kappa_mean"]) == pytest.approx(0.7, abs=1e-12)
    assert float(rows[3]["oa_std"]) == pytest.approx(np.std([0.7, 0.8, 0.9], ddof=1), abs=1e-12)


def cells(text: str) -> list[list[list[str]]]:
    """The cells of every table of a page."""
    return [
        [
            [entities.unescape(c).strip() for c in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line)]
            for line in re.findall(r"<tr.*?</tr>", table, re.DOTALL)
        ]
        for table in re.findall(r"<table.*?</table>", text, re.DOTALL)
    ]


def test_html(tmp_path):
    text = made(tmp_path)["html"].read_text()
    assert "<!doctype html>" in text
    assert "charset=utf-8" in text
    assert "http" not in text  # works offline
    assert "<tree>" not in text  # names are text, not markup
    main, classes = cells(text)
    assert main[4] == ["field", "hsi", "final", "3", "0.800 ± 0.100", "0.400 ± 0.050", "0.700 ± 0.100"]  # fmt: skip
    head, *rows = classes
    found = {tuple(r[:4]): dict(zip(head, r, strict=True)) for r in rows}
    assert len(rows) == 10  # 5 maps x 2 classes
    key = next(k for k in found if set(k) == {"field", "hsi", "water", "final"})
    assert found[key]["producer's accuracy"] == "0.800"  # mean over seeds
    assert found[key]["pixels"] == "60"
    key = next(k for k in found if set(k) == {"field", "hsi", "a <tree>", "final"})
    assert found[key]["producer's accuracy"] == "–"
    assert found[key]["user's accuracy"] == "0.800"


def test_classes_stay_in_the_order_of_the_config(tmp_path):
    _, (head, *rows) = cells(made(tmp_path)["html"].read_text())
    column = [r[head.index("class")] for r in rows if r[:2] == ["field", "hsi"]]
    assert column == ["water"] * 3 + ["a <tree>"] * 3


def test_scores_that_are_nowhere_defined(tmp_path):
    text = made(tmp_path, [row("final", 0, 0.5)])["html"].read_text()
    assert "–" in text
    assert "nan" not in text.lower()
    assert "None" not in text
