import csv
import itertools
import subprocess
import sys
from pathlib import Path

import neighbours as benchmark
import numpy as np
import pytest
import yaml

from special_steps.core.classes import read_classes
from special_steps.core.errors import UserError
from special_steps.materials import words
from special_steps.materials.words import (
    MATERIALS,
    THRESHOLD,
    check_overrides,
    materials_of,
    materials_of_classes,
    plain_words,
    sentences,
    table,
)

ROOT = Path(__file__).resolve().parents[3]
DATA = ROOT / "tests" / "data"
PHRASES = (DATA / "class_phrases.txt").read_text().splitlines()


def found(phrase):
    """How a phrase is found without neighbours, and as what."""
    result = materials_of(phrase, {})
    return result.how, result.word


# --- the table ---------------------------------------------------------------------------------


def test_the_table_is_sane():
    with words.TABLE.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows and list(rows[0]) == ["word", "materials", "plain", "note"]
    for row in rows:
        assert row["word"] == row["word"].strip().lower() and row["plain"] in ("", "yes"), row
        assert None not in row and None not in row.values(), f"commas in {row}"
        materials = row["materials"].split(" + ")
        assert len(set(materials)) == len(materials), row
        assert not (row["plain"] and row["word"].endswith("*")), row
    assert len(table()) == len(rows)  # which also checks materials, and words that appear twice


def test_every_material_is_used():
    used = set(itertools.chain.from_iterable(table().values()))
    assert MATERIALS.keys() - used == set()


@pytest.mark.parametrize(
    ("line", "message"),
    [("lake,lava,,", "unknown materials"), ("Lakes,sand,,\nlake,sand,,", "same word")],
)
def test_a_damaged_table_is_an_error(line, message, tmp_path, monkeypatch):
    path = tmp_path / "words.csv"
    path.write_text(f"word,materials,plain,note\n{line}\n")
    monkeypatch.setattr(words, "TABLE", path)
    words._rows.cache_clear()
    try:
        with pytest.raises(ValueError, match=message):
            table.__wrapped__()
    finally:
        words._rows.cache_clear()


def test_all_phrases_of_the_list_are_in_the_table():
    assert len(PHRASES) == 200
    assert [phrase for phrase in PHRASES if materials_of(phrase, {}).how != "table"] == []


def test_all_legends_are_in_the_table():
    with (DATA / "legends.csv").open(newline="") as stream:
        rows = [(row["legend"], row["name"]) for row in csv.DictReader(stream)]
    counts = {"CORINE": 63, "LCZ": 17, "NLCD": 20, "Dynamic World": 9, "WorldCover": 11}
    counts |= {"Chikusei": 19, "Indian Pines": 16, "Salinas": 16, "Houston 2018": 20}
    for legend, number in counts.items():
        assert sum(row[0] == legend for row in rows) == number
    assert [row for row in rows if materials_of(row[1], {}).how != "table"] == []


@pytest.mark.parametrize(
    "path", [ROOT / "config.yaml", *(ROOT / "workflow" / "benchmarks").glob("*.yaml")]
)
def test_the_scenes_that_come_with_the_project_need_no_neighbours(path):
    for scene in (yaml.safe_load(path.read_text()).get("scenes") or {}).values():
        for name, synonyms in read_classes(scene["classes"], str(path)).items():
            for phrase in (name, *synonyms):
                assert materials_of(phrase, {}).how in ("table", "part of the phrase")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("grass", "trees"),
        ("grass", "crops"),
        ("soil", "road"),
        ("roof", "road"),
        ("asphalt", "bitumen"),
        ("tiles", "self-blocking bricks"),
        ("concrete", "asphalt"),
        ("gravel", "soil"),
        ("water", "shadow"),
        ("water", "snow"),
        ("wet soil", "dry soil"),
        ("healthy grass", "stressed grass"),
        ("beach", "bare soil"),
    ],
)
def test_classes_that_people_name_side_by_side_share_no_material(one, other):
    a, b = materials_of(one, {}).materials, materials_of(other, {}).materials
    assert a and b and not set(a) & set(b)


@pytest.mark.parametrize(
    "phrase", ["car", "cloud", "urban-looking thing", "solar panels", "airport"]
)
def test_what_no_spectrum_stands_for_has_no_material(phrase):
    assert materials_of(phrase, {}).materials == ()


