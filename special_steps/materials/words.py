"""Which materials a class name stands for: "lawn" is grass, "street" is a road; a car has no spectrum.

The table `words.csv` knows some 900 words. A phrase that is not there is read by its parts, and what is still unknown
by its nearest neighbour in a text space that the caller brings. A wrong material does more harm than none: where
nothing is near, a class has no evidence.
"""

import csv
import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from special_steps.core.errors import UserError

TABLE = Path(__file__).with_name("words.csv")

MATERIALS = {
    "asphalt": "tarred roofs (what the library calls asphalt); paved asphalt is road and parking_lot",
    "bark": "bark of trees",
    "bridge": "concrete of bridges",
    "char": "burnt plants, wood and soil; ash",
    "comp_shingle": "composite shingles of roofs, of all colours",
    "concrete_tile": "concrete tiles of roofs",
    "dirt": "bare ground, measured in the field",
    "driveway": "driveways of concrete and brick",
    "gravel": "gravel, of paths and of flat roofs",
    "litter": "dead leaves, needles and grass on the ground",
    "metal": "metal roofs, bare and painted",
    "npv": "dead plants that stand",
    "paint": "paint on pavement: markings, courts, running tracks",
    "parking_lot": "parking lots: asphalt, with oil or of concrete",
    "road": "roads: asphalt of all ages, concrete",
    "sand": "sand of beaches",
    "sidewalk": "sidewalks: concrete and brick",
    "soil": "soils, dry, measured in the laboratory",
    "tile": "red clay tiles of roofs",
    "wood": "dead wood, weathered or cut",
    "wood_shingle": "wooden shingles of roofs",
    "tree_canopy": "green crowns, modelled",
    "grass_canopy": "green grass, modelled",
    "crop_canopy": "green crops, modelled",
    "clear_water": "clear water, modelled",
    "turbid_water": "water with sediment, modelled",
    "algal_water": "water with algae, modelled",
    "snow": "snow, modelled",
    "ice": "ice, modelled",
    "wet_soil": "wet soil, modelled",
    "mud": "mud, modelled",
    "dry_vegetation": "grass and crops that have dried up",
    "sparse_vegetation": "green plants over soil, 20 to 60 % of it covered",
    "shadow": "surfaces lit by the sky alone",
}

# A neighbour counts where so many nearest plain words agree, and the nearest has at least this cosine in the bundled
# CLIP's text tower, with its own templates. Chosen on one half of tests/data/everyday_phrases.csv, and measured on the
# other: tests/benchmarks/neighbours.py. Another tower's cosines are others.
AGREEING = 3
THRESHOLD = 0.67

# As the table writes them.
SPELLINGS = {
    "aluminium": "aluminum",
    "brocoli": "broccoli",
    "burnt": "burned",
    "coloured": "colored",
    "grey": "gray",
    "harbour": "harbor",
    "kerb": "curb",
    "leaves": "leaf",
    "plough": "plow",
    "ploughed": "plowed",
    "rooves": "roof",
    "unlabeled": "unlabelled",
    "vinyard": "vineyard",
}
NO_PLURALS = {"woods", "gas", "canvas"}  # woods are a forest, wood is a material
FILLERS = {"a", "an", "the", "some", "and", "or"}
JOINTS = {"and", "or"}
# Words that say nothing of what lies there: in "gravel area" gravel counts.
GENERAL = {
    "area", "bed", "bit", "body", "class", "cluster", "color", "cover", "cultivation", "expanse", "field",
    "ground", "group", "heap", "hill", "hillside", "kind", "land", "landscape", "layer", "lot", "mass",
    "material", "object", "panel", "parcel", "part", "patch", "piece", "pile", "pixel", "place", "plain",
    "plantation", "plot", "region", "row", "section", "sheet", "site", "slab", "slope", "spot", "stand",
    "stretch", "strip", "surface", "terrain", "texture", "type", "valley", "zone",
}  # fmt: skip
# The noun of a phrase ends where one of these begins: "trees near a road" are trees.
STOPS = {
    "above", "along", "among", "around", "as", "at", "behind", "beneath", "beside", "besides", "between",
    "by", "containing", "for", "from", "growing", "having", "in", "inside", "into", "like", "lying", "made",
    "near", "next", "of", "off", "on", "onto", "out", "outside", "over", "planted", "seen", "standing",
    "through", "to", "toward", "under", "used", "where", "which", "with", "within",
}  # fmt: skip
NEGATIONS = {"no", "not", "without", "lacking", "except", "excluding", "but", "never"}

