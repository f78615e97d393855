"""Batched decoding: token by token, rows leave the batch as they finish."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from gcd.core.roomy_cache import new_cache
from gcd.core.sessions import Layers


@dataclass(frozen=True)
class Sampling:
    """Nucleus sampling; `seed` names the random stream, conversation i draws from `seed/i`."""

    temperature: float
    top_p: float
    seed: str


def make_chooser(
    sampling: Sampling | None, sequences: list[int]
) -> Callable[[Tensor, list[int]], list[int]]:
    """A function from logits [rows, V] and the rows' places in the batch to one token a row.

    Args:
        sampling: None for greedy.
        sequences: the number of each sequence of the batch, which names its random stream: what a
            sequence draws does not depend on its neighbours.
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


def pad_left(sequences: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and mask, each [batch, longest]; padding is on the left and its id does not matter."""
    width = max(map(len, sequences))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in sequences], device=device)
    mask = torch.tensor(
        [[0] * (width - len(row)) + [1] * len(row) for row in sequences], device=device
    )
    return ids, mask


def _fill(cache: DynamicCache, past: list[Layers | None], device: torch.device) -> Tensor:
    """Put what was read before into `cache`, padded on the left; returns its mask [batch, n]."""
    lengths = [layers[0][0].shape[1] if layers else 0 for layers in past]
    width = max(lengths)
    mask = torch.tensor([[0] * (width - n) + [1] * n for n in lengths], device=device)
    known = next((layers for layers in past if layers), [])
    for number, pair in enumerate(known):
        heads, _, size = pair[0].shape
        stacked = [pair[0].new_zeros(len(past), heads, width, size) for _ in range(2)]
        for row, layers in enumerate(past):
            if layers:
                for whole, part in zip(stacked, layers[number], strict=True):
                    whole[row, :, width - lengths[row] :] = part
        cache.update(*stacked, number)
    return mask


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
    ids, mask = pad_left(sequences, model.device)
    cache = new_cache(model.config)
    read = [len(sequence) for sequence in sequences]  # how many keys each sequence has of its own
    if past:
        before = _fill(cache, past, model.device)
        mask = torch.cat([before, mask], dim=1)
        read = [own + int(held) for own, held in zip(read, before.sum(1), strict=True)]
    made: list[list[int]] = [[] for _ in sequences]
    rows = list(range(len(sequences)))  # which sequence each row of the tensors holds
    running = set(rows)

    def release(places: list[int]) -> None:
        if keep is None:
            return
        for place in places:
            row = rows[place]
            # A finished row that is still in the batch goes on reading: those keys are no use.
            columns = mask[place].nonzero()[: read[row] + len(made[row]) - 1, 0]
            layers = [(item.keys[place], item.values[place]) for item in cache.layers]
            keep(row, [(keys[:, columns], values[:, columns]) for keys, values in layers])

    while running:
        positions = prefix_length + (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        chosen = choose(logits, rows)
        for row, token in zip(rows, chosen, strict=True):
            if row not in running:
                continue
            made[row].append(token)
            if token in stop or len(made[row]) == max_new_tokens:
                running.remove(row)
                finished()
        ids = torch.tensor(chosen, device=mask.device)[:, None]
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
        # Finished rows are dropped when a quarter is done: each drop copies the whole cache.
        if running and len(running) <= 0.75 * len(rows):
            stay = [place for place, row in enumerate(rows) if row in running]
            release([place for place, row in enumerate(rows) if row not in running])
            cache.batch_select_indices(torch.tensor(stay, device=mask.device))
            ids, mask = ids[stay], mask[stay]
            rows = [rows[place] for place in stay]
    release(list(range(len(rows))))
    return made
