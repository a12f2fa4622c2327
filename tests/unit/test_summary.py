"""The table over scenes, runs and seeds."""

import csv
import html as entities
import json
import re

import numpy as np
import pandas as pd
import pytest

from special_steps.core.store import new_store
from special_steps.summary import readable, summarise, summary


def row(stage, seed, oa, scene="field", run="hsi"):
    return {
        "scene": scene, "run": run, "stage": stage, "seed": seed,
        "oa": oa, "aa": oa / 2, "kappa": oa - 0.1, "ece": 0.08, "pixels": 100,
        "classes": [
            {"class": "water", "producers_accuracy": oa, "users_accuracy": 0.5, "f1": 0.5, "iou": 0.4, "pixels": 60},
            {"class": "a <tree>", "producers_accuracy": None, "users_accuracy": oa, "f1": 0, "iou": 0, "pixels": 0},
        ],
        "confusion": [[1, 0], [0, 1]],
        "warnings": [],
    }  # fmt: skip


DIAGNOSIS = {
    "agreement": 0.8349,
    "classes": [
        {"class": "water", "pseudo_share": 0.6, "cotrain_share": 0.55, "agreement": 0.9},
        {"class": "a <tree>", "pseudo_share": 0.0, "cotrain_share": 0.0, "agreement": None},
    ],
    "warnings": ["'a <tree>' has no pixel;\n use other words"],
}
ROWS = [
    row("final", 0, 0.7), row("final", 1, 0.8), row("final", 2, 0.9),
    row("warmup", 0, 0.6), row("warmup", 1, 0.6), row("warmup", 2, 0.6),
    row("pseudo", None, 0.5),
    row("final", 5, 0.4, run="rgb"),
    row("pseudo", None, 0.3, scene="coast"),
]  # fmt: skip


def made(
    tmp_path,
    rows=ROWS,
    diagnoses=(),
    witnesses=(),
    scenes=None,
    maps=(),
    assessments=(),
    unknown=(),
):
    files = []
    for i, found in enumerate(rows):
        files.append(tmp_path / f"{i}.json")
        files[-1].write_text(json.dumps(found))
    out = {"csv": tmp_path / "s.csv", "markdown": tmp_path / "s.md", "html": tmp_path / "s.html"}
    known = []
    for i, found in enumerate(diagnoses):
        (tmp_path / f"d{i}.json").write_text(json.dumps(found))
        known.append({"scene": "field", "run": f"run-{i}", "path": str(tmp_path / f"d{i}.json")})
    asked = []
    for i, (run, found) in enumerate(witnesses):
        (tmp_path / f"w{i}.json").write_text(json.dumps(found))
        asked.append({"scene": "field", "run": run, "path": str(tmp_path / f"w{i}.json")})
    points = []
    for i, found in enumerate(assessments):
        points.append(tmp_path / f"a{i}.json")
        points[-1].write_text(json.dumps(found))
    summary(
        scenes=scenes or {},
        metrics=files,
        witnesses=asked,
        diagnoses=known,
        maps=list(maps),
        assessments=points,
        unknown=list(unknown),
        **out,
    )
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
        "| scene | run | stage | seeds | OA | AA | kappa | ECE |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
        "| coast | hsi | pseudo | 1 | 0.300 | 0.150 | 0.200 | 0.080 |\n"
        "| field | hsi | pseudo | 1 | 0.500 | 0.250 | 0.400 | 0.080 |\n"
        "| field | hsi | warmup | 3 | 0.600 ± 0.000 | 0.300 ± 0.000 | 0.500 ± 0.000 | 0.080 ± 0.000 |\n"
        "| field | hsi | final | 3 | 0.800 ± 0.100 | 0.400 ± 0.050 | 0.700 ± 0.100 | 0.080 ± 0.000 |\n"
        "| field | rgb | final | 1 | 0.400 | 0.200 | 0.300 | 0.080 |\n"
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
    assert main[4][:3] == ["field", "hsi", "final"]
    assert main[4][3:] == ["3", "0.800 ± 0.100", "0.400 ± 0.050", "0.700 ± 0.100", "0.080 ± 0.000"]
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


STAGES = [
    "pseudo", "cotrain", "network", "warmup", "final", "consensus", "baseline",
    "applied-cotrain", "applied",
]  # fmt: skip


def test_stages_of_all_methods_are_in_order_and_explained(tmp_path):
    rows = [row(stage, 0, 0.5) for stage in reversed(STAGES)]
    assert summarise(pd.DataFrame(rows))["stage"].tolist() == STAGES
    text = made(tmp_path, rows)["html"].read_text()
    places = [text.index(f"<i>{stage}</i>:") for stage in STAGES]
    assert places == sorted(places)


