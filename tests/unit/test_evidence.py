"""The spectral library as a witness: by hand-made cases, then the step on small cubes."""

import csv
import json
import logging
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from stores import make_cube

from special_steps import evidence as module
from special_steps.core.errors import UserError
from special_steps.core.store import class_names, open_store
from special_steps.evidence import (
    class_evidence,
    evidence,
    far_away,
    fit_view,
    learn_views,
    usable_bands,
    view_distances,
)
from special_steps.materials.library import material_spectra
from special_steps.materials.nearest import Near

BANDS = 12
GRID = np.linspace(0, 1, BANDS, dtype="f4")
RISING, FALLING, HUMP = 0.1 + 0.4 * GRID, 0.5 - 0.4 * GRID, 0.1 + 1.2 * GRID * (1 - GRID)
NM = np.array(
    [*range(430, 750, 20), *range(780, 920, 20), 1000, 1030, 1060, 1600, 1700, 2200], float
)
CLASSES = {"trees": [], "bare soil": [], "water": []}
MEANT = ("tree_canopy", "soil", "clear_water")


def near(shape: np.ndarray, number: int, seed: int = 0) -> np.ndarray:
    """Spectra of about this shape, of any brightness, (number, band) float32."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(1, 0.01, (number, len(shape)))
    return (shape * noise * rng.uniform(0.3, 1, (number, 1))).astype("f4")


LIBRARY = [near(RISING, 5), near(FALLING, 7, 1), near(HUMP, 3, 2)]
PIXELS = np.concatenate([near(RISING, 40, 3), near(FALLING, 40, 4), near(HUMP, 40, 5)])
TRUTH = np.repeat([0, 1, 2], 40)
ALL = np.ones(3, bool)


# --- distances ------------------------------------------------------------------------------------


@pytest.mark.parametrize("logarithms", [False, True])
def test_the_nearest_spectrum_in_each_view(logarithms):
    view = fit_view(PIXELS, LIBRARY, logarithms)
    found = view_distances(view, PIXELS)
    assert found.shape == (3, 120)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.argmin(0), TRUTH)
    assert np.median(found.min(0)) == pytest.approx(1, abs=0.01)  # the view's scale
    np.testing.assert_allclose(view_distances(view, LIBRARY[1])[1], 0, atol=0.05)


def test_distances_are_those_of_all_pairs():
    """With as many components as bands nothing is left out: plain distances of the spectra at unit length."""
    view = fit_view(PIXELS, LIBRARY, False)
    units = [s / np.linalg.norm(s, axis=1, keepdims=True) for s in (PIXELS, *LIBRARY)]
    pairs = [np.linalg.norm(units[0][:, None] - known[None], axis=2).min(1) for known in units[1:]]
    np.testing.assert_allclose(view_distances(view, PIXELS) * view.scale, pairs, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-4, 1, 1e4])
def test_any_scale_of_reflectance_gives_the_same(scale):
    views, known = learn_views(scale * PIXELS, LIBRARY)
    plain, _ = learn_views(PIXELS, LIBRARY)
    np.testing.assert_allclose(
        class_evidence(views, scale * PIXELS, known),
        class_evidence(plain, PIXELS, known),
        atol=2e-3,
    )


def test_probabilities_are_highest_for_the_nearest():
    views, known = learn_views(PIXELS, LIBRARY)
    found = class_evidence(views, PIXELS, known)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-6)
    np.testing.assert_array_equal(found.argmax(0), TRUTH)


def test_a_class_without_spectra_is_neither_favoured_nor_ruled_out():
    views, known = learn_views(PIXELS, [*LIBRARY[:2], None, LIBRARY[2]])
    np.testing.assert_array_equal(known, [True, True, False, True])
    found = class_evidence(views, PIXELS, known)
    assert (found[2] == np.median(found[known], 0)).all()
    assert not (found.argmax(0) == 2).any()
    assert (found[2] > 0).all()


def test_pixels_that_are_dark_negative_or_zero_have_numbers():
    views, known = learn_views(PIXELS, LIBRARY)
    odd = np.stack([np.zeros(BANDS), np.full(BANDS, -0.1), np.full(BANDS, 1e-9), RISING - 0.12])
    found = class_evidence(views, odd.astype("f4"), known)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-6)


def test_blocks_are_the_whole(monkeypatch):
    views, _ = learn_views(PIXELS, LIBRARY)
    whole = class_evidence(views, PIXELS, ALL)
    monkeypatch.setattr(module, "BLOCK", 7)
    np.testing.assert_allclose(class_evidence(views, PIXELS, ALL), whole, atol=1e-6)


# --- bands ----------------------------------------------------------------------------------------


def test_bands_outside_the_library_in_absorption_and_bad_ones_are_not_used():
    nm = np.array([400, 420, 550, 760, 940, 1130, 1400, 1900, 2200, 2400, 2450.0])
    good = np.ones(len(nm), bool)
    good[2] = False
    assert usable_bands(nm, good).tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0]
    assert usable_bands(nm, ~good).sum() == 1


# --- far away -------------------------------------------------------------------------------------


def test_a_class_that_is_far_from_its_spectra_is_named():
    far = Near(0.5, 23.4, {"soil": 1.0}, None, None, "soil")
    nobody = Near(0.0, None, {}, None, None, None)
    (said,) = far_away([far, far._replace(angle=9.0), nobody], ["bare soil", "water", "car"])
    assert "'bare soil' is far from all of its spectra, 23 degrees" in said
    assert "evidence.png" in said


# --- the step -------------------------------------------------------------------------------------


def scene(height: int = 9, width: int = 8, nm: np.ndarray = NM) -> tuple[np.ndarray, np.ndarray]:
    """Stripes of trees, soil and water, from the library's own spectra: (band, y, x), and labels from 1."""
    known = material_spectra(MEANT, nm, None)
    rng = np.random.default_rng(0)
    truth = np.repeat([1, 2, 3], -(-height // 3))[:height, None] * np.ones(width, int)
    cube = np.empty((len(nm), height, width), "f4")
    for k, name in enumerate(MEANT, 1):
        here = truth == k
        members = np.nan_to_num(known[name], nan=0.3)
        cube[:, here] = members[rng.integers(0, len(members), here.sum())].T
    return cube * rng.normal(1, 0.01, cube.shape).astype("f4"), truth


def ask(folder: Path, cube: Path, **given) -> tuple[np.ndarray, dict]:
    """Run the step: probabilities, and what it says."""
    settings = {"classes": CLASSES, "materials": {}, "spectra": {}, "units": "auto"} | given
    out, found = folder / "e.zarr", folder / "e.json"
    evidence(cube=cube, **settings, out=out, found=found, table=folder / "e.csv")
    return open_store(out)["probabilities"][:], json.loads(found.read_text())


def test_a_scene_of_the_librarys_own_spectra(tmp_path, caplog):
    cube, truth = scene()
    nodata = truth == 9
    nodata[0, :3] = True
    with caplog.at_level(logging.WARNING, "special"):
        found, told = ask(tmp_path, make_cube(tmp_path / "c.zarr", cube, NM, nodata=nodata))
    assert (found.argmax(0) + 1 == truth)[~nodata].mean() > 0.95
    assert (found[:, nodata] == 0).all()
    assert caplog.text == ""
    store = open_store(tmp_path / "e.zarr", labels=("y", "x"), margin=("y", "x"))
    assert class_names(store) == list(CLASSES)
    assert (store["labels"][:][nodata] == 0).all()
    assert told["used"] is True
    assert told["bands"] == len(NM)
    assert told["warnings"] == []
    trees = told["classes"][0]
    assert trees["class"] == "trees"
    assert trees["materials"] == ["tree_canopy"]
    assert trees["nearest"] == {"tree_canopy": 1.0}
    assert trees["angle"] < 2
    assert sum(one["share"] for one in told["classes"]) == pytest.approx(1)


def test_the_table_has_both_spectra_of_each_class(tmp_path):
    cube, _ = scene()
    ask(tmp_path, make_cube(tmp_path / "c.zarr", cube, NM))
    with (tmp_path / "e.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["class"] for row in rows] == [name for name in CLASSES for _ in NM]
    assert [float(row["wavelength"]) for row in rows[: len(NM)]] == NM.tolist()
    assert {row["material"] for row in rows if row["class"] == "bare soil"} <= {"soil", "dirt"}
    mine, known = (np.array([float(row[c]) for row in rows]) for c in ("pixels", "library"))
    for k in range(3):
        part = slice(k * len(NM), (k + 1) * len(NM))
        assert np.corrcoef(mine[part], known[part])[0, 1] > 0.9
        assert known[part] @ mine[part] == pytest.approx(known[part] @ known[part], rel=1e-3)


@pytest.mark.parametrize("classes", [CLASSES, {"water": []}], ids=["three classes", "one"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3)], ids=str)
def test_scenes_of_a_pixel_and_of_a_class(tmp_path, shape, classes, recwarn):
    path = make_cube(tmp_path / "c.zarr", scene(*shape)[0], NM)
    found, told = ask(tmp_path, path, classes=classes)
    assert found.shape == (len(classes), *shape)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-6)
    assert told["used"] is True
    assert [str(w.message) for w in recwarn] == []


def test_the_same_for_stored_values_of_any_scale(tmp_path):
    cube, _ = scene()
    plain, _ = ask(tmp_path, make_cube(tmp_path / "a.zarr", cube, NM))
    scaled, _ = ask(tmp_path, make_cube(tmp_path / "b.zarr", 10_000 * cube, NM))
    np.testing.assert_allclose(plain, scaled, atol=5e-3)


def test_strips_are_the_whole_scene(tmp_path, monkeypatch):
    cube = make_cube(tmp_path / "c.zarr", scene(30, 5)[0], NM)
    whole, _ = ask(tmp_path, cube)
    rows = [slice(y, min(y + 7, 30)) for y in range(0, 30, 7)]
    monkeypatch.setattr(module, "tile_rows", lambda height: rows)
    parts, _ = ask(tmp_path, cube)
    np.testing.assert_allclose(whole, parts, atol=1e-5)


def test_noise_in_absorbed_and_bad_bands_changes_nothing(tmp_path):
    nm = np.sort(np.r_[NM, 762, 950, 1140, 1400, 1850])
    extra = ~np.isin(nm, NM)
    cube, _ = scene(nm=nm)
    good = np.ones(len(nm), bool)
    good[:2] = False
    clean, told = ask(tmp_path, make_cube(tmp_path / "a.zarr", cube, nm, good))
    assert told["bands"] == len(NM) - 2
    cube[extra] = np.random.default_rng(0).random(cube[extra].shape)
    cube[:2] = 7
    noisy, _ = ask(tmp_path, make_cube(tmp_path / "b.zarr", cube, nm, good))
    np.testing.assert_array_equal(clean, noisy)


@pytest.mark.parametrize(
    ("bands", "given", "reason"),
    [
        (7, {}, "the scene has 7 bands that the library knows, 8 are needed"),
        (20, {"classes": {"car": [], "person": []}}, "fewer than two classes have materials"),
        (
            20,
            {"materials": {name: [] for name in CLASSES}},
            "fewer than two classes have materials",
        ),
    ],
    ids=["few bands", "no material", "none by the user's choice"],
)
def test_where_it_has_no_say_it_says_so_and_is_uniform(tmp_path, caplog, bands, given, reason):
    cube, _ = scene()
    path = make_cube(tmp_path / "c.zarr", cube[:bands], NM[:bands])
    with caplog.at_level(logging.WARNING, "special"):
        found, told = ask(tmp_path, path, **given)
    assert told["used"] is False
    assert told["warnings"][-1] == f"the spectral library has no say on this scene: {reason}"
    assert reason in caplog.text
    np.testing.assert_allclose(found, 1 / len(found))
    assert (tmp_path / "e.csv").read_text() == "class,material,wavelength,pixels,library\n"


def test_a_class_without_materials_is_named(tmp_path):
    cube, truth = scene()
    classes = CLASSES | {"car": []}
    found, told = ask(tmp_path, make_cube(tmp_path / "c.zarr", cube, NM), classes=classes)
    assert "class 'car' has no spectral evidence" in " ".join(told["warnings"])
    assert told["classes"][3]["spectra"] == 0
    assert (found.argmax(0) + 1 == truth).mean() > 0.95


def own(path: Path, shape: np.ndarray) -> str:
    """A file of one spectrum, 400 to 2500 nm."""
    fine = np.arange(400.0, 2501, 5)
    values = np.interp(fine, NM, shape)
    path.write_text("\n".join(f"{w},{v:.6f}" for w, v in zip(fine, values, strict=True)))
    return str(path)


COMB = 0.2 + 0.1 * (np.arange(len(NM)) % 2)  # nothing in nature looks like it


def test_own_spectra_stand_beside_the_materials_or_replace_them(tmp_path):
    cube, truth = scene()
    cube[:, 0] = COMB[:, None]
    path = make_cube(tmp_path / "c.zarr", cube, NM)
    mine = {"trees": own(tmp_path / "mine.csv", COMB)}
    beside, told = ask(tmp_path, path, spectra=mine)
    assert (beside.argmax(0)[:3] == 0).all(), "comb or tree"
    assert told["classes"][0]["nearest"].keys() == {"tree_canopy", "mine.csv"}
    replaced, told = ask(tmp_path, path, spectra=mine, materials={"trees": []})
    assert (replaced.argmax(0)[0] == 0).all()
    assert told["classes"][0]["spectra"] == 1
    assert told["classes"][0]["nearest"] == {"mine.csv": 1.0}
    assert told["warnings"] == [] or "no spectral evidence" not in told["warnings"][0]
    alone, _ = ask(tmp_path, path)
    assert alone[0, 0].max() < beside[0, 0].min(), "without them it does not know the comb"
    assert (truth[:3] == 1).all()


def test_materials_of_the_user_take_the_place_of_the_tables(tmp_path):
    path = make_cube(tmp_path / "c.zarr", scene()[0], NM)
    _, told = ask(tmp_path, path, materials={"Bare  soil": ["metal", "tile"]})
    soil = told["classes"][1]
    assert soil["materials"] == ["metal", "tile"]
    assert soil["words"] == {"bare soil": "override"}


@pytest.mark.parametrize(
    ("materials", "words"),
    [
        ({"tres": ["tree_canopy"]}, "'tres' is not a class or synonym .* 'trees'"),
        ({"trees": ["tree_canpy"]}, "'tree_canpy', which is not a material.* 'tree_canopy'"),
    ],
    ids=["class", "material"],
)
def test_unknown_materials_are_refused_and_nothing_is_written(tmp_path, materials, words):
    path = make_cube(tmp_path / "c.zarr", scene()[0], NM)
    with pytest.raises(UserError, match=words):
        ask(tmp_path, path, materials=materials)
    assert [p.name for p in tmp_path.iterdir()] == ["c.zarr"]


def test_a_scene_without_a_pixel_is_refused(tmp_path):
    cube, truth = scene()
    path = make_cube(tmp_path / "c.zarr", cube, NM, nodata=truth > 0)
    with pytest.raises(UserError, match="no pixel has data"):
        ask(tmp_path, path)


def test_memory_does_not_grow_with_the_scene(tmp_path):
    """Twice the rows, the same peak; a strip of 256 rows is in memory at a time."""
    used = []
    for height in (768, 1536):
        cube, _ = scene(height, 96)
        path = make_cube(tmp_path / f"{height}.zarr", cube, NM)
        del cube
        tracemalloc.start()
        ask(tmp_path, path)
        used.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert used[1] < 1.2 * used[0]


def test_torch_is_imported_for_words_that_the_table_lacks_only(tmp_path):
    path = make_cube(tmp_path / "c.zarr", scene()[0], NM)
    code = (
        "import sys, json\nfrom pathlib import Path\nfrom special_steps.evidence import evidence\n"
        f"f = Path({str(tmp_path)!r})\n"
        f"evidence(cube=Path({str(path)!r}), classes={CLASSES!r}, materials={{}}, spectra={{}}, units='auto',\n"
        "    out=f / 'o.zarr', found=f / 'o.json', table=f / 'o.csv')\n"
        "print(sorted({'torch', 'open_clip', 'pandas', 'matplotlib', 'sklearn'} & sys.modules.keys()))\n"
    )
    root = str(Path(module.__file__).resolve().parents[1])
    environment = os.environ | {"PYTHONPATH": root}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


def test_words_that_the_table_lacks_are_asked_of_the_text_tower(tmp_path, monkeypatch):
    asked = []

    def embed(words):
        asked.extend(words)
        vectors = np.eye(2, dtype="f4")[
            [0 if w in ("zzgrowth", "forest", "tree") else 1 for w in words]
        ]
        return vectors

    monkeypatch.setattr(module, "_embed", embed)
    path = make_cube(tmp_path / "c.zarr", scene()[0], NM)
    _, told = ask(tmp_path, path, classes={"zzgrowth": [], "water": [], "bare soil": []})
    assert asked[0] == "zzgrowth"
    assert told["classes"][0]["words"]["zzgrowth"] in ("neighbour", "none")
