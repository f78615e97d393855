"""Sentence embeddings by a local encoder: the mean of its last states, of length 1.

That is how the all-MiniLM models and most of their kind were trained to be read. The folder is
internalize.yaml's `embedding_model`; nothing is fetched.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from gcd.core.errors import UserError

Embed = Callable[[list[str]], NDArray[np.float64]]
BATCH = 32  # texts at a time: a few hundred tokens each


def load_embedding(folder: Path) -> Embed:
    """A function from n texts to [n, d].

    Raises:
        UserError: the folder holds no encoder in transformers' format.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        model = AutoModel.from_pretrained(str(folder), local_files_only=True).eval()
    except Exception as error:  # OS, json and safetensors errors share no base class
        raise UserError(
            f"internalize.yaml: key `embedding_model`: expected a folder with an encoder in "
            f"transformers' format, got {folder}: {' '.join(str(error).split())[:200]}"
        ) from error

    @torch.inference_mode()
    def embed(texts: list[str]) -> NDArray[np.float64]:
        parts = []
        for start in range(0, len(texts), BATCH):
            batch = tokenizer(
                texts[start : start + BATCH],
                padding=True,
                truncation=True,
                max_length=model.config.max_position_embeddings,
                return_tensors="pt",
            )
            states = model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1)
            mean = (states * mask).sum(1) / mask.sum(1)
            parts.append(torch.nn.functional.normalize(mean, dim=-1).double().numpy())
        return np.concatenate(parts)

    return embed


def cosines(embed: Embed, ours: list[str], theirs: list[str]) -> list[float]:
    """The cosine of each pair; a text that is empty has none, and counts 0 unless both are."""
    both = embed([*ours, *theirs])
    first, second = both[: len(ours)], both[len(ours) :]
    return [
        float(bool(one.strip()) == bool(other.strip()))
        if not (one.strip() and other.strip())
        else float(np.dot(left, right))
        for one, other, left, right in zip(ours, theirs, first, second, strict=True)
    ]
