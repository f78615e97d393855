"""The in-context autoencoder (ICAE, arXiv 2307.06945): a text in a few vectors, its slots.

The encoder is the base model with LoRA; it reads memory tokens behind the text and makes of each a
slot. The decoder is the base model as it is, and reads slots like embeddings of tokens. Behind them
stands a mark that says what is to come: the text itself, its continuation, or a conversation.

Two things differ from the authors' code (getao/icae), so that few steps suffice. The text itself is
read without LoRA, once and for all, as in arXiv 2312.03414: only memory tokens pass the encoder in
a step. And a memory token begins as a token of the text, of those that the base model finds most
surprising; what the encoder makes of it is added to it.
"""

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gcd.core.errors import UserError
from gcd.core.launch import sharded
from gcd.core.sessions import Layers
from gcd.core.settings import TrainSettings
from gcd.core.shared_prefix import Prefix
from gcd.training.lora import attach_lora
from gcd.training.losses import Batch, Example, pack, read_row
from gcd.training.packed_attention import attend_within_examples

# Ids of the marks in an example, see `Example`: the text itself, its continuation, a conversation.
ITSELF, CONTINUATION, CONVERSATION = -1, -2, -3
MARKS = 3


@dataclass(frozen=True)
class Text:
    """A text as the base model reads it behind the header of the prompt.

    Attributes:
        ids: of its n tokens.
        losses: [n], how many nats the base model finds each of them surprising.
        layers: keys and values of header and text.
    """

    ids: list[int]
    losses: Tensor
    layers: Layers

    def start(self, length: int) -> "Text":
        """The first `length` tokens; nothing is copied."""
        rest = len(self.ids) - length
        end = self.layers[0][0].shape[1] - rest
        layers = [(keys[:, :end], values[:, :end]) for keys, values in self.layers]
        return Text(self.ids[:length], self.losses[:length], layers)

    def anchors(self, slots: int) -> list[int]:
        """Ids of its `slots` most surprising tokens (of all, if it has fewer) in their order."""
        chosen = self.losses.argsort(descending=True, stable=True)[:slots].tolist()
        return [self.ids[place] for place in sorted(chosen)]


def _losses(base: Any, hidden: Tensor, labels: Tensor) -> Tensor:
    """The cross entropy of each label, [n]; see `losses.cross_entropy_sum`."""
    parts = []
    for rows, chosen in zip(torch.split(hidden, 128), torch.split(labels, 128), strict=True):
        scores = (rows @ base.lm_head.weight.t()).float()
        parts.append(nn.functional.cross_entropy(scores, chosen, reduction="none"))
    return torch.cat(parts)


@torch.no_grad()
def read_text(base: Any, header: list[int], ids: list[int]) -> Text:
    """Read a text behind `header`; without an adapter.

    Raises:
        UserError: an empty header, and see `attend_within_examples`.
    """
    if not header:
        raise UserError("The chat template has nothing before a prompt; choose another model.")
    attend_within_examples(base)
    row = torch.tensor([header + ids], device=base.device)
    read = base.model(input_ids=row, use_cache=True, shared=row.shape[1], lengths=[0])
    start = len(header)
    losses = _losses(base, read.last_hidden_state[0, start - 1 : -1], row[0, start:])
    layers = [(layer.keys[0], layer.values[0]) for layer in read.past_key_values.layers]
    return Text(ids, losses.cpu(), layers)


