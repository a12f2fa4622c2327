"""What open_clip knows of published models: names, tags, files, and the activation that each was trained with."""

import difflib
import hashlib
import logging
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import torch

from special_steps.core.errors import UserError, one_line

log = logging.getLogger("special")

QUICKGELU = "-quickgelu"  # end of the names of models with that activation

Entry = dict[
    str, Any
]  # open_clip's, of a checkpoint: `url` or `hf_hub`, `mean`, `std`, `quick_gelu`


def published_weights() -> dict[str, dict[str, Entry]]:
    """open_clip's table of published checkpoints: model -> tag -> entry."""
    table: dict[str, dict[str, Entry]] = {}
    for model, tag in open_clip.list_pretrained():
        table.setdefault(model, {})[tag] = open_clip.get_pretrained_cfg(model, tag)
    return table


def find(model: str, weights: str | None) -> tuple[dict[str, Any], Callable[[], Path]]:
    """One of open_clip's models, after a check that the weights exist and go with it.

    Args:
        model: open_clip's name.
        weights: open_clip's pretrained tag, or the path of a checkpoint.

    Returns:
        Its config (`model_cfg` and `preprocess_cfg`, as in an open_clip_config.json), and what
        gives the path of its checkpoint, which is downloaded then if it is not in the cache.

    Raises:
        UserError: for unknown names, and weights that were trained with another activation.
    """
    if model not in open_clip.list_models():
        raise UserError(
            f"unknown CLIP model '{model}'{_similar(model, open_clip.list_models())};"
            " give bundled, an open_clip model name, or the path of an open_clip config ending in .json"
        )
    config = {"model_cfg": open_clip.get_model_config(model)}
    tags = published_weights().get(model, {})
    if weights is None:
        raise UserError(f"model {model} needs weights: one of {', '.join(tags)}, or a file's path")
    entry = _entry(model, weights)
    if entry is not None:
        _check_activation(model, entry, weights)
        preprocess = {key: entry[key] for key in ("mean", "std") if key in entry}
        return config | {"preprocess_cfg": preprocess}, partial(_download, model, weights, entry)
    if Path(weights).is_file():
        _check_file(model, Path(weights))
        return config, partial(Path, weights)
    if _entry(_twin(model), weights):  # e.g. laion2b with ViT-B-32-quickgelu
        raise UserError(f"weights '{weights}' don't go with model {model}: use {_twin(model)}")
    if "/" in weights or weights.endswith((".pt", ".pth", ".bin", ".ckpt", ".safetensors")):
        raise UserError(f"{weights}: no such checkpoint file for model {model}; correct the path")
    raise UserError(
        f"unknown weights '{weights}' for model {model}{_similar(weights, tags)};"
        f" give the path of a checkpoint or one of: {', '.join(tags)}"
    )


def tokenizer_of(model: str) -> Callable[..., torch.Tensor]:
    """The tokenizer of one of open_clip's models, downloaded if need be.

    Raises:
        UserError: when it can't be had.
    """
    try:
        return open_clip.get_tokenizer(model)
    except Exception as error:  # of transformers and huggingface_hub: no common base class
        raise UserError(
            f"can't get the tokenizer of model {model} ({one_line(error)}); check the connection"
        ) from error


def published_entry(path: Path) -> Entry | None:
    """open_clip's entry for a local file, if it is a published one under whatever name.

    Known by digest are the files whose download address has it: OpenAI's (whole SHA-256 as a
    folder) and open_clip's first releases (eight digits in the name). Of other files, such as a
    safetensors copy of OpenAI's weights, nothing in them tells the activation they were trained
    with: then only the file's name can give a hint, and a fine-tuned or renamed file is believed.
    """
    known = {}
    for tags in published_weights().values():
        for entry in tags.values():
            url = entry.get("url", "")
            if is_openai(entry):
                known[url.split("/")[-2]] = entry
            elif "mlfoundations" in url:
                known[url.rsplit("-", 1)[-1].removesuffix(".pt")] = entry
    digest = sha256(path)
    return known.get(digest) or known.get(digest[:8])


def is_openai(entry: Entry) -> bool:
    """Whether the file of an entry is one that OpenAI published itself."""
    return "openaipublic" in entry.get("url", "")


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _entry(model: str, tag: str) -> Entry | None:
    return published_weights().get(model, {}).get(tag.lower().replace("-", "_"))


def _download(model: str, tag: str, entry: Entry) -> Path:
    """Path of the entry's checkpoint in the cache, by open_clip's own code."""
    log.info("weights %s of %s: from the cache, or downloaded now", tag, model)
    try:
        return Path(open_clip.download_pretrained(entry))
    except Exception as error:  # of urllib, httpx, huggingface_hub: they share no base class
        source = entry.get("hf_hub") or entry.get("url")
        raise UserError(
            f"can't download weights '{tag}' of model {model} from {source} ({one_line(error)});"
            " check the connection, or fetch the file elsewhere and give its path as weights"
        ) from error


def _similar(word: str, known: Iterable[str]) -> str:
    """A question that names what the word may have meant, or nothing."""
    by_lower = {k.lower(): k for k in known}
    near = [k for k in by_lower if k.startswith(word.lower())][:3]
    near = near or difflib.get_close_matches(word.lower(), by_lower, n=3, cutoff=0.5)
    return f", did you mean {' or '.join(by_lower[n] for n in near)}?" if near else ""


# --- weights and models that do not belong together --------------------------------------------


def _has_quickgelu(model: str) -> bool:
    return bool((open_clip.get_model_config(model) or {}).get("quick_gelu", False))


def _twin(model: str) -> str:
    """The name of the same architecture with the other activation."""
    return model.removesuffix(QUICKGELU) if model.endswith(QUICKGELU) else model + QUICKGELU


def _check_activation(model: str, entry: Entry, weights: str) -> None:
    """Refuse weights that were trained with the other activation: they run, and score badly."""
    quick = bool(entry.get("quick_gelu", False))
    if quick == _has_quickgelu(model):
        return
    activation = "QuickGELU" if quick else "plain GELU"
    if _twin(model) not in open_clip.list_models():  # nothing better to offer: open_clip's table
        what = "weights '%s' were trained with %s, unlike model %s"
        log.warning(what, weights, activation, model)
        return
    raise UserError(
        f"weights '{weights}' were trained with {activation} and don't go with model {model}:"
        f" use {_twin(model)}"
    )


def _check_file(model: str, path: Path) -> None:
    """The same of a file: by its digest, else by a hint in its name."""
    entry = published_entry(path)
    if entry is not None:
        _check_activation(model, entry, str(path))
        return
    name = path.name.lower().replace("_", "").replace("-", "")
    hint = "openai" in name or "quickgelu" in name
    if hint and not _has_quickgelu(model) and model + QUICKGELU in open_clip.list_models():
        raise UserError(
            f"{path}: named like weights that need QuickGELU, which model {model} does not have;"
            f" use {model}{QUICKGELU}, or rename the file if it really was trained without"
        )
