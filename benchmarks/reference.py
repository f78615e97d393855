"""The other side: how the published code works, written plainly on transformers and peft.

Generation recomputes prompt and conversation in every turn (with a cache inside one reply);
training pads a batch to its longest example and computes logits at every position. Both read the
very token ids that our side reads, so that greedy replies and losses are the same.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM

from gcd.core.base_model import base_location
from gcd.core.chat import render_request, stop_ids
from gcd.core.records import Conversation
from gcd.core.settings import ModelSettings, TrainSettings
from gcd.training.losses import Example


def load_plain(settings: ModelSettings) -> Any:
    """The base model as transformers loads it; raises UserError if it is not prepared."""
    dtype = getattr(torch, settings.dtype)
    return AutoModelForCausalLM.from_pretrained(**base_location(), dtype=dtype).eval()


@contextmanager
def plain_mode() -> Iterator[None]:
    """Without our deterministic mode, which fills every new tensor: the published code has none."""
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=True)


def generate(
    model: Any, contexts: Sequence[list[int]], max_new_tokens: int, stop: set[int]
) -> list[list[int]]:
    """Greedy new ids of each context, up to and with an id of `stop`; one padded batch."""
    width = max(map(len, contexts))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in contexts])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in contexts])
    with plain_mode(), torch.inference_mode():
        made = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=sorted(stop),
            pad_token_id=min(stop),
        )
    return [cut_at(row, stop) for row in made[:, width:].tolist()]


def cut_at(ids: list[int], stop: set[int]) -> list[int]:
    """`ids` up to and with the first one of `stop`."""
    ends = [place for place, token in enumerate(ids) if token in stop]
    return ids[: ends[0] + 1] if ends else ids


def reply(
    model: Any,
    tokenizer: Any,
    conversations: list[Conversation],
    max_new_tokens: int,
    opening: str = "",
) -> list[tuple[str, bool]]:
    """The text of a greedy reply to each conversation, and whether it came to its end."""
    stop = stop_ids(tokenizer)
    requests = [render_request(tokenizer, [], messages, opening)[1] for messages in conversations]
    made = generate(model, requests, max_new_tokens, stop)
    return [
        ((opening + tokenizer.decode(ids, skip_special_tokens=True)).strip(), ids[-1] in stop)
        for ids in made
    ]


def attach_plain_lora(model: Any, settings: TrainSettings, seed: int) -> Any:
    """peft's LoRA on all linear layers; the weights that `seed` gives our side too."""
    torch.manual_seed(seed)
    lora = settings.lora
    return get_peft_model(
        model,
        LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )


def pad_right(examples: Sequence[Example]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, mask and labels of a batch, each [batch, longest]; -100 is no label."""
    width = max(len(example.ids) for example in examples)
    ids, mask, labels = [], [], []
    for example in examples:
        padding = width - len(example.ids)
        marked = zip(example.ids, example.supervised, strict=True)
        ids.append(example.ids + [0] * padding)
        mask.append([1] * len(example.ids) + [0] * padding)
        labels.append([token if label else -100 for token, label in marked] + [-100] * padding)
    return torch.tensor(ids), torch.tensor(mask), torch.tensor(labels)


class PlainTrainer:
    """A training loop as anyone would write it: a padded batch a term, AdamW."""

    def __init__(self, model: Any, settings: TrainSettings) -> None:
        """`model` from `attach_plain_lora`."""
        self.model = model.train()
        self.settings = settings
        self.trainable = [value for value in model.parameters() if value.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.trainable, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )

    def step(self, terms: Sequence[tuple[float, Sequence[Example]]], rate: float) -> float:
        """One optimizer step on weighted batches at learning rate `rate`; returns the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        total = 0.0
        with plain_mode():
            for weight, examples in terms:
                ids, mask, labels = pad_right(examples)
                loss = weight * self.model(input_ids=ids, attention_mask=mask, labels=labels).loss
                loss.backward()
                total += loss.item()
            torch.nn.utils.clip_grad_norm_(self.trainable, self.settings.gradient_clip)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return total
