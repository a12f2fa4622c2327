"""Class names, their synonyms and their labels: the one place that says what is allowed."""

import difflib
import re
from collections.abc import Mapping, Sequence

from special_steps.core.errors import UserError

MOST = 255  # a map is uint8, and 0 means no class
UNKNOWN = "unknown"  # on exported maps: pixels whose confidence is under `reject`; their value comes after the classes'


def read_classes(
    entries: Sequence[str | Mapping[str, Sequence[str]]], where: str
) -> dict[str, list[str]]:
    """Class entries of a config, each a name or {name: synonyms}, as name -> synonyms, in order.

    Raises:
        UserError: naming `where`, for what `phrases_of` refuses.
    """
    classes: list[tuple[str, Sequence[str]]] = []
    for entry in entries:
        classes += [(entry, [])] if isinstance(entry, str) else entry.items()
    _phrases(classes, where)
    return {name: list(synonyms) for name, synonyms in classes}


def phrases_of(classes: Mapping[str, Sequence[str]], where: str) -> tuple[list[str], list[int]]:
    """List all phrases, each class's name first, then its synonyms, with the class's index.

    Raises:
        UserError: naming `where`, for no or too many classes, blank phrases, and phrases that appear twice, also when
            only case or spaces differ.
    """
    return _phrases(list(classes.items()), where)


def _phrases(
    classes: Sequence[tuple[str, Sequence[str]]], where: str
) -> tuple[list[str], list[int]]:
    if not classes:
        raise UserError(f"{where}: the list is empty; name at least one class")
    _check_number(len(classes), where)
    phrases: list[str] = []
    index: list[int] = []
    owner: dict[str, str] = {}  # class, by phrase as tokenizers see it: no case, single spaces
    for number, (name, synonyms) in enumerate(classes):
        for phrase in (name, *synonyms):
            key = " ".join(phrase.casefold().split())
            if not key:
                raise UserError(f"{where}: a class name or synonym is blank; give it a word")
            if key in owner:
                raise UserError(
                    f"{where}: '{phrase}' appears twice (in '{owner[key]}' and '{name}'); remove one"
                )
            owner[key] = name
            phrases.append(phrase)
            index.append(number)
    return phrases, index


def label_number(label: float | str | list[int], where: str) -> int:
    """A label of a config as the number in the file: a whole number, or a colour, which is 0xRRGGBB as a number.

    Args:
        label: 17, "17", "0xff7f50", "#ff7f50", "#f75", or [255, 127, 80].
        where: the setting, for messages.

    Raises:
        UserError: naming `where`, for anything else.
    """
    if isinstance(label, str):
        text = label.strip().lower()
        if re.fullmatch(r"#[0-9a-f]{3}", text):
            text = "#" + "".join(2 * digit for digit in text[1:])
        if re.fullmatch(r"#[0-9a-f]{6}", text):
            return int(text[1:], 16)
        if re.fullmatch(r"0x[0-9a-f]{1,6}", text):
            return int(text, 16)
        if re.fullmatch(r"[+-]?\d+", text):
            return int(text)
    elif isinstance(label, list):
        if len(label) == 3 and all(type(v) is int and 0 <= v <= 255 for v in label):
            return label[0] << 16 | label[1] << 8 | label[2]
    elif isinstance(label, int | float) and not isinstance(label, bool) and label == label // 1:
        return int(label)
    raise UserError(
        f"{where}: {label!r} is no label: write a whole number, or a colour as 0xff7f50, '#ff7f50' or"
        " [255, 127, 80]"
    )


def classes_by_label(
    labels: Mapping[str, int], class_names: Sequence[str], unlabelled: Sequence[int], where: str
) -> dict[int, str]:
    """A ground truth's labels by class name as class names by label.

    Raises:
        UserError: naming `where`, for no labels, classes that the scene does not have, and a label that two classes
            share or that is also unlabelled.
    """
    _check_number(len(class_names), where)
    if not labels:
        raise UserError(f"{where}: say which label each class has, by class name")
    classes: dict[int, str] = {}
    for name, label in labels.items():
        check_class(name, class_names, where)
        if label in unlabelled:
            raise UserError(
                f"{where}: label {label} of '{name}' is in 'unlabelled', too; take it out of one"
            )
        if label in classes:
            raise UserError(
                f"{where}: '{classes[label]}' and '{name}' both have label {label};"
                " give each class its own"
            )
        classes[label] = name
    return classes


def check_class(name: str, class_names: Sequence[str], where: str) -> None:
    """Refuse a name that is no class of the scene.

    Raises:
        UserError: naming `where`, the nearest class and all classes.
    """
    if name not in class_names:
        close = difflib.get_close_matches(name, class_names, 1)
        hint = f" did you mean '{close[0]}'?" if close else ""
        listed = ", ".join(f"'{n}'" for n in class_names)
        raise UserError(
            f"{where}: '{name}' is not a class of the scene;{hint} its classes: {listed}"
        )


def _check_number(classes: int, where: str) -> None:
    if classes > MOST:
        raise UserError(f"{where}: {classes} classes; a map holds at most {MOST}")