How = Literal["override", "table", "part of the phrase", "neighbour", "none"]
Embed = Callable[[Sequence[str]], np.ndarray]


class Found(NamedTuple):
    """What a phrase stands for."""

    materials: tuple[str, ...]  # of MATERIALS; none where no spectrum can stand for it, or unknown
    how: How  # "none": the phrase was found nowhere
    word: str | None  # the override's or table's word; several are joined by " + "
    similarity: float | None  # cosine to the nearest word, where neighbours were looked at


class ClassMaterials(NamedTuple):
    """What a class stands for: all materials of its phrases."""

    name: str
    materials: tuple[str, ...]  # without repeats, in the order of the phrases
    found: dict[str, Found]  # by phrase, the class's name first


# --- the table ---------------------------------------------------------------------------------


@cache
def _rows() -> list[dict[str, str]]:
    with TABLE.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def plain_words() -> list[str]:
    """The table's words that a text tower knows well enough to be neighbours of others."""
    return [row["word"] for row in _rows() if row["plain"]]


@cache
def table() -> dict[str, tuple[str, ...]]:
    """The table's words and their materials, in its order; a word that ends with * stands for "this and any noun".

    Raises:
        ValueError: for a damaged table: unknown materials, a word that appears twice after normalisation.
    """
    found: dict[str, tuple[str, ...]] = {}
    seen: dict[str, str] = {}
    for row in _rows():
        word, cell = row["word"], row["materials"]
        materials = () if cell == "none" else tuple(cell.split(" + "))
        if unknown := set(materials) - MATERIALS.keys():
            raise ValueError(f"{TABLE}: '{word}' has unknown materials {sorted(unknown)}")
        key = _key(tokens(word)) + "*" * word.endswith(" *")
        if key in seen:
            raise ValueError(f"{TABLE}: '{word}' and '{seen[key]}' are the same word")
        seen[key] = word
        found[word] = materials
    return found


@cache
def _words() -> tuple[dict[str, str], dict[str, str]]:
    """The table's words by key, and those for any noun by their first word."""
    anything = {tokens(word)[0]: word for word in table() if word.endswith(" *")}
    words = {_key(tokens(word)): word for word in table() if not word.endswith(" *")}
    return words, anything


def tokens(phrase: str) -> list[str]:
    """A phrase's words in a form that does not depend on case, signs, numbers, plurals and spelling."""
    text = re.sub(r"['’]s\b", "", phrase.casefold())
    words = re.findall(r"\w+", text.replace("_", " ").replace("&", " and "))
    return [_plain(word) for word in words if not word[0].isdigit()]


def _plain(word: str) -> str:
    word = SPELLINGS.get(word, word)
    if len(word) > 3 and word.endswith("s") and word not in NO_PLURALS:
        if word.endswith("ies"):
            return word[:-3] + "y"
        if word.endswith(("sses", "xes", "ches", "shes", "oes")):
            return word[:-2]
        if not word.endswith(("ss", "us", "is")):
            return word[:-1]
    return word


def _key(words: Sequence[str]) -> str:
    """Words without fillers and spaces: "farm land" and "farmland" are one."""
    return "".join(word for word in words if word not in FILLERS)


# --- one phrase --------------------------------------------------------------------------------


def materials_of(
    phrase: str, overrides: Mapping[str, Sequence[str]], embed: Embed | None = None
) -> Found:
    """What a phrase stands for: by the user, the table, a part of the phrase, or its neighbour.

    Args:
        phrase: a class name or synonym.
        overrides: the user's materials by phrase; checked by check_overrides. An empty list: no evidence.
        embed: phrases -> (phrase, dim) embeddings of length 1, of the bundled CLIP's text tower, which THRESHOLD is
            for. It is called only for a phrase that is found nowhere else. None: no neighbours.
    """
    return _known(phrase, overrides) or _neighbours([phrase], embed)[phrase]


