"""Text: class names and synonyms become normalised embeddings of the CLIP model's text tower."""

from pathlib import Path

import numpy as np

from special_steps.clip.model import load_clip
from special_steps.clip.prompts import Phrases, embed, template_set, write_phrases
from special_steps.core.classes import phrases_of
from special_steps.core.cli import run


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
    phrases, index = phrases_of(classes, "classes")
    clip = load_clip(model, weights)
    embeddings = embed(clip, phrases, template_set(templates, clip))
    class_index = np.array(index, np.int64)
    write_phrases(out, Phrases(embeddings, class_index, list(classes), phrases, clip.name))


if __name__ == "__main__":
    run(text)
