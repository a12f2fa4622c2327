"""Text: class names and synonyms become normalised embeddings of the CLIP model's text tower."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import open_clip
import torch
from torch.nn import functional as F

from special_steps.clip.model import Clip, load_clip
from special_steps.core.atomic import atomic_write
from special_steps.core.classes import phrases_of
from special_steps.core.cli import run
from special_steps.core.errors import UserError

log = logging.getLogger("special")

TEMPLATES = {
    # Radford et al. 2021 (CLIP): 80 sentences for photographs.
    "imagenet": [template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES],
    # Ours, for views from above.
    "aerial": [
        "{}",
        "an aerial photo of {}",
        "a satellite image of {}",
        "{} seen from above",
    ],
}


def template_set(templates: str | Sequence[str] | None, clip: Clip) -> list[str]:
    """The sentences of a template set; None is the model's own choice (else imagenet)."""
    if templates is None:
        templates = clip.templates or "imagenet"
    if isinstance(templates, str):
        if templates not in TEMPLATES:
            known = ", ".join(TEMPLATES)
            raise UserError(
                f"unknown templates '{templates}'; give {known}, or a list of sentences"
            )
        return TEMPLATES[templates]
    for template in templates:
        if "{}" not in template:
            raise UserError(f"template '{template}' has no {{}} for the class name; add it")
    if not templates:
        raise UserError("templates: the list is empty; give at least one, such as '{}'")
    return list(templates)


@torch.inference_mode()
def embed(clip: Clip, phrases: Sequence[str], templates: Sequence[str]) -> np.ndarray:
    """Embed phrases: each in all templates, normalised, averaged, normalised again.

    Args:
        clip: the model.
        phrases: class names and synonyms.
        templates: sentences in which {} stands for the phrase.

    Returns:
        (phrase, dim) float32, each of length 1.
    """
    rows = []
    for phrase in phrases:
        sentences = [template.replace("{}", phrase) for template in templates]
        tokens = clip.tokenizer(sentences)
        _check_tokens(clip, phrase, sentences, tokens)
        rows.append(clip.model.encode_text(tokens.to(clip.device), normalize=True).mean(0))
    return F.normalize(torch.stack(rows), dim=1).float().cpu().numpy()


def _check_tokens(clip: Clip, phrase: str, sentences: list[str], tokens: torch.Tensor) -> None:
    length = tokens.shape[1]
    padding = clip.tokenizer([""], context_length=length + 1)[0, -1]
    cut = int((clip.tokenizer(sentences, context_length=length + 1)[:, -1] != padding).sum())
    if cut:
        log.warning(
            "phrase '%s' is longer than the model's %d tokens in %d of %d templates; its end is cut",
            phrase, length, cut, len(sentences),
        )  # fmt: skip
    vocabulary = getattr(clip.model, "vocab_size", tokens.max() + 1)
    if tokens.max() >= vocabulary:
        raise UserError(
            f"model {clip.name}: its vocabulary of {vocabulary} has no token {int(tokens.max())}"
            f" of phrase '{phrase}'; the tokenizer is another model's: correct the config's text_cfg"
        )


def text(
    *,
    classes: dict[str, list[str]],
    out: Path,
    model: str = "bundled",
    weights: str | None = None,
    templates: str | list[str] | None = None,
) -> None:
    """Embed the class names.

    Args:
        classes: class name -> synonyms (may be none); the name itself is always a phrase.
        out: .npz with embeddings (phrase, dim), class_index (phrase,), class_names, phrases, clip.
        model: "bundled", an open_clip model name, or the path of an open_clip config.
        weights: open_clip pretrained tag or path of a checkpoint; none for bundled.
        templates: "imagenet", "aerial", or a list of sentences with {}; null is the model's own.
    """
    phrases, index = phrases_of(classes, "classes")
    clip = load_clip(model, weights)
    embeddings = embed(clip, phrases, template_set(templates, clip))
    with atomic_write(out) as temporary:
        np.savez(
            temporary,
            embeddings=embeddings,
            class_index=np.array(index, np.int64),
            class_names=np.array(list(classes)),
            phrases=np.array(phrases),
            clip=np.array(clip.name),
        )


if __name__ == "__main__":
    run(text)