def _known(phrase: str, overrides: Mapping[str, Sequence[str]]) -> Found | None:
    """What needs no neighbours; None where they have to be asked."""
    words = tokens(phrase)
    for name, materials in overrides.items():
        if _same(name, phrase):
            return Found(tuple(materials), "override", name, None)
    if word := _words()[0].get(_key(words)):
        return Found(table()[word], "table", word, None)
    parts, negates = _parts(phrase)
    found = [word for part in parts if (word := _by_part(part))]
    if found:
        materials = _union(table()[word] for word in found)
        return Found(materials, "part of the phrase", " + ".join(dict.fromkeys(found)), None)
    return Found((), "none", None, None) if negates else None  # "no water" is near to water


def _parts(phrase: str) -> tuple[list[list[str]], bool]:
    """The words of each thing that a phrase names, without what it says is not there; and whether it says so."""
    parts: list[list[str]] = []
    negates = False
    for clause in re.split(r"[,;/()\[\]]", phrase):
        words = tokens(clause)
        before = len(words)
        for number, word in reversed(list(enumerate(words))):
            if word == "free" and number:  # cloud-free
                words[number - 1 : number + 1] = []
            elif word == "non":
                words[number : number + 2] = []
            elif word.endswith("less") and len(word) > 5:  # treeless
                words[number : number + 1] = []
        stop = next((i for i, word in enumerate(words) if word in NEGATIONS), len(words))
        negates = negates or stop < before
        part: list[str] = []
        for word in [*words[:stop], "and"]:
            if word in JOINTS:
                parts.append([w for w in part if w not in FILLERS])
                part = []
            else:
                part.append(word)
    return parts, negates


def _by_part(words: list[str]) -> str | None:
    """The table's word for what a phrase is about: its noun, not what describes the noun.

    "tree shadow" is a shadow and "trees near a road" are trees; "snow-covered field" and "field covered with snow" are
    snow; "patch of grass" and "grass area" are grass. "water tank" is not water: with an unknown noun there is no word.
    """
    if "covered" in words:
        number = words.index("covered")
        after = words[number + 1 :]
        if after and after[0] in STOPS:
            return _by_part(after[1:])
        return _by_part(words[:number])
    stop = next((i for i, word in enumerate(words) if word in STOPS), len(words))
    noun, rest = words[:stop], words[stop + 1 :]
    by_key, anything = _words()
    for word in noun:
        if word in anything:
            return anything[word]
    while noun:
        for start in range(len(noun)):  # the longest first
            if noun[start:] != noun[-1:] or noun[-1] not in GENERAL:
                known = by_key.get(_key(noun[start:]))
                if known:
                    return known
        if noun[-1] not in GENERAL:
            return None
        noun = noun[:-1]
    return _by_part(rest) if rest else None


def _neighbours(phrases: Sequence[str], embed: Embed | None) -> dict[str, Found]:
    """The nearest word of the table for each phrase, if it is near enough."""
    if embed is None or not phrases:
        return {phrase: Found((), "none", None, None) for phrase in phrases}
    return dict(zip(phrases, neighbours(phrases, embed, THRESHOLD), strict=True))


def neighbours(phrases: Sequence[str], embed: Embed, threshold: float) -> list[Found]:
    """Read phrases as the nearest plain word of the table, where the next ones agree with it on a material.

    Agreement is asked for because a small text tower often has one wrong word very near ("outcrop" at "crop"), seldom
    several. Of the table's words only the plain ones are looked at: it has no good place for rare ones, and these come
    near to anything else that is rare.

    Args:
        phrases: what the table does not know.
        embed: as in materials_of.
        threshold: the nearest word's least cosine.

    Returns:
        For each phrase "neighbour" with the materials of the word, which may be none; or "none".
    """
    words = plain_words()
    vectors = embed([*phrases, *words])
    found = []
    for cosines in vectors[: len(phrases)] @ vectors[len(phrases) :].T:
        first, *next_ones = (words[i] for i in np.argsort(-cosines, kind="stable")[:AGREEING])
        materials, similarity = table()[first], float(cosines.max())
        agree = all(set(materials) & set(table()[word]) for word in next_ones) or not materials
        near = agree and similarity >= threshold
        found.append(
            Found(materials if near else (), "neighbour" if near else "none", first, similarity)
        )
    return found


# --- classes -----------------------------------------------------------------------------------


