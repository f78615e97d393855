"""What several benchmarks work on: made-up examples and texts, and our own training step."""

import random
from typing import Any

from gcd.core.chat import encode_text
from gcd.core.params import Params
from gcd.training.losses import Example, token_loss_sum
from gcd.training.terms import Term
from gcd.training.trainer import Trainer

# Any text will do: what is said has no influence on the work.
SENTENCE = "You work in a shell and answer with one action, then wait for what the system shows. "
TURN = 128  # tokens of a made-up turn of user and assistant


def made_up_examples(
    count: int, tokens: int, supervised_share: float, vocabulary: int, seed: int
) -> list[Example]:
    """`count` examples of random ids; the last part of every turn is supervised, as in a dialogue.

    What the ids are has no influence on the work.
    """
    draw = random.Random(seed)
    first = round(TURN * (1 - supervised_share))
    supervised = [place % TURN >= first for place in range(tokens)]
    return [
        Example([draw.randrange(vocabulary) for _ in range(tokens)], supervised)
        for _ in range(count)
    ]


def text_of(tokenizer: Any, tokens: int) -> str:
    """About `tokens` tokens of text, never more."""
    ids = encode_text(tokenizer, SENTENCE * (tokens // 10 + 1))
    return str(tokenizer.decode(ids[:tokens])).strip()


def product_trainer(model: Any, examples: list[Example], params: Params, epochs: int) -> Trainer:
    """Our trainer, one batch of all `examples` a step; `model` from `attach_lora`."""
    term = Term({"sft": 1.0}, examples, 0, len(examples), 1, token_loss_sum)
    trainer = Trainer(model, [term], params.train, epochs, params.seed)
    trainer.model.train()
    return trainer