# --- how phrases are read ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phrase", "word"),
    [
        ("Bare_Soil", "bare soil"),
        ("the self blocking brick", "self blocking bricks"),
        ("farm land", "farmland"),
        ("carpark", "car park"),
        ("GRASSES", "grass"),
        ("bushes", "bush"),
        ("Parking lot 2", "parking lot"),
        ("harbour", "harbor"),
        ("Snow & ice", "snow and ice"),
        ("woods", "woods"),
        ("wood", "wood"),
    ],
)
def test_case_signs_plurals_and_spelling_do_not_matter(phrase, word):
    assert found(phrase) == ("table", word)


@pytest.mark.parametrize(
    ("phrase", "word"),
    [
        ("green grass field", "grass field"),  # the longest
        ("big house's shadow", "shadow"),  # the noun, not what describes it
        ("sand beach", "beach"),
        ("trees near a road", "tree"),
        ("beach with sand", "beach"),
        ("patch of grass", "grass"),
        ("area of dense woods", "woods"),
        ("gravelly area", "gravelly"),
        ("snow-covered field", "snow"),
        ("field covered with snow", "snow"),
        ("burnt pine forest", "burned *"),
        ("plastic sheets", "plastic *"),
        ("shrubs, weeds or grass", "shrub + weeds + grass"),
        ("Rock/Gravel", "rock + gravel"),
        ("cars and buildings", "car + building"),
        ("road without trees", "road"),
        ("water, no boats", "water"),
        ("non-vegetated dry soil", "dry soil"),
    ],
)
def test_a_phrase_is_read_by_its_parts(phrase, word):
    assert found(phrase) == ("part of the phrase", word)


@pytest.mark.parametrize(
    "phrase",
    [
        "no water",
        "without trees",
        "cloud-free",
        "treeless",
        "treeless plain",
        "not grass and trees",
    ],
)
def test_what_is_not_there_does_not_count_and_is_not_looked_up(phrase):
    def embed(phrases):
        raise AssertionError("neighbours were asked")

    assert materials_of(phrase, {}, embed) == ((), "none", None, None)


@pytest.mark.parametrize(
    "phrase", ["water meter", "grasshopper", "icing", "land", "Wald", "", "?!"]
)
def test_with_an_unknown_noun_nothing_is_found(phrase):
    assert found(phrase) == ("none", None)


# --- neighbours --------------------------------------------------------------------------------


def embedding(near):
    """An embedding in which a phrase lies at given cosines to some words, and at 0 to all others."""

    def embed(phrases):
        axes = np.eye(len(plain_words()) + 1)
        vectors = {word: axes[i] for i, word in enumerate(plain_words())}
        for phrase, cosines in near.items():
            vector = sum(c * vectors[word] for word, c in cosines.items())
            vectors[phrase] = vector + np.sqrt(1 - vector @ vector) * axes[-1]
        return np.array([vectors[phrase] for phrase in phrases])

    return embed


@pytest.mark.parametrize(
    ("cosines", "how", "materials"),
    [
        ({"grass": 0.7, "lawn": 0.5, "meadow": 0.4}, "neighbour", ("grass_canopy",)),
        ({"grass": 0.66, "lawn": 0.5, "meadow": 0.4}, "none", ()),  # not near enough
        ({"grass": 0.7, "lawn": 0.5, "car": 0.4}, "none", ()),  # they do not agree
        ({"car": 0.7, "lawn": 0.5, "meadow": 0.4}, "neighbour", ()),  # it has no spectrum
    ],
)
def test_a_neighbour_counts_where_it_is_near_and_the_next_ones_agree(cosines, how, materials):
    result = materials_of("gizmo", {}, embedding({"gizmo": cosines}))
    assert (result.how, result.materials) == (how, materials)
    assert result.word == next(iter(cosines))
    assert result.similarity == pytest.approx(cosines[result.word])


def test_the_threshold_is_the_measured_one():
    """With the real text tower; and what the half to report on says stays as good as is written down."""
    phrases = benchmark.read_phrases()
    results = benchmark.read_all([p.phrase for p in phrases])
    halves = {
        half: tuple(
            zip(
                *[pair for pair in zip(phrases, results, strict=True) if pair[0].half == half],
                strict=True,
            )
        )
        for half in ("choose", "report")
    }
    assert min(len(half[0]) for half in halves.values()) > 250
    assert benchmark.choose(*halves["choose"]) == pytest.approx(THRESHOLD)
    chosen, reported = (benchmark.score(*half, THRESHOLD) for half in halves.values())
    assert chosen.precision >= 0.9 and reported.precision > 0.89
    assert reported.right >= 15
    by_phrase = {p.phrase: r for p, r in zip(phrases, results, strict=True)}
    assert by_phrase["motorway"].materials == ("road",)
    assert by_phrase["motorway"].similarity > THRESHOLD > by_phrase["kettle"].similarity