def materials_of_classes(
    classes: Mapping[str, Sequence[str]],
    overrides: Mapping[str, Sequence[str]],
    embed: Embed | None = None,
    where: str = "materials",
) -> list[ClassMaterials]:
    """What each class stands for: all materials of its name and synonyms.

    An override of the class's name stands for the whole class, that of a synonym for the synonym. Neighbours are asked
    for classes only that have no material otherwise.

    Args:
        classes: name -> synonyms.
        overrides: the user's materials by class name or synonym. An empty list: no evidence.
        embed: as in materials_of; called once at most.
        where: the setting of the overrides, for errors.

    Raises:
        UserError: for overrides of unknown classes and unknown materials.
    """
    check_overrides(overrides, classes, where)
    known: dict[str, dict[str, Found | None]] = {}
    for name, synonyms in classes.items():
        first = _known(name, overrides)
        whole = first is not None and first.how == "override"
        known[name] = {name: first} | {s: _known(s, overrides) for s in synonyms if not whole}
    asked = [
        phrase
        for found in known.values()
        if not any(f and f.materials for f in found.values())
        for phrase, f in found.items()
        if f is None
    ]
    near = _neighbours(asked, embed)
    unknown = Found((), "none", None, None)
    results = []
    for name, found in known.items():
        full = {phrase: f or near.get(phrase, unknown) for phrase, f in found.items()}
        results.append(ClassMaterials(name, _union(f.materials for f in full.values()), full))
    return results


def check_overrides(
    overrides: Mapping[str, Sequence[str]], classes: Mapping[str, Sequence[str]], where: str
) -> None:
    """Refuse overrides of what is no class or synonym, and materials that do not exist.

    Raises:
        UserError: naming `where`, the value and what comes nearest.
    """
    phrases = [phrase for name, synonyms in classes.items() for phrase in (name, *synonyms)]
    for name, materials in overrides.items():
        if not any(_same(name, phrase) for phrase in phrases):
            raise UserError(
                f"{where}: '{name}' is not a class or synonym of the scene;{_near(name, phrases)}"
            )
        if isinstance(materials, str):
            raise UserError(f"{where}: '{name}' has '{materials}'; give a list, as [{materials}]")
        for material in materials:
            if material not in MATERIALS:
                raise UserError(
                    f"{where}: '{name}' has '{material}', which is not a material;"
                    f"{_near(material, list(MATERIALS))}; an empty list means no evidence"
                )


def _near(value: str, valid: Sequence[str]) -> str:
    """The fix of a mistyped value: what is like it, and all that is valid."""
    close = difflib.get_close_matches(value, valid, 3, cutoff=0.5)
    hint = f" did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
    return f"{hint} write one of: {', '.join(valid)}"


def sentences(classes: Sequence[ClassMaterials], where: str) -> list[str]:
    """What a user should know: a sentence for each class without evidence, and each word that was guessed.

    Args:
        classes: of materials_of_classes.
        where: the setting of the overrides, which the sentences name as the way out.
    """
    said = []
    for name, materials, found in classes:
        if not materials:
            if any(f.how == "override" for f in found.values()):
                continue  # the user's own choice
            listed = ", ".join(f"'{phrase}'" for phrase in found)
            words = [f.word for f in found.values() if f.how not in ("none", "override")]
            why = f" (read as '{words[0]}')" if words and words[0] != name else ""
            reason = (
                f"no reflectance spectrum can stand for {listed}{why}"
                if words
                else f"the materials of {listed} are not known"
            )
            said.append(
                f"class '{name}' has no spectral evidence: {reason};"
                f" to give it some, name its materials in {where}"
            )
        for phrase, f in found.items():
            if f.how == "neighbour" and f.materials:
                said.append(
                    f"'{phrase}' is not in the table of words and was read as '{f.word}'"
                    f" ({', '.join(f.materials)}; similarity {f.similarity:.2f});"
                    f" if that is wrong, name its materials in {where}"
                )
    return said


def _union(groups: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """All members of the groups, each once, in order."""
    return tuple(dict.fromkeys(member for group in groups for member in group))


def _same(name: str, phrase: str) -> bool:
    """Whether two phrases differ in case and spaces at most, as in core.classes."""
    return name.casefold().split() == phrase.casefold().split()
