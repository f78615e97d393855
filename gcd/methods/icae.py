"""The in-context autoencoder (ICAE, arXiv 2307.06945): the prompt in a few slots.

First the autoencoder learns to write texts from their slots, or what follows them: the prompt, and
some of what synthesis made. Then slots and a mark stand in front of the pseudo conversations, in
the prompt's place. The prompt is always the same, so its slots are computed once; they and the mark
are all that is kept. `slots` is their number for the whole prompt: the authors have so many for
every 512 tokens.
"""

import json
import logging
import random
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors.torch import load, save
from torch import Tensor

from gcd.agents import ChatAgent
from gcd.core.base_model import load_base
from gcd.core.chat import encode_text, header_ids, prompt_ids, render
from gcd.core.errors import UserError
from gcd.core.failures import by_itself
from gcd.core.interfaces import Agent
from gcd.core.journal import Journal
from gcd.core.language_model import LanguageModel
from gcd.core.params import FILE, Params
from gcd.core.records import write_bytes, write_text
from gcd.core.settings import Count, Positive, Section, Share
from gcd.data import PseudoData, read_prompt, read_pseudo_data
from gcd.training.adapters import conversation_term, examples_behind_prompt, fit_terms
from gcd.training.autoencoder import (
    CONTINUATION,
    CONVERSATION,
    ITSELF,
    Autoencoder,
    all_labels,
    behind_slots,
    read_slots,
    read_text,
    reconstruction,
    slots_prefix,
)
from gcd.training.losses import Example, token_loss_sum
from gcd.training.terms import Term, Visit

Pair = tuple[Example, Example]  # of a text: itself, and its second half
LOSS_SUMS = partial(token_loss_sum, read=read_slots)


class PretrainingSettings(Section):
    """The first phase: `steps` optimizer steps, each on one text; by task some more.

    That is the prompt in a share `prompt_share` of the steps, else one of up to `texts` pseudo
    conversations and reasons. In a share `lm_share` the second half of the text is to be written
    from slots of the first, else the text itself.
    """

    steps: Count
    more_steps: dict[str, Annotated[int, Field(ge=0)]]
    learning_rate: Positive
    prompt_share: Share
    lm_share: Share
    texts: Annotated[int, Field(ge=0)]


class Settings(Section):
    """`slots`: a row for each number of them.

    `vector_rate`: memory tokens and marks learn so many times as fast as LoRA weights, which the
    second phase trains with `learning_rate`. `blend`: how much of the encoder's output is added to
    the memory tokens at first, in sizes of an embedding.
    """

    slots: list[Count] = Field(min_length=1)
    vector_rate: Positive
    blend: Positive
    pretraining: PretrainingSettings
    learning_rate: Positive


def row(slots: int) -> str:
    """The row of so many slots."""
    return f"icae_{slots}"


def rows(settings: Settings) -> list[str]:
    """One for each number of slots."""
    return [row(slots) for slots in settings.slots]


def other_texts(tokenizer: Any, data: PseudoData, params: Params) -> list[list[int]]:
    """Up to `texts` pseudo conversations and reasons, drawn by the seed; at least 2 tokens each."""
    reasons = [encode_text(tokenizer, reason) for reason in data.reasons.values()]
    conversations = [
        render(tokenizer, conversation.messages, generation_header=False).ids
        for conversation in data.conversations
    ]
    texts = [ids[: params.train.max_length] for ids in [*reasons, *conversations] if len(ids) > 1]
    random.Random(f"{params.seed}/icae/texts").shuffle(texts)
    return texts[: params.method.pretraining.texts]