def share(model: Any) -> Any:
    """A copy of a model's modules around the same tensors: no weight stands in memory twice."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


class Autoencoder(nn.Module):
    """A frozen base model, and what makes slots of texts for it.

    Trained are the encoder's LoRA weights, a vector for each slot and mark, and how much of the
    encoder's output is added to the memory tokens.

    Args:
        base: the base model; it becomes the decoder.
        texts: what there are slots for, as the base model read them; the first is the prompt.
        slots: at most so many for a text.
        settings: of LoRA and of gradient checkpointing.
        end: the token that marks begin as.
        vector_rate: vectors learn so many times as fast as LoRA weights.
        blend: how much of the encoder's output is added to memory tokens at first.
        four_bit, seed: see `attach_lora`.

    Raises:
        UserError: under FSDP, and see `attend_within_examples`.
    """

    def __init__(
        self,
        base: Any,
        texts: list[Text],
        slots: int,
        settings: TrainSettings,
        *,
        end: int,
        vector_rate: float,
        blend: float,
        four_bit: bool,
        seed: int,
    ) -> None:
        super().__init__()
        if sharded():
            raise UserError(
                "icae: its encoder and decoder share the base model's tensors, which FSDP cannot "
                "divide. Train with configs/ddp.yaml."
            )
        self.encoder = attach_lora(share(base), settings, four_bit=four_bit, seed=seed)
        attend_within_examples(base)
        if settings.gradient_checkpointing:
            base.activation_checkpointing_enable({"use_reentrant": False})
        self.decoder = base
        self._no_split_modules = base._no_split_modules
        self.texts = texts
        self.slots = slots
        self.vector_rate = vector_rate
        table = base.get_input_embeddings().weight
        self.scale = float(table.float().pow(2).mean().sqrt())
        size, device = table.shape[1], table.device
        self.memory = nn.Parameter(torch.zeros(slots, size, device=device))
        start = table[end].detach().float() / vector_rate
        self.marks = nn.Parameter(start.repeat(MARKS, 1))
        self.blend = nn.Parameter(torch.full((1,), blend / vector_rate, device=device))

    def get_base_model(self) -> Any:
        """The decoder, whose head predicts."""
        return self.decoder

    def slot_ids(self, text: int) -> list[int]:
        """Ids that stand in an example for the slots of text number `text`."""
        first = -1 - MARKS - text * self.slots
        return [first - slot for slot in range(min(self.slots, len(self.texts[text].ids)))]

    def encode(self, text: int) -> Tensor:
        """The slots of text number `text`, [at most `slots`, d]."""
        read = self.texts[text]
        device = self.memory.device
        anchors = torch.tensor(read.anchors(self.slots), device=device)
        count = len(anchors)
        start = self.decoder.get_input_embeddings()(anchors).to(self.memory.dtype)
        start = start + self.vector_rate * self.memory[:count]
        places = torch.arange(count, device=device)
        row = Batch(-1 - places[None], places[None], count, [0], places, anchors, None)
        made = read_row(self.encoder.get_base_model(), row, start, read.layers).float()
        # As large as embeddings are: behind its last norm a model's states are some 20 times so.
        made = made * self.scale / made.pow(2).mean(-1, keepdim=True).sqrt()
        slots: Tensor = start + self.vector_rate * self.blend * made
        return slots

    def mark(self, number: int) -> Tensor:
        """The vector of ITSELF, CONTINUATION or CONVERSATION, [1, d]."""
        return self.vector_rate * self.marks[-1 - number][None]


def read_slots(model: Autoencoder, batch: Batch) -> Tensor:
    """`read_row` of the decoder; the slots that stand in `batch` are made for it.

    In a packed row every example reads the slots of its own text.
    """
    places = batch.ids + 1 + MARKS  # of slots: 0 and below
    slots = places <= 0
    numbers = torch.where(slots, -places, 0)
    starts = torch.zeros(len(model.texts), dtype=torch.long, device=batch.ids.device)
    vectors = [model.vector_rate * model.marks]
    count = MARKS
    texts = numbers.div(model.slots, rounding_mode="floor")
    for text in sorted(set(texts[slots].tolist())):
        vectors.append(model.encode(text))
        starts[text] = count
        count += len(vectors[-1])
    found = starts[texts] + numbers % model.slots
    ids = torch.where(slots, -1 - found, batch.ids)
    return read_row(model.decoder, replace(batch, ids=ids), torch.cat(vectors))


def behind_slots(header: list[int], slots: list[int], mark: int, rest: Example) -> Example:
    """`rest` behind header, slots and a mark, none of them a label."""
    before = [*header, *slots, mark]
    return Example(before + rest.ids, [False] * len(before) + rest.supervised)


def all_labels(ids: list[int]) -> Example:
    """A text whose tokens are all labels."""
    return Example(ids, [True] * len(ids))


@torch.no_grad()
def reconstruction(model: Autoencoder, example: Example) -> dict[str, float]:
    """How well the decoder writes `example` from slots, each token after the right ones before it.

    Returns:
        "nats_per_token", and "right_tokens": the share of tokens that greedy decoding would choose.
    """
    batch = pack([example], model.memory.device)
    hidden = read_slots(model.eval(), batch)
    head = model.decoder.lm_head.weight
    guesses = torch.cat([(rows @ head.t()).argmax(-1) for rows in torch.split(hidden, 128)])
    return {
        "nats_per_token": float(_losses(model.decoder, hidden, batch.labels).mean()),
        "right_tokens": float((guesses == batch.labels).float().mean()),
    }


@torch.inference_mode()
def slots_prefix(base: Any, ids: list[int], header: list[int], slots: Tensor) -> Prefix:
    """Keys and values of header and slots, to stand in for the prompt with `ids`.

    Args:
        base: the base model.
        ids, header: of the prompt, and what it begins with.
        slots: [k, d], with their mark.
    """
    base.set_attn_implementation("sdpa")
    start = base.get_input_embeddings()(torch.tensor(header, device=base.device))
    row = torch.cat([start, slots.to(start)])
    cache = base.model(inputs_embeds=row[None], use_cache=True).past_key_values
    layers = [(layer.keys[0].contiguous(), layer.values[0].contiguous()) for layer in cache.layers]
    return Prefix(ids, layers)
