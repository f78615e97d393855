"""How time and memory grow with the prompt's length and with the number of pseudo inputs.

python -m benchmarks.growth

Three kinds of work, each with our own code: synthesis (paired outputs), training (one epoch of
GCD), inference (prompted sessions of two turns). Each grows along one axis while the other is
fixed. Ours is the figure at the largest size, the reference that of the smallest times the ratio
of the sizes: what linear growth would give. The exponent is fitted to all sizes.
"""

from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

from benchmarks.measure import alternate, grow, mebibytes, run, seconds
from benchmarks.results import Bar, BenchmarkRecord, write_record
from benchmarks.settings import CommonSettings, GrowthSettings, read_settings
from benchmarks.workloads import text_of
from gcd.agents import ChatAgent
from gcd.core.base_model import load_base
from gcd.core.interfaces import Task, load_task
from gcd.core.language_model import LanguageModel
from gcd.core.params import Params, read_params
from gcd.core.records import (
    Conversation,
    Message,
    PairedOutput,
    PseudoConversation,
    PseudoInput,
)
from gcd.data import PseudoData
from gcd.methods.gcd import loss_terms
from gcd.synthesis.steps import make_paired_outputs
from gcd.training.lora import attach_lora
from gcd.training.trainer import Trainer

# Any text will do: what is said has no influence on the work.
PROBLEM = "How many files are in /data/{index}?"
REPLY = "Think: I count them."


def inputs(count: int) -> list[PseudoInput]:
    return [PseudoInput(index=index, text=PROBLEM.format(index=index)) for index in range(count)]


def synthesise(
    base: Any, tokenizer: Any, params: Params, task: Task, new_tokens: int, prompt: str, count: int
) -> None:
    """Answer `count` inputs with the prompt and without it."""
    model = LanguageModel(base, tokenizer, params.model, None)
    made = [Message(role="system", content=prompt)]
    make_paired_outputs(model, made, inputs(count), task, new_tokens)


def infer(
    base: Any, tokenizer: Any, params: Params, new_tokens: int, prompt: str, count: int
) -> None:
    """`count` prompted sessions of two turns, together."""
    agent = ChatAgent(
        LanguageModel(base, tokenizer, params.model, None),
        [Message(role="system", content=prompt)],
        max_new_tokens=new_tokens,
        deployment="base",
        adapter_parameters=0,
        bytes_to_ship=0,
    )
    opened = [[Message(role="user", content=item.text)] for item in inputs(count)]
    agent.reply(opened)
    # The same reply for all: where a session goes on does not depend on what was said.
    agent.reply([[*messages, *next_turn(REPLY)] for messages in opened])


def next_turn(reply: str) -> Conversation:
    return [Message(role="assistant", content=reply), Message(role="user", content="Go on.")]


def pseudo_data(tokenizer: Any, prompt: str, tokens: int, count: int) -> PseudoData:
    """`count` conversations of about `tokens` tokens each, and a pair and a reason for each."""
    reply = text_of(tokenizer, tokens)
    return PseudoData(
        prompt=prompt,
        prompt_messages=[Message(role="system", content=prompt)],
        pairs=[
            PairedOutput(
                index=item.index,
                pseudo_input=item.text,
                teacher_output=REPLY,
                student_output=REPLY,
            )
            for item in inputs(count)
        ],
        reasons={item.index: REPLY for item in inputs(count)},
        conversations=[
            PseudoConversation(
                index=item.index,
                messages=[
                    Message(role="user", content=item.text),
                    Message(role="assistant", content=reply),
                ],
                end="committed",
            )
            for item in inputs(count)
        ],
    )


def train(
    adapted: Any,
    tokenizer: Any,
    params: Params,
    task: str,
    tokens: int,
    prompt: str,
    count: int,
) -> None:
    """One epoch of GCD on `count` conversations."""
    terms = loss_terms(tokenizer, pseudo_data(tokenizer, prompt, tokens, count), task, params)
    trainer = Trainer(adapted, terms, params.train, epochs=1, seed=params.seed)
    trainer.model.train()
    for _ in range(trainer.total):
        trainer.step()


def main() -> BenchmarkRecord:
    common = read_settings("common", CommonSettings)
    settings = read_settings("growth", GrowthSettings)
    params = read_params("seed", "model", "train", f"tasks.{common.task}.training", "methods.gcd")
    base, tokenizer = load_base(params.model)
    four_bit = params.model.quantization == "nf4"
    trained, _ = load_base(params.model)
    adapted = attach_lora(trained, params.train, four_bit=four_bit, seed=params.seed)
    task = load_task(common.task)
    work: dict[str, Callable[[str, int], None]] = {
        "synthesis": partial(synthesise, base, tokenizer, params, task, settings.new_tokens),
        "training": partial(
            train, adapted, tokenizer, params, common.task, settings.training_tokens
        ),
        "inference": partial(infer, base, tokenizer, params, settings.new_tokens),
    }
    short = text_of(tokenizer, settings.short_prompt_tokens)
    axes = {
        "prompt tokens": {
            size: (text_of(tokenizer, size), settings.conversations)
            for size in settings.prompt_tokens
        },
        "pseudo inputs": {size: (short, size) for size in settings.pseudo_inputs},
    }

    def side(kind: str, prompt: str, count: int) -> Callable[[int], None]:
        return lambda _: work[kind](prompt, count)

    sides = {
        f"{kind}, {size} {axis}": side(kind, *given)
        for axis, sizes in axes.items()
        for kind in work
        for size, given in sizes.items()
    }
    warm_up = [partial(work[kind], short, settings.conversations) for kind in work]
    runs = alternate(sides, settings.repeats, warm_up)
    bar = Bar(kind="at most", value=settings.exponent_at_most)
    comparisons = [
        grow(
            f"{figure} of {kind} by {axis}, {sizes[0]} to {sizes[-1]}",
            sizes,
            [values(runs[f"{kind}, {size} {axis}"]) for size in sizes],
            unit,
            bar,
        )
        for axis, sizes in ((axis, list(given)) for axis, given in axes.items())
        for kind in work
        for figure, values, unit in (("time", seconds, "s"), ("memory", mebibytes, "MiB"))
    ]
    medians = {
        name: {"s": median(seconds(made)), "MiB": median(mebibytes(made))}
        for name, made in runs.items()
    }
    used = common.model_dump() | settings.model_dump()
    return write_record("growth", comparisons, settings.repeats, used, {"by_size": medians})


if __name__ == "__main__":
    run(main)
