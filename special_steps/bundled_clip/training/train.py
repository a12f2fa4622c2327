"""Train the bundled CLIP: text distillation, parts of scenes, image alignment, export.

    python -m special_steps.bundled_clip.training.train --aerial ../shared/data/aerial --out DIR

needs envs/training.txt beside the project's own packages. A run that is stopped goes on where it
was when the same command is given again. Batches depend on seed and number only; the weights also
on how many steps the given seconds hold.
"""

from __future__ import annotations

import argparse
import logging
from functools import partial
from pathlib import Path

import open_clip
import torch
from safetensors.torch import load_file

from special_steps.bundled_clip.training import model as bundled
from special_steps.bundled_clip.training import text_tower
from special_steps.bundled_clip.training.aerial import load
from special_steps.bundled_clip.training.evaluate import fit_scale
from special_steps.bundled_clip.training.image_tower import train_images
from special_steps.bundled_clip.training.mosaics import make_bank
from special_steps.bundled_clip.training.parts import find_parts
from special_steps.bundled_clip.training.teacher import Teacher
from special_steps.bundled_clip.training.words import embed_words
from special_steps.core.tensors import write_tensors

log = logging.getLogger("bundled_clip")
TEXT_FILES = ("text.safetensors", "text_names.safetensors")
STAGES = ("text", "parts", "image", "export")


def load_text(model: open_clip.CLIP, out: Path) -> bool:
    """Put the newest distilled text tower into the model; False if there is none yet."""
    for name in TEXT_FILES[::-1]:
        if (out / name).exists():
            model.load_state_dict(load_file(out / name), strict=False)
            return True
    return False


def train_text(
    model: open_clip.CLIP,
    tokenizer: open_clip.SimpleTokenizer,
    out: Path,
    seconds: float,
    seed: int,
) -> None:
    """Distil the text tower: four fifths of the time on all phrases, the rest on names."""
    for name, share, names in zip(TEXT_FILES, (0.8, 0.2), (False, True), strict=True):
        if (out / name).exists():
            continue
        load_text(model, out)
        text_tower.train_text(model, tokenizer, out, share * seconds, seed, names=names)
        state = model.state_dict()
        text = {k: v for k, v in state.items() if not k.startswith(("visual", "logit"))}
        write_tensors(out / name, text)


def export(model: open_clip.CLIP, out: Path) -> None:
    """Write the model as it stands, with the newest text tower."""
    load_text(model, out)
    bundled.save(model, out)
    log.info("export: weights written")


def train(
    aerial: Path,
    out: Path,
    seconds: float = 8400,
    text_seconds: float = 1500,
    seed: int = 0,
    stages: tuple[str, ...] = STAGES,
    processes: int = 2,
) -> None:
    """Run the stages asked for; each takes up what earlier ones left in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    if "image" in stages:
        torch.set_num_threads(1)  # before anything forks
    model, tokenizer = bundled.build()
    if "text" in stages:
        train_text(model, tokenizer, out, text_seconds, seed)
    if not {"parts", "image", "export"} & set(stages):
        return
    data = load(aerial, out)
    parts = find_parts(data, out, seed)
    if "image" in stages:
        encoders = [Teacher().embed]
        if load_text(model, out):
            encoders.append(partial(text_tower.embed, model, tokenizer))
        words = embed_words(encoders)
        bank = make_bank(data, parts, held_out=False, seed=seed)
        log.info("image: pure spots of each part: %s", [len(s) for s in bank.spots])
        train_images(model, bank, words, out, seconds, seed, processes, partial(export, model, out))
        export(model, out)
    if "export" in stages:
        if "image" not in stages:
            model, tokenizer = bundled.load(out)
            load_text(model, out)
        words = embed_words([partial(text_tower.embed, model, tokenizer)])
        bank = make_bank(data, parts, held_out=True, seed=seed)
        fit_scale(model, bank, words)
        bundled.save(model, out)
        log.info("export: logit scale %.2f", model.logit_scale.exp().item())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--aerial", type=Path, required=True, help="folder of the image archives")
    parser.add_argument("--out", type=Path, required=True, help="folder for caches and weights")
    parser.add_argument("--seconds", type=float, default=8400, help="time for the image tower")
    parser.add_argument("--text-seconds", type=float, default=1500, help="time for the text tower")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--processes", type=int, default=2, help="processes of one thread each")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(message)s",
        handlers=[logging.FileHandler(options.out / "train.log"), logging.StreamHandler()],
    )
    train(**vars(options))


if __name__ == "__main__":
    main()
