"""Teach open_clip's small text transformer to reproduce MiniLM on land-cover phrases."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from special_steps.bundled_clip.training.phrases import corpus, held_out, nouns
from special_steps.bundled_clip.training.teacher import Teacher
from special_steps.core.atomic import atomic_write
from special_steps.core.tensors import write_tensors

log = logging.getLogger("bundled_clip")

EVERYDAY = 16000  # most frequent whole words of the BPE vocabulary
LEARNING_RATE = 2e-3
NOUN_SET = frozenset(nouns())
RANKING = 0.5
RELATION = 4.0  # weight of the relational loss beside the cosine loss


def kind(phrase: str) -> int:
    """0 for a bare land-cover noun, 1 for one with an adjective, 2 for any other phrase."""
    return 0 if phrase in NOUN_SET else 1 if phrase.partition(" ")[2] in NOUN_SET else 2


def ranking_loss(out: Tensor, goal: Tensor, warmth: float = 0.05) -> Tensor:
    """How far each phrase's nearest others in the batch (N, 384) differ from the teacher's."""
    hide = -torch.eye(len(out)) * 1e4
    wanted = (goal @ goal.T / warmth + hide).softmax(-1)
    got = (out @ out.T / warmth + hide).log_softmax(-1)
    return F.kl_div(got, wanted, reduction="batchmean")


def bpe_texts(tokenizer: open_clip.SimpleTokenizer) -> list[str]:
    """The text of every token of the vocabulary, in token order."""
    return [tokenizer.decode([i]).strip() for i in range(tokenizer.vocab_size)]


def everyday_words(tokenizer: open_clip.SimpleTokenizer) -> list[str]:
    """Whole words in the order the BPE learned them, which is roughly by frequency."""
    whole = (
        t[:-4]
        for t, _ in sorted(tokenizer.encoder.items(), key=lambda item: item[1])
        if t.endswith("</w>")
    )
    return [w for w in whole if len(w) > 2 and w.isascii() and w.isalpha()][:EVERYDAY]


def prepare(folder: Path, tokenizer: open_clip.SimpleTokenizer, width: int, seed: int) -> None:
    """Write the corpus, its teacher embeddings and the warm start, once, into `folder`."""
    if (folder / "text_targets.safetensors").exists():
        return
    teacher = Teacher()
    phrases = corpus(everyday_words(tokenizer), seed)
    log.info("text: embedding %d phrases with the teacher", len(phrases))
    targets = teacher.embed(phrases)
    vectors = teacher.word_vectors(bpe_texts(tokenizer))
    centred = vectors - vectors.mean(0)
    _, _, basis = torch.linalg.svd(centred, full_matrices=False)
    warm = centred @ basis[:width].T
    warm = warm * (0.02 / warm.std())
    with atomic_write(folder / "phrases.txt") as file:
        file.write_text("\n".join(phrases) + "\n", encoding="utf-8")
    tensors = {"targets": targets.half(), "warm": warm}
    write_tensors(folder / "text_targets.safetensors", tensors)


def encode(model: open_clip.CLIP, tokens: Tensor) -> Tensor:
    """Unit embeddings (N, 384) of tokens (N, length), cut to the longest phrase.

    The mask is causal and the end token is the last one read, so cutting the padding changes
    nothing but the time it takes.
    """
    length = int(tokens.argmax(-1).max()) + 1
    tokens = tokens[:, :length]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    x = model.ln_final(x)[torch.arange(len(tokens)), tokens.argmax(-1)]
    return F.normalize(x @ model.text_projection, dim=-1)


@torch.inference_mode()
def embed(
    model: open_clip.CLIP, tokenizer: open_clip.SimpleTokenizer, phrases: Sequence[str]
) -> Tensor:
    """Unit embeddings (N, 384) of N phrases by the student."""
    tokens = tokenizer(list(phrases))
    return torch.cat([encode(model, part) for part in tokens.split(512)]).clone()


def train_text(
    model: open_clip.CLIP,
    tokenizer: open_clip.SimpleTokenizer,
    folder: Path,
    seconds: float,
    seed: int = 0,
    batch: int = 320,
    names: bool = False,
) -> None:
    """Distil the teacher into `model`'s text tower, in place. `folder` keeps the corpus.

    `names` continues from the tower as it is, gently, draws what users type more often (a third
    bare nouns, a third nouns with an adjective) and asks for the teacher's nearest neighbours.

    Loss: one minus cosine, and the difference of the batch's two similarity matrices, because
    what a user of class names needs is the ranking of phrases, not only their places.
    """
    torch.manual_seed(seed)
    prepare(folder, tokenizer, model.token_embedding.embedding_dim, seed)
    phrases = (folder / "phrases.txt").read_text(encoding="utf-8").splitlines()
    stored = load_file(folder / "text_targets.safetensors")
    targets, tokens = stored["targets"].float(), tokenizer(phrases)
    test = torch.tensor([held_out(p) for p in phrases])
    train_rows, test_rows = (~test).nonzero()[:, 0], test.nonzero()[:, 0]
    lengths = tokens.argmax(-1)

    draw = torch.ones(len(train_rows))
    if names:
        kinds = torch.tensor([kind(phrases[i]) for i in train_rows.tolist()])
        draw = 1 / torch.bincount(kinds)[kinds].float()
    else:
        with torch.no_grad():
            model.token_embedding.weight.copy_(stored["warm"])
    rate = LEARNING_RATE * (0.3 if names else 1)
    prefixes = (
        "token_embedding",
        "positional_embedding",
        "transformer",
        "ln_final",
        "text_projection",
    )
    parameters = [p for n, p in model.named_parameters() if n.startswith(prefixes)]
    average = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(parameters, rate, (0.9, 0.98), weight_decay=0.0, fused=True)
    model.train()
    start, step, losses = time.monotonic(), 0, []
    while (done := (time.monotonic() - start) / seconds) < 1:
        if step % 200 == 0:  # a fresh order, in runs of like length to spare padding
            order = train_rows[torch.multinomial(draw, min(200 * batch, len(draw)), names)]
            order = order[lengths[order].argsort()]
            chunks = order.split(batch)
            chunk_order = torch.randperm(len(chunks))
        rows = chunks[chunk_order[step % len(chunks)]]
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, step / 100) * (0.5 + 0.5 * math.cos(math.pi * done))
        out, goal = encode(model, tokens[rows]), targets[rows]
        cosine = (out * goal).sum(-1).mean()
        relation = (out @ out.T - goal @ goal.T).square().mean()
        loss = 1 - cosine + RELATION * relation
        if names:
            loss = loss + RANKING * ranking_loss(out, goal)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        torch._foreach_lerp_(
            average, [p.detach() for p in parameters], 1 - min(0.998, step / (step + 20))
        )
        losses.append(cosine.item())
        if step % 200 == 0:
            mean = sum(losses[-200:]) / 200
            log.info("text: %5.0f s, step %d, cosine %.4f", time.monotonic() - start, step, mean)
    with torch.no_grad():
        for parameter, mean in zip(parameters, average, strict=True):
            parameter.copy_(mean)
    model.eval()
    got = embed(model, tokenizer, [phrases[i] for i in test_rows.tolist()])
    score = (got * targets[test_rows]).sum(-1).mean()
    log.info("text: %d steps, held-out cosine %.4f (%d phrases)", step, score, len(test_rows))
