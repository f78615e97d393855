"""Batched decoding: token by token, rows leave the batch as they finish."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from gcd.core.roomy_cache import new_cache
from gcd.core.sessions import Layers
from gcd.core.shared_prefix import Reading


@dataclass(frozen=True)
class Sampling:
    """Nucleus sampling; `seed` names the random stream, conversation i draws from `seed/i`."""

    temperature: float
    top_p: float
    seed: str


def make_chooser(
    sampling: Sampling | None, sequences: Sequence[int | str]
) -> Callable[[Tensor, list[int]], list[int]]:
    """A function from logits [rows, V] and the rows' places in the batch to one token a row.

    Args:
        sampling: None for greedy.
        sequences: the number or name of each sequence of the batch, which names its random stream:
            what a sequence draws does not depend on its neighbours.
    """
    if sampling is None:
        return lambda logits, rows: logits.argmax(-1).tolist()
    streams = [random.Random(f"{sampling.seed}/{number}") for number in sequences]
    temperature, top_p = sampling.temperature, sampling.top_p

    def choose(logits: Tensor, rows: list[int]) -> list[int]:
        probabilities = torch.softmax(logits.float() / temperature, dim=-1)
        draws = torch.tensor([[streams[row].random()] for row in rows], device=logits.device)
        return draw_from_nucleus(probabilities, draws, top_p).tolist()

    return choose


# Sorting 49,152 probabilities takes 2.4 ms a row on two cores, finding the most probable 256 takes
# 0.1 ms. Where these do not hold the nucleus, the row is sorted after all.
_CANDIDATES = 256


def draw_from_nucleus(probabilities: Tensor, draws: Tensor, top_p: float) -> Tensor:
    """One token a row from the smallest set of most probable tokens that reaches `top_p`.

    Args:
        probabilities: [rows, V].
        draws: uniform in [0, 1), [rows, 1].

    Returns:
        Token ids, [rows]. Tokens count in descending order, equally probable ones by id.
    """
    if probabilities.shape[-1] <= _CANDIDATES:
        return _draw(*probabilities.sort(dim=-1, descending=True, stable=True), draws, top_p)
    ordered, tokens = probabilities.topk(_CANDIDATES)
    # Any of the tokens as probable as the last candidate may be missing here: count without them.
    # The margin is for sums that round differently.
    certain = (ordered * (ordered > ordered[:, -1:])).sum(-1) >= top_p + 1e-6
    tokens = tokens.sort(dim=-1).values
    ordered, order = probabilities.gather(1, tokens).sort(dim=-1, descending=True, stable=True)
    chosen = _draw(ordered, tokens.gather(1, order), draws, top_p)
    if not certain.all():
        rest = ~certain
        every = probabilities[rest].sort(dim=-1, descending=True, stable=True)
        chosen[rest] = _draw(*every, draws[rest], top_p)
    return chosen


def _draw(ordered: Tensor, tokens: Tensor, draws: Tensor, top_p: float) -> Tensor:
    """`draw_from_nucleus`, given descending probabilities and their tokens, each [rows, n]."""
    total = ordered.cumsum(-1)
    nucleus = ordered * (total - ordered < top_p)
    reached = nucleus.cumsum(-1)
    places = torch.searchsorted(reached, draws * reached[:, -1:], right=True)
    last = (nucleus > 0).sum(-1, keepdim=True) - 1  # a draw that rounds to 1
    return tokens.gather(1, torch.minimum(places, last))[:, 0]


def read(
    model: Any, prefix_length: int, sequences: list[list[int]], past: list[Layers | None]
) -> tuple[Tensor, list[Layers]]:
    """Read all sequences as one packed row: not a token of padding is computed.

    Args:
        model, prefix_length, sequences, past: see `decode`.

    Returns:
        Logits after each sequence's last id, [rows, V]; keys and values of each, with its past.
    """
    lengths = [len(sequence) for sequence in sequences]
    starts = [prefix_length + (layers[0][0].shape[1] if layers else 0) for layers in past]
    places = [range(start, start + n) for start, n in zip(starts, lengths, strict=True)]
    ids = torch.tensor([[token for sequence in sequences for token in sequence]])
    positions = torch.tensor([[place for row in places for place in row]])
    cache = DynamicCache(config=model.config)
    ends = torch.tensor(lengths).cumsum(0) - 1
    logits = model(
        input_ids=ids.to(model.device),
        position_ids=positions.to(model.device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=ends.to(model.device),
        reading=Reading(lengths, past),
    ).logits[0]
    split = [
        [torch.split(part[0], lengths, dim=1) for part in (layer.keys, layer.values)]
        for layer in cache.layers
    ]
    whole: list[Layers] = []
    for row, layers in enumerate(past):
        own = [(keys[row], values[row]) for keys, values in split]
        if layers:
            own = [
                (torch.cat([before[0], after[0]], 1), torch.cat([before[1], after[1]], 1))
                for before, after in zip(layers, own, strict=True)
            ]
        whole.append(own)
    return logits, whole


def fill(cache: DynamicCache, rows: list[Layers]) -> Tensor:
    """Put what was read into `cache`, padded on the left; returns its mask [rows, longest]."""
    first = rows[0][0][0]
    lengths = [layers[0][0].shape[1] for layers in rows]
    width = max(lengths)
    for number in range(len(rows[0])):
        stacked = [first.new_zeros(len(rows), len(first), width, first.shape[2]) for _ in range(2)]
        for row, layers in enumerate(rows):
            for whole, part in zip(stacked, layers[number], strict=True):
                whole[row, :, width - lengths[row] :] = part
        cache.update(*stacked, number)
    return torch.tensor([[0] * (width - n) + [1] * n for n in lengths], device=first.device)


@torch.inference_mode()
def decode(
    model: Any,
    prefix_length: int,
    sequences: list[list[int]],
    max_new_tokens: int,
    stop: set[int],
    choose: Callable[[Tensor, list[int]], list[int]],
    finished: Callable[[], object],
    past: list[Layers | None] | None = None,
    keep: Callable[[int, Layers], None] | None = None,
) -> list[list[int]]:
    """New ids of each sequence, up to and with its end token or `max_new_tokens`.

    Args:
        model: a causal language model; a shared prompt of `prefix_length` tokens is attached.
        sequences: the ids after the shared prompt, none empty.
        stop: ids that end a sequence.
        choose: see `make_chooser`.
        finished: called once for each sequence that ends.
        past: keys and values of what precedes each sequence (after the shared prompt), if any.
        keep: called once for each sequence with its number and all its keys and values, from
            `past` to the last id but one.
    """
    logits, layers = read(model, prefix_length, sequences, past or [None] * len(sequences))
    cache = new_cache(model.config)
    mask = fill(cache, layers)
    del layers  # as large as the cache
    read_ids = mask.sum(1).tolist()  # how many keys each sequence has before its reply
    made: list[list[int]] = [[] for _ in sequences]
    rows = list(range(len(sequences)))  # which sequence each row of the tensors holds
    running = set(rows)

    def release(places: list[int]) -> None:
        if keep is None:
            return
        for place in places:
            row = rows[place]
            # A finished row that is still in the batch goes on reading: those keys are no use.
            columns = mask[place].nonzero()[: read_ids[row] + len(made[row]) - 1, 0]
            layers = [(item.keys[place], item.values[place]) for item in cache.layers]
            keep(row, [(keys[:, columns], values[:, columns]) for keys, values in layers])

    while True:
        chosen = choose(logits, rows)
        for row, token in zip(rows, chosen, strict=True):
            if row not in running:
                continue
            made[row].append(token)
            if token in stop or len(made[row]) == max_new_tokens:
                running.remove(row)
                finished()
        if not running:
            break
        ids = torch.tensor(chosen, device=mask.device)[:, None]
        # Finished rows stay in the batch until a tenth is done, two at least: a drop copies the
        # whole cache, a row costs 6 ms a step (on two cores 16 rows take 301 ms, 32 rows 401 ms).
        if len(rows) - len(running) >= max(2, len(rows) // 10):
            stay = [place for place, row in enumerate(rows) if row in running]
            release([place for place, row in enumerate(rows) if row not in running])
            cache.batch_select_indices(torch.tensor(stay, device=mask.device))
            ids, mask = ids[stay], mask[stay]
            rows = [rows[place] for place in stay]
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=prefix_length + mask.sum(1, keepdim=True) - 1,
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
    release(list(range(len(rows))))
    return made