def autoencoder(
    base: Any,
    tokenizer: Any,
    header: list[int],
    contents: list[list[int]],
    params: Params,
    slots: int,
) -> tuple[Autoencoder, list[Pair]]:
    """The model, with texts 2t and 2t + 1 for contents t and its first half; and its examples."""
    texts = []
    for ids in contents:
        text = read_text(base, header, ids)
        texts += [text, text.start(len(ids) // 2)]
    model = Autoencoder(
        base,
        texts,
        slots,
        params.train,
        end=tokenizer.eos_token_id,
        vector_rate=params.method.vector_rate,
        blend=params.method.blend,
        four_bit=params.model.quantization == "nf4",
        seed=params.seed,
    )
    pairs = []
    for number, ids in enumerate(contents):
        whole = all_labels([*ids, tokenizer.eos_token_id])
        rest = all_labels(ids[len(ids) // 2 :])
        pairs.append(
            (
                behind_slots(header, model.slot_ids(2 * number), ITSELF, whole),
                behind_slots(header, model.slot_ids(2 * number + 1), CONTINUATION, rest),
            )
        )
    return model, pairs


def choose(pairs: list[Pair], settings: PretrainingSettings, visits: list[Visit]) -> list[Example]:
    """What a step of the first phase is on, drawn from the visit's stream; the prompt is first."""
    made = []
    for visit in visits:
        stream = random.Random(f"{visit.stream}/text")
        other = stream.random() >= settings.prompt_share and len(pairs) > 1
        itself, continuation = stream.choice(pairs[1:]) if other else pairs[0]
        made.append(continuation if stream.random() < settings.lm_share else itself)
    return made


def pretraining(task: str, params: Params, pairs: list[Pair]) -> tuple[Params, Term]:
    """Params and term of the first phase: an epoch is a step."""
    settings = params.method.pretraining
    steps = settings.steps + settings.more_steps.get(task, 0)
    changed = copy(params)
    changed.train = params.train.model_copy(update={"learning_rate": settings.learning_rate})
    changed.training = params.training.model_copy(update={"epochs": steps, "batch_size": 1})
    term = Term(
        weights={"autoencoding": 1.0},
        examples=[pairs[0][0]],
        truncated=0,
        batch_size=1,
        every=1,
        loss_sums=LOSS_SUMS,
        visit=partial(choose, pairs, settings),
    )
    return changed, term


def instruction(
    tokenizer: Any, data: PseudoData, params: Params, header: list[int], slots: list[int]
) -> tuple[Params, Term]:
    """Params and term of the second phase: what every trained row sees, behind the slots."""
    changed = copy(params)
    changed.train = params.train.model_copy(update={"learning_rate": params.method.learning_rate})
    term = conversation_term(tokenizer, data, params, weight=1.0)
    _, following = examples_behind_prompt(tokenizer, data, term.examples)
    examples = [behind_slots(header, slots, CONVERSATION, example) for example in following]
    return changed, replace(term, examples=examples, loss_sums=LOSS_SUMS)


def add_records(first: Path, second: Path) -> None:
    """Make `second` the training record of both phases; their trained parameters are the same."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in (first, second)]
    total = {key: records[0][key] + value for key, value in records[1].items()}
    total["trainable_parameters"] = records[1]["trainable_parameters"]
    write_text(second, json.dumps(total, indent=2) + "\n")


def nothing(_: dict[str, Tensor]) -> None:
    """Of the first phase only the model is kept, in memory and in its last checkpoint."""


def fit_slots(
    task: str, data: PseudoData, slots: int, params: Params, out: Path, work: Path
) -> None:
    """Train an autoencoder and write the prompt's slots and their mark into `out`."""
    base, tokenizer = load_base(params.model)
    header = header_ids(tokenizer, data.prompt_messages)
    prompt = prompt_ids(tokenizer, data.prompt_messages)[len(header) :]
    if slots > len(prompt):
        raise UserError(
            f"{FILE}: `methods.icae.slots`: {slots} slots for a prompt of {len(prompt)} tokens; "
            "give at most as many as it has."
        )
    contents = [prompt, *other_texts(tokenizer, data, params)]
    model, pairs = autoencoder(base, tokenizer, header, contents, params, slots)
    found = {"untrained": reconstruction(model, pairs[0][0])}
    changed, term = pretraining(task, params, pairs)
    fit_terms(model, [term], changed, out / "pretraining", work / "pretraining", nothing)
    found["pretraining"] = reconstruction(model, pairs[0][0])
    changed, term = instruction(tokenizer, data, params, header, model.slot_ids(0))
    fit_terms(model, [term], changed, out, work, nothing)
    found["instruction"] = reconstruction(model, pairs[0][0])
    add_records(out / "pretraining/training.json", out / "training.json")
    logging.info("reconstruction of the prompt: %s", json.dumps(found))
    write_text(out / "reconstruction.json", json.dumps(found, indent=2) + "\n")
    with torch.no_grad():
        kept = torch.cat([model.encode(0), model.mark(CONVERSATION)]).cpu().contiguous()
    write_bytes(out / "slots.safetensors", save({"slots": kept}))


def fit(task: str, params: Params, out: Path, work: Path) -> None:
    """Train an autoencoder for each number of slots into `out/<row>/`."""
    data = read_pseudo_data(task)
    for slots in params.method.slots:
        with by_itself(out / row(slots)):
            fit_slots(task, data, slots, params, out / row(slots), work / row(slots))


def load_agent(row: str, task: str, params: Params, folder: Path, work: Path) -> Agent:
    """The base model, with slots in the place of the prompt."""
    base, tokenizer = load_base(params.model)
    prompt = read_prompt(task)[1]
    slots = load((folder / row / "slots.safetensors").read_bytes())["slots"]
    model = LanguageModel(base, tokenizer, params.model, Journal(work / "replies.jsonl"))
    header = header_ids(tokenizer, prompt)
    model.stand_in(slots_prefix(base, prompt_ids(tokenizer, prompt), header, slots))
    return ChatAgent(
        model,
        prompt,
        max_new_tokens=params.run_episodes.max_new_tokens,
        deployment="trained prefix",
        adapter_parameters=slots.numel(),
        bytes_to_ship=(folder / row / "slots.safetensors").stat().st_size,
    )
