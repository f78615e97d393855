"""A warm LoRA step: ours against a plain peft model with logits at every position.

python -m benchmarks.train_step
"""

from benchmarks.measure import alternate, compare_sides, run
from benchmarks.reference import PlainTrainer, attach_plain_lora, load_plain
from benchmarks.results import BenchmarkRecord, write_record
from benchmarks.settings import TrainStepSettings, read_settings
from benchmarks.workloads import made_up_examples, product_trainer
from gcd.core.base_model import load_base
from gcd.core.params import read_params
from gcd.training.lora import attach_lora
from gcd.training.optimizers import learning_rate


def main() -> BenchmarkRecord:
    settings = read_settings("train_step", TrainStepSettings)
    params = read_params("seed", "model", "train")
    base, _ = load_base(params.model)
    examples = made_up_examples(
        settings.examples,
        settings.tokens,
        settings.supervised_share,
        base.config.vocab_size,
        params.seed,
    )
    four_bit = params.model.quantization == "nf4"
    adapted = attach_lora(base, params.train, four_bit=four_bit, seed=params.seed)
    trainer = product_trainer(adapted, examples, params, settings.repeats + 1)
    plain = PlainTrainer(
        attach_plain_lora(load_plain(params.model), params.train, params.seed), params.train
    )
    losses: list[float] = []

    def ours(_: int = 0) -> None:
        trainer.step()

    def reference(_: int = 0) -> None:
        rate = learning_rate(len(losses), trainer.total, params.train)
        losses.append(plain.step([(1.0, examples)], rate))

    runs = alternate({"ours": ours, "reference": reference}, settings.repeats, [ours, reference])
    comparisons = compare_sides(
        runs, "a step", settings.at_least, memory_at_most=settings.memory_at_most
    )
    facts = {
        "losses_of_ours": [float(row["loss"]) for row in trainer.rows],
        "losses_of_reference": losses,
    }
    return write_record("train_step", comparisons, settings.repeats, settings.model_dump(), facts)


if __name__ == "__main__":
    run(main)
