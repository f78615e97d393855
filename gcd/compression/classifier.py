"""The token classifier: an encoder with two labels a sub-token, class 1 = keep.

Class 1's softmax is the sub-token's probability to be kept (LLMLingua-2, section 4.1).
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import AutoModelForTokenClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from gcd.compression.selection import Token, chunk_ends
from gcd.core.base_model import device
from gcd.core.errors import UserError
from gcd.core.settings import Count, Positive, Section

IGNORED = -100  # no label: cross_entropy passes over it
BATCH = 16  # texts read at a time where no gradient is kept; changes no result but in rounding


class TrainClassifierSettings(Section):
    """AdamW without weight decay; the learning rate falls linearly to 0 over `steps`."""

    steps: Count
    batch_size: Count
    learning_rate: Positive
    gradient_clip: Positive


@dataclass(frozen=True)
class Example:
    """Ids with the encoder's own tokens around them, and labels: 1 keep, 0 delete, or IGNORED."""

    ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class Trained:
    """What training took: the loss of every step, and tokens that were read, and had a label."""

    losses: list[float]
    read_tokens: int
    supervised_tokens: int


@dataclass(frozen=True)
class Chunk:
    """text[start:end], and its sub-tokens."""

    start: int
    end: int
    tokens: list[Token]


class Classifier:
    """A token classification model and its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        """Both as `load_classifier` returns them."""
        self.model = model.to(device())
        self.tokenizer = tokenizer

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and characters of each sub-token, without the encoder's own tokens."""
        encoded = self.tokenizer(
            text,
            add_special_tokens=False,
            split_special_tokens=True,  # a [SEP] in a prompt is no control token
            return_offsets_mapping=True,
            verbose=False,
        )
        return encoded["input_ids"], [tuple(span) for span in encoded["offset_mapping"]]

    def surround(self, ids: list[int]) -> list[int]:
        """`ids` as the encoder reads them: between its two own tokens."""
        return [self.tokenizer.cls_token_id, *ids, self.tokenizer.sep_token_id]

    @torch.inference_mode()
    def probabilities(self, rows: list[list[int]]) -> list[list[float]]:
        """Of each id of each row, the probability to be kept. Rows are surrounded."""
        self.model.eval()
        found = []
        for begin in range(0, len(rows), BATCH):
            batch = rows[begin : begin + BATCH]
            keep = torch.softmax(self._logits(batch).float(), -1)[..., 1].tolist()
            found += [row[: len(ids)] for row, ids in zip(keep, batch, strict=True)]
        return found

    def score(self, text: str, chunk_tokens: int) -> list[Chunk]:
        """The chunks of `text`, of at most `chunk_tokens` each, every one read by itself.

        Raises:
            UserError: the encoder reads fewer tokens at once.
        """
        limit = min(self.model.config.max_position_embeddings, self.tokenizer.model_max_length)
        if chunk_tokens + 2 > limit:
            raise UserError(
                f"methods.llmlingua2.chunk_tokens is {chunk_tokens}, and the encoder adds 2 of its "
                f"own; it reads {limit} at once. Lower it."
            )
        ids, spans = self.encode(text)
        ends = chunk_ends(text, spans, chunk_tokens)
        starts = [0, *ends[:-1]]
        rows = [self.surround(ids[s:e]) for s, e in zip(starts, ends, strict=True)]
        borders = [0, *(spans[end][0] for end in ends[:-1]), len(text)]
        chunks = []
        for place, (s, e, row) in enumerate(
            zip(starts, ends, self.probabilities(rows), strict=True)
        ):
            tokens = [Token(*span, p) for span, p in zip(spans[s:e], row[1:-1], strict=True)]
            chunks.append(Chunk(borders[place], borders[place + 1], tokens))
        return chunks

    def train(
        self, examples: list[Example], settings: TrainClassifierSettings, seed: int
    ) -> Trained:
        """Train all weights. Examples are shuffled every epoch.

        The same seed on the same machine gives the same weights. A killed one begins again.
        """
        torch.manual_seed(seed)
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=settings.learning_rate, weight_decay=0.0
        )
        decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, settings.steps)
        waiting: list[int] = []
        losses: list[float] = []
        read = supervised = 0
        self.model.train()
        interval = 1.0 if sys.stderr.isatty() else 15.0
        for _ in tqdm(range(settings.steps), "classifier", unit="step", mininterval=interval):
            while len(waiting) < settings.batch_size:
                waiting += torch.randperm(len(examples)).tolist()
            batch = [examples[waiting.pop(0)] for _ in range(settings.batch_size)]
            logits = self._logits([example.ids for example in batch])
            labels = torch.full(logits.shape[:2], IGNORED, device=logits.device)
            for row, example in enumerate(batch):
                labels[row, : len(example.labels)] = torch.tensor(example.labels)
            loss = cross_entropy(logits.flatten(0, 1), labels.flatten())
            loss.backward()  # type: ignore[no-untyped-call]  # torch
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.gradient_clip)
            optimizer.step()
            optimizer.zero_grad()
            decay.step()
            losses.append(loss.item())
            read += labels.numel()
            supervised += int((labels != IGNORED).sum())
        return Trained(losses, read, supervised)

    def accuracy(self, examples: list[Example]) -> float:
        """Share of labelled sub-tokens whose label is the more probable one; nan if there are none.

        The label is keep from a probability of one half on.
        """
        right = []
        rows = self.probabilities([example.ids for example in examples])
        for example, row in zip(examples, rows, strict=True):
            for label, probability in zip(example.labels, row, strict=True):
                if label != IGNORED:
                    right.append((probability >= 0.5) == (label == 1))
        return sum(right) / len(right) if right else float("nan")

    def _logits(self, rows: list[list[int]]) -> Any:
        """[rows, longest, 2]; what is padding is masked."""
        width = max(map(len, rows))
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        place = self.model.device
        return self.model(input_ids=ids.to(place), attention_mask=mask.to(place)).logits


def load_classifier(seed: int, name: str | Path, **options: Any) -> tuple[Classifier, bool]:
    """A checkpoint as a classifier, and whether it is a trained one.

    One that is an encoder gets a fresh classification layer, which `seed` decides.

    Args:
        seed: for fresh weights.
        name: a folder in transformers' format, or the hub's name.
        options: for `from_pretrained`.

    Raises:
        UserError: there is no usable encoder with a fast tokenizer, or it has not two labels.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.manual_seed(seed)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        model, report = AutoModelForTokenClassification.from_pretrained(
            name, dtype=torch.float32, output_loading_info=True, **options
        )
    except Exception as error:  # OS, json, safetensors and hub errors share no base class
        raise UserError(
            f"The encoder {name} cannot be loaded: {' '.join(str(error).split())[:300]} Correct "
            "methods.llmlingua2.encoder; it needs an encoder in transformers' format."
        ) from error
    if not tokenizer.is_fast:
        raise UserError(f"The encoder {name} has no fast tokenizer: tokenizer.json is expected.")
    missing = sorted(report["missing_keys"])
    if model.config.num_labels != 2 or not all(key.startswith("classifier.") for key in missing):
        raise UserError(
            f"The encoder {name}: expected two labels (delete, keep) and all weights but a "
            f"classifier's; found {model.config.num_labels} labels, missing {missing[:3]}. "
            "Correct methods.llmlingua2.encoder."
        )
    return Classifier(model, tokenizer), not missing
