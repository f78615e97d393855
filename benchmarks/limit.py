"""How much of the machine is used: FLOP/s of training and of reading, against a matrix product.

python -m benchmarks.limit

Counted are the FLOPs that the result needs, whatever the code does: matrix products with the
weights, attention of every token to itself and those before it, logits where they are used (L, D,
N and H as in `gcd.cost`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.measure import alternate, compare, run, seconds
from benchmarks.results import Bar, BenchmarkRecord, write_record
from benchmarks.settings import LimitSettings, read_settings
from benchmarks.workloads import made_up_examples, product_trainer, text_of
from gcd.core.base_model import BASE, load_base
from gcd.core.language_model import LanguageModel
from gcd.core.params import read_params
from gcd.core.records import Message
from gcd.cost import Architecture, read_model
from gcd.training.lora import attach_lora
from gcd.training.losses import Example


def attention_flops(model: Architecture, tokens: int) -> int:
    """A sequence's attention: every token meets itself and those before it."""
    return model.pair_flops * tokens * (tokens + 1) // 2


def prefill_flops(model: Architecture, lengths: Sequence[int]) -> int:
    """Reading sequences of `lengths` tokens, up to the logits after the last token of each."""
    return sum(
        2 * tokens * model.linear_weights + attention_flops(model, tokens) + 2 * model.head_weights
        for tokens in lengths
    )


def training_flops(model: Architecture, adapter: int, examples: Sequence[Example]) -> int:
    """Forward and backward pass of a LoRA step.

    A frozen weight takes two products, y = W x and the gradient of x; one of the `adapter` weights
    takes a third, its own gradient. Attention takes two in the forward pass and four in the
    backward one.
    """
    total = 0
    for example in examples:
        tokens = len(example.ids)
        total += 2 * tokens * (2 * model.linear_weights + 3 * adapter)
        total += 3 * attention_flops(model, tokens)
        total += 4 * model.head_weights * example.label_count
    return total


def main() -> BenchmarkRecord:
    settings = read_settings("limit", LimitSettings)
    params = read_params("seed", "model", "train")
    model = read_model(BASE / "model.json").architecture
    base, tokenizer = load_base(params.model)
    reader = LanguageModel(base, tokenizer, params.model, None)
    examples = made_up_examples(
        settings.examples,
        settings.tokens,
        settings.supervised_share,
        model.vocabulary_size,
        params.seed,
    )
    text = text_of(tokenizer, settings.tokens)
    conversations = [[Message(role="user", content=text)]] * settings.examples
    trained, _ = load_base(params.model)
    four_bit = params.model.quantization == "nf4"
    adapted = attach_lora(trained, params.train, four_bit=four_bit, seed=params.seed)
    adapter = sum(value.numel() for value in adapted.parameters() if value.requires_grad)
    trainer = product_trainer(adapted, examples, params, settings.repeats + 1)
    dtype = getattr(torch, params.model.dtype)
    size = settings.matrix_size
    left, right, out = (torch.ones(size, size, dtype=dtype) for _ in range(3))

    def multiply(_: int = 0) -> None:
        for _product in range(settings.products):
            torch.mm(left, right, out=out)

    def train(_: int = 0) -> None:
        trainer.step()

    def read(_: int = 0) -> list[int]:
        replies = reader.generate([], conversations, max_new_tokens=1, progress="reading")
        return [made.context_tokens for made in replies if made]

    sides: dict[str, Callable[[int], Any]] = {
        "training": train,
        "reading": read,
        "matrix product": multiply,
    }
    runs = alternate(sides, settings.repeats, [train, read, multiply])
    flops = {
        "training": training_flops(model, adapter, examples),
        "reading": prefill_flops(model, runs["reading"][0].result),
        "matrix product": 2 * size**3 * settings.products,
    }
    rate = {name: [flops[name] / one / 1e9 for one in seconds(made)] for name, made in runs.items()}
    bar = Bar(kind="at least", value=settings.at_least)
    comparisons = [
        compare(figure, rate[side], rate["matrix product"], "GFLOP/s", bar=bar, inverse=True)
        for figure, side in (("a training step", "training"), ("reading", "reading"))
    ]
    facts = {"flops": flops}
    return write_record("limit", comparisons, settings.repeats, settings.model_dump(), facts)


if __name__ == "__main__":
    run(main)