def test_stages_that_are_not_there_are_not_explained(tmp_path):
    text = made(tmp_path)["html"].read_text()
    assert "<i>warmup</i>:" in text
    assert "<i>cotrain</i>:" not in text


def test_how_much_is_unknown_and_how_right_the_rest_is(tmp_path):
    areas = tmp_path / "areas.csv"
    areas.write_text("class,pixels,share\nNA,70,0.7\nunknown,30,0.3\n")
    kept = {"kept": {"reject": 0.6, "share": 0.65, "oa": 0.9512}}
    rows = [row("cotrain", None, 0.6) | kept, row("consensus", None, 0.7) | kept]
    maps = [
        {"scene": "field", "run": run, "reject": 0.6, "areas": str(areas)} for run in ("hsi", "b")
    ]
    out = made(tmp_path, rows, unknown=maps)
    assert out["markdown"].read_text().partition("## Unknown\n\n")[2] == (
        "- field, hsi: 30.0% of the map is unknown, of confidence below 0.6; overall accuracy 0.951 of the 65.0% of the"
        " reference pixels that keep their class, 0.700 of all.\n"
        "- field, b: 30.0% of the map is unknown, of confidence below 0.6.\n"
    )
    assert "<h2>Unknown</h2>" in out["html"].read_text()


def test_what_is_known_without_ground_truth_follows_the_table(tmp_path):
    out = made(tmp_path, diagnoses=[DIAGNOSIS, DIAGNOSIS | {"warnings": []}])
    table, _, section = out["markdown"].read_text().partition("\n\n")
    assert table.startswith("| scene | run |")
    assert section == (
        "## Without ground truth\n\n"
        "- field, run-0: pseudo-labels and co-training agree on 83.5% of the pixels.\n"
        "- field, run-0: warning: 'a <tree>' has no pixel; use other words\n"
        "- field, run-1: pseudo-labels and co-training agree on 83.5% of the pixels.\n"
    )
    text = out["html"].read_text()
    assert "&lt;tree&gt;&#x27; has no pixel; use other words" in text
    assert "<tree>" not in text
    head, *rows = cells(text)[2]
    found = [dict(zip(head, r, strict=True)) for r in rows]
    assert len(found) == 4
    assert found[0]["share in pseudo-labels"] == "0.600"
    assert found[0]["share in co-training"] == "0.550"
    assert found[1]["class"] == "a <tree>"
    assert found[1]["agreement"] == "–"


EVIDENCE = {"used": True, "bands": 90, "classes": [], "warnings": ["'car' has\n no evidence"]}
WITNESSES = {
    "between": "CLIP and the spectral library", "agreement": 0.7, "classes": [],
    "warnings": ["30% of what CLIP calls 'tree' is 'soil'"],
}  # fmt: skip
ALONE = {"between": None, "agreement": None, "classes": [], "warnings": []}


def test_what_words_and_spectra_say_of_each_other_comes_first(tmp_path):
    witnesses = [(None, EVIDENCE), ("run-0", WITNESSES), ("run-1", ALONE)]
    out = made(tmp_path, diagnoses=[DIAGNOSIS], witnesses=witnesses)
    _, _, section = out["markdown"].read_text().partition("\n\n")
    assert section == (
        "## Without ground truth\n\n"
        "- field: warning: 'car' has no evidence\n"
        "- field, run-0: CLIP and the spectral library agree on 70.0% of the pixels.\n"
        "- field, run-0: warning: 30% of what CLIP calls 'tree' is 'soil'\n"
        "- field, run-0: pseudo-labels and co-training agree on 83.5% of the pixels.\n"
        "- field, run-0: warning: 'a <tree>' has no pixel; use other words\n"
    )
    assert len(cells(out["html"].read_text())) == 3


def test_what_is_said_of_a_run_stands_together(tmp_path):
    runs = [(None, EVIDENCE), ("run-0", WITNESSES), ("run-1", WITNESSES)]
    out = made(tmp_path, diagnoses=[DIAGNOSIS] * 2, witnesses=runs)
    lines = out["markdown"].read_text().split("truth\n\n")[1].splitlines()
    assert [line[2:14].rstrip(":") for line in lines][1:] == ["field, run-0"] * 4 + [
        "field, run-1"
    ] * 4


def test_evidence_alone_has_no_table_of_co_training(tmp_path):
    out = made(tmp_path, rows=[], witnesses=[(None, EVIDENCE)])
    text = out["html"].read_text()
    assert "has no evidence" in text
    assert cells(text) == []