def test_the_measured_phrases_are_no_plain_words():
    """What they were measured against holds none of them, though the table may."""
    plain = {words._key(words.tokens(word)) for word in plain_words()}
    for phrase in benchmark.read_phrases():
        assert not {words._key([word]) for word in words.tokens(phrase.phrase)} & plain, phrase
        assert phrase.group in benchmark.GROUPS and phrase.half in ("choose", "report")


def test_nothing_is_embedded_and_no_torch_is_imported_when_the_table_knows_all():
    code = (
        "import sys; from special_steps.materials.words import materials_of_classes\n"
        "def embed(phrases): import torch\n"
        "found = materials_of_classes({'water': ['river'], 'car': ['old trucks']}, {}, embed)\n"
        "assert found[0].materials, found\n"
        "assert not {'torch', 'open_clip'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


# --- classes -----------------------------------------------------------------------------------


def test_a_class_has_the_materials_of_all_its_phrases():
    classes = {"water": ["mud"], "trees": ["shrubs", "forest"], "cars": []}
    water, trees, cars = materials_of_classes(classes, {})
    assert water.materials == ("clear_water", "turbid_water", "algal_water", "mud")
    assert trees.materials == ("tree_canopy", "sparse_vegetation")
    assert list(trees.found) == ["trees", "shrubs", "forest"]
    assert cars == ("cars", (), {"cars": ((), "table", "car", None)})


def test_neighbours_are_asked_once_for_classes_without_materials_only():
    asked = []
    near = embedding(
        {
            "gizmo": {"grass": 0.7, "lawn": 0.5, "meadow": 0.4},
            "gadget": {"sand": 0.7, "beach": 0.5, "sand dune": 0.4},
        }
    )

    def embed(phrases):
        asked.append([phrase for phrase in phrases if phrase not in plain_words()])
        return near(phrases)

    classes = {"gizmo": [], "road": ["thingamajig"], "car": ["gadget"]}
    gizmo, road, car = materials_of_classes(classes, {}, embed)
    assert asked == [["gizmo", "gadget"]]
    assert gizmo.materials == ("grass_canopy",)
    assert road.materials == ("road",)
    assert road.found["thingamajig"] == ((), "none", None, None)
    assert car.materials == ("sand",)


def test_overrides_come_first():
    classes = {"Water": ["river", "mud"], "roof": ["house"], "trees": []}
    overrides = {"water": ["clear_water"], "house": ["tile"], "trees": []}
    water, roof, trees = materials_of_classes(classes, overrides)
    assert water.materials == ("clear_water",)  # for the whole class
    assert roof.found["house"] == (("tile",), "override", "house", None)
    assert set(roof.materials) > {"tile", "metal"}
    assert trees.materials == ()
    assert sentences([water, roof, trees], "materials") == []


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (
            {"watr": ["snow"]},
            ["'watr'", "not a class", "did you mean 'water'", "water, lawn, trees"],
        ),
        ({"lawn": ["gras_canopy"]}, ["'lawn'", "'gras_canopy'", "did you mean 'grass_canopy'"]),
        ({"lawn": ["xyz"]}, ["'xyz'", "write one of: asphalt, bark", "an empty list"]),
        ({"lawn": "snow"}, ["'lawn'", "give a list, as [snow]"]),
    ],
)
def test_wrong_overrides_name_the_value_and_the_fix(overrides, parts):
    with pytest.raises(UserError) as error:
        check_overrides(overrides, {"water": ["lawn"], "trees": []}, "evidence materials")
    assert str(error.value).startswith("evidence materials: ")
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_a_sentence_for_each_class_without_evidence_and_each_guess():
    near = embedding({"gizmo": {"grass": 0.7, "lawn": 0.5, "meadow": 0.4}})
    near_all = materials_of_classes({"gizmo": [], "water": [], "old cars": []}, {}, near)
    guess, none = sentences(near_all, "evidence: materials")
    assert guess == (
        "'gizmo' is not in the table of words and was read as 'grass' (grass_canopy; similarity 0.70);"
        " if that is wrong, name its materials in evidence: materials"
    )
    assert none == (
        "class 'old cars' has no spectral evidence: no reflectance spectrum can stand for 'old cars' (read as 'car');"
        " to give it some, name its materials in evidence: materials"
    )
    unknown = materials_of_classes({"gizmo": ["gadget"]}, {})
    assert sentences(unknown, "evidence: materials") == [
        "class 'gizmo' has no spectral evidence: the materials of 'gizmo', 'gadget' are not known;"
        " to give it some, name its materials in evidence: materials"
    ]
