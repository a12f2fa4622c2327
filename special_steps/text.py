"""Text: class names and synonyms become normalised embeddings of the CLIP model's text tower."""

from pathlib import Path

import numpy as np

from special_steps.clip.model import load_clip
from special_steps.clip.prompts import Phrases, embed, template_set, write_phrases
from special_steps.core.cli import run
from special_steps.core.errors import UserError


def phrases_of(classes: dict[str, list[str]]) -> tuple[list[str], list[int]]:
    """List all phrases, each class's name first, then its synonyms, with the class's index.

    Raises:
        UserError: for no classes, empty phrases, and a phrase that stands for two classes.
    """
    if not classes:
        raise UserError("classes: the list is empty; name at least one class")
    phrases: list[str] = []
    index: list[int] = []
    seen: dict[str, int] = {}
    for number, (name, synonyms) in enumerate(classes.items()):
        for phrase in [name, *synonyms]:
            if not phrase.strip():
                raise UserError(f"classes: '{name}' has an empty phrase; remove it")
            key = phrase.strip().casefold()  # tokenizers lower-case
            if key not in seen:
                seen[key] = number
                phrases.append(phrase)
                index.append(number)
            elif seen[key] != number:
                first = list(classes)[seen[key]]
                raise UserError(
                    f"classes: '{phrase}' stands for both '{first}' and '{name}'; keep one of them"
                )
    return phrases, index


def text(
    *,
    classes: dict[str, list[str]],
    out: Path,
    model: str,
    weights: str | None,
    templates: str | list[str] | None,
) -> None:
    """Embed the class names.

    Args:
        classes: class name -> synonyms (may be none); the name itself is always a phrase.
        out: .npz with embeddings (phrase, dim), class_index (phrase,), class_names, phrases, clip.
        model: "bundled", an open_clip model name, or the path of an open_clip config.
        weights: open_clip pretrained tag or path of a checkpoint; null for bundled.
        templates: "imagenet", "aerial", or a list of sentences with {}; null is the model's own.
    """
    phrases, index = phrases_of(classes)
    clip = load_clip(model, weights)
    embeddings = embed(clip, phrases, template_set(templates, clip))
    class_index = np.array(index, np.int64)
    write_phrases(out, Phrases(embeddings, class_index, list(classes), phrases, clip.name))


if __name__ == "__main__":
    run(text)
