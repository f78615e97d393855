"""One epoch of GCD on the pseudo data: ours against padded random batches with all logits.

python -m benchmarks.train_epoch

Both sides see the same examples once, in batches of the same size; the prompt-generation examples
join the same steps. The reference shuffles on its own.
"""

import math
import random

from benchmarks.measure import alternate, compare_sides, run
from benchmarks.reference import PlainTrainer, attach_plain_lora, load_plain
from benchmarks.results import BenchmarkRecord, write_record
from benchmarks.settings import CommonSettings, TrainEpochSettings, read_settings
from gcd.core.base_model import load_base
from gcd.core.params import read_params
from gcd.data import read_pseudo_data
from gcd.methods.gcd import loss_terms
from gcd.training.lora import attach_lora
from gcd.training.losses import Example
from gcd.training.optimizers import learning_rate
from gcd.training.terms import Term
from gcd.training.trainer import Trainer

Step = list[tuple[float, list[Example]]]  # the batch of each term that joins, and its weight


def plain_epoch(terms: list[Term], steps: int, seed: int) -> list[Step]:
    """The examples that our side draws in `steps` steps, in random batches of the same sizes."""
    batches: list[Step] = [[] for _ in range(steps)]
    for term in terms:
        joined = range(0, steps, term.every)
        examples = [example for step in joined for example in term.draw(step, seed)]
        random.Random(f"{seed}/reference/{term.name}").shuffle(examples)
        for place, step in enumerate(joined):
            drawn = examples[place * term.batch_size : (place + 1) * term.batch_size]
            batches[step].append((term.weights[term.name], drawn))
    return batches


def padded_tokens(step: Step) -> int:
    """Tokens that the reference reads in a step."""
    return sum(len(batch) * max(len(example.ids) for example in batch) for _, batch in step)


def main() -> BenchmarkRecord:
    common = read_settings("common", CommonSettings)
    settings = read_settings("train_epoch", TrainEpochSettings)
    task = common.task
    params = read_params("seed", "model", "train", f"tasks.{task}.training", "methods.gcd")
    data = read_pseudo_data(task)
    base, tokenizer = load_base(params.model)
    terms = loss_terms(tokenizer, data, task, params)
    steps = math.ceil(len(terms[0].examples) / terms[0].batch_size)
    epoch = plain_epoch(terms, steps, params.seed)
    four_bit = params.model.quantization == "nf4"
    adapted = attach_lora(base, params.train, four_bit=four_bit, seed=params.seed)
    plain = PlainTrainer(
        attach_plain_lora(load_plain(params.model), params.train, params.seed), params.train
    )

    def ours(_: int, count: int = steps) -> int:
        trainer = Trainer(adapted, terms, params.train, epochs=1, seed=params.seed)
        trainer.model.train()
        for _step in range(count):
            trainer.step()
        return trainer.totals["supervised_tokens"]

    def reference(_: int, count: int = steps) -> int:
        for number, batches in enumerate(epoch[:count]):
            plain.step(batches, learning_rate(number, steps, params.train))
        seen = [example for batches in epoch for _, batch in batches for example in batch]
        return sum(example.label_count for example in seen)

    def warm_up() -> None:
        ours(0, 1)
        reference(0, 1)

    runs = alternate({"ours": ours, "reference": reference}, settings.repeats, [warm_up])
    comparisons = compare_sides(runs, "an epoch", settings.at_least)
    facts = {
        "steps": steps,
        "tokens": sum(len(one.ids) for step in epoch for _, batch in step for one in batch),
        "tokens_with_padding": sum(map(padded_tokens, epoch)),
        "labels_of_ours": runs["ours"][0].result,
        "labels_of_reference": runs["reference"][0].result,
    }
    used = common.model_dump() | settings.model_dump()
    return write_record("train_epoch", comparisons, settings.repeats, used, facts)


if __name__ == "__main__":
    run(main)
