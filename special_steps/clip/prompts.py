"""Class names as text embeddings: phrases in template sentences, through a CLIP model's text tower."""

import logging
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import open_clip
import torch
from torch.nn import functional as F

from special_steps.clip.model import Clip
from special_steps.core.atomic import atomic_write
from special_steps.core.errors import UserError

log = logging.getLogger("special")

# Ours, for views from above. The bare phrase comes first: it is what users type.
AERIAL = ("{}", "an aerial photo of {}", "a satellite image of {}", "{} seen from above")
TEMPLATES: dict[str, Sequence[str]] = {
    # Radford et al. 2021 (CLIP): 80 sentences for photographs.
    "imagenet": [template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES],
    "aerial": AERIAL,
}


class Phrases(NamedTuple):
    """What classes are called, and the embeddings of that: the text step's result."""

    embeddings: np.ndarray  # (phrase, dim) float32, normalised
    class_index: np.ndarray  # (phrase,) int64, 0..K-1, every class at least once
    class_names: list[str]
    phrases: list[str]
    clip: str  # name of the model that made them


def write_phrases(path: Path, phrases: Phrases) -> None:
    """Write an .npz file with the fields of Phrases by name."""
    with atomic_write(path) as temporary:
        np.savez(
            temporary,
            embeddings=phrases.embeddings,
            class_index=phrases.class_index,
            class_names=np.array(phrases.class_names),
            phrases=np.array(phrases.phrases),
            clip=np.array(phrases.clip),
        )


def read_phrases(path: Path) -> Phrases:
    """Read what write_phrases wrote.

    Raises:
        UserError: for other files.
    """
    try:
        with np.load(path) as data:
            return Phrases(
                data["embeddings"],
                data["class_index"],
                [str(name) for name in data["class_names"]],
                [str(phrase) for phrase in data["phrases"]],
                str(data["clip"]),
            )
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a file of the text step ({error}); run it again") from error


def template_set(templates: str | Sequence[str] | None, clip: Clip) -> list[str]:
    """The sentences of a template set.

    Args:
        templates: a name of TEMPLATES; sentences with {} for the phrase; None for the model's own
            choice (else imagenet).
        clip: the model.

    Raises:
        UserError: for an unknown name, no sentences, and sentences without {}.
    """
    if templates is None:
        templates = clip.templates or "imagenet"
    if isinstance(templates, str):
        if templates not in TEMPLATES:
            known = ", ".join(TEMPLATES)
            raise UserError(
                f"unknown templates '{templates}'; give {known}, or a list of sentences"
            )
        templates = TEMPLATES[templates]
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

    Raises:
        UserError: when the model does not know a token of the tokenizer.
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