def test_a_run_without_ground_truth_has_a_page_of_what_is_known(tmp_path):
    out = made(tmp_path, rows=[], diagnoses=[DIAGNOSIS])
    assert out["markdown"].read_text().startswith("## Without ground truth\n")
    text = out["html"].read_text()
    assert "No scene has ground truth" in text
    assert "83.5%" in text
    assert pd.read_csv(out["csv"]).empty


def test_what_a_user_should_know_is_told_once(tmp_path):
    scenes = {}
    for name, warnings in {
        "field": ["a.tif: 0 <fills>", "scenes.<name>.cube"],
        "coast": [],
        "hill": ["b: x"],
    }.items():
        scenes[name] = tmp_path / f"{name}.zarr"
        with new_store(scenes[name], step="ingest", settings={}, inputs=[]) as group:
            group.attrs["warnings"] = warnings
    rows = [
        row(*r) | {"warnings": ["gt.tif: no position"]}
        for r in (("final", 0, 0.7), ("final", 1, 0.7))
    ]
    out = made(tmp_path, rows=rows, witnesses=[(None, EVIDENCE)], scenes=scenes)
    text = out["markdown"].read_text()
    assert text.partition("\n\n")[2] == (
        "## What you should know\n\n"
        "- field: a.tif: 0 <fills>\n- field: scenes.field.cube\n- hill: b: x\n- field: gt.tif: no position\n\n"
        "## Without ground truth\n\n- field: warning: 'car' has no evidence\n"
    )
    assert (
        "<h2>What you should know</h2><ul><li>field: a.tif: 0 &lt;fills&gt;</li>"
        in out["html"].read_text()
    )
    out = made(tmp_path, rows=[], scenes=scenes)
    assert out["markdown"].read_text().startswith("## What you should know")
    assert "gt.tif" not in out["html"].read_text()


def test_nothing_to_tell(tmp_path):
    assert made(tmp_path, rows=[])["markdown"].read_text() == "No scene has ground truth.\n"


def test_the_files_of_each_map_are_linked(tmp_path):
    folder = tmp_path / "demo" / "hsi"
    maps = [[folder / "map.tif", folder / "index.html"], [folder / "seed-0" / "map.tif"]]
    text = made(tmp_path, maps=maps)["markdown"].read_text()
    assert text.endswith(
        "## Maps\n\n- demo, hsi: [map.tif](demo/hsi/map.tif), [index.html](demo/hsi/index.html)\n"
        "- demo, hsi, seed-0: [map.tif](demo/hsi/seed-0/map.tif)\n"
    )


def estimated(value, low, high):
    return {"value": value, "standard_error": 0.1, "low": low, "high": high}


def test_accuracy_by_reference_points(tmp_path):
    nothing = estimated(None, None, None)
    found = {
        "scene": "field",
        "run": "hsi",
        "seed": None,
        "design": "stratified by this map",
        "drawn": 90,
        "interpreted": 88,
        "unit": "m2",
        "overall_accuracy": estimated(0.9, 0.85, 0.94),
        "classes": [
            {
                "class": "a <tree>",
                "map_area": 20000.0,
                "users_accuracy": estimated(0.8, 0.7, 0.9),
                "producers_accuracy": nothing,
                "area": estimated(12345.0, 10000.0, 15000.0),
            }
        ],
        "warnings": ["2 of 90 points have no reference"],
    }
    out = made(tmp_path, rows=(), assessments=[found])
    text = out["markdown"].read_text()
    assert "field, hsi: overall accuracy 0.900 (0.850 to 0.940); 88 of 90 points" in text
    assert "| a <tree> | 0.800 (0.700 to 0.900) | - | 1.23 (1.00 to 1.50) | 2.00 |" in text
    assert "- field: 2 of 90 points have no reference" in text
    page = out["html"].read_text()
    assert "a &lt;tree&gt;" in page and "<tree>" not in page
    found |= {"seed": 1, "unit": "pixels"}
    text = made(tmp_path, rows=(), assessments=[found])["markdown"].read_text()
    assert "field, hsi, seed 1:" in text and "| 12345 (10000 to 15000) | 20000 |" in text


def test_what_given_labels_changed_is_told(tmp_path):
    note = "labels of 5 pixels of 1 class were given: 'water' had no pseudo-label and now has 1,234"
    found = {"between": None, "agreement": None, "classes": [], "warnings": [], "notes": [note]}
    out = made(tmp_path, witnesses=[("run-0", found)])
    assert f"- field, run-0: {note}.\n" in out["markdown"].read_text()
    assert f"field, run-0: {note}." in entities.unescape(out["html"].read_text())
