"""The one training loop: LoRA on a frozen base. A method brings terms: examples, weight, loss.

An optimizer step draws a batch from every term that joins it, takes each term's mean over its
supervised tokens and minimises the weighted sum. Batches are dealt out to the processes that
accelerate launched, if several, and split into micro-batches by memory; the result is that of the
whole batch.
"""

import csv
import io
import logging
import math
import random
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from torch import Tensor, nn
from tqdm import tqdm

from gcd.core.errors import UserError
from gcd.core.language_model import device
from gcd.core.launch import sharded
from gcd.core.records import write_text
from gcd.core.settings import TrainSettings
from gcd.training.checkpoints import adapter_weights, load_checkpoint, save_adapter, save_checkpoint
from gcd.training.lora_layer import LoraLinear
from gcd.training.losses import Batch, Example, pack
from gcd.training.optimizers import learning_rate, make_optimizer
from gcd.training.packed_attention import attend_within_examples
from gcd.training.processes import Loss, check_division, deal


@dataclass(frozen=True)
class Term:
    """One term of a loss.

    Attributes:
        name: its column in loss.csv, and its random stream.
        weight: its factor in the sum; a term of weight 0 is not computed.
        examples: what batches are drawn from, each once an epoch.
        truncated: how many examples were cut at a length limit (reported, not used).
        batch_size: examples of a batch.
        every: a batch joins every so many optimizer steps, from the first on.
        loss_sum: the loss summed over the supervised tokens of a batch.
    """

    name: str
    weight: float
    examples: list[Example]
    truncated: int
    batch_size: int
    every: int
    loss_sum: Callable[[Any, Batch], Tensor]

    def draw(self, step: int, seed: int) -> list[Example]:
        """The examples of optimizer step `step`: a fresh seeded order every pass over the data."""
        chosen = []
        batch = step // self.every
        for place in range(batch * self.batch_size, (batch + 1) * self.batch_size):
            epoch, position = divmod(place, len(self.examples))
            order = list(range(len(self.examples)))
            random.Random(f"{seed}/{self.name}/{epoch}").shuffle(order)
            chosen.append(self.examples[order[position]])
        return chosen


def attach_lora(model: Any, settings: TrainSettings, *, four_bit: bool, seed: int) -> Any:
    """`model` with fresh LoRA layers on all its linear layers; only they are trainable.

    It then expects packed rows (see `losses.Batch`).

    Raises:
        UserError: see `attend_within_examples`.
    """
    attend_within_examples(model)
    config = LoraConfig(
        r=settings.lora.rank,
        lora_alpha=settings.lora.alpha,
        lora_dropout=settings.lora.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    # Norms and embeddings in fp32. Not under FSDP: it divides what has one type, that of the model.
    if four_bit and not sharded():
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    if not four_bit:
        config._register_custom_module({nn.Linear: LoraLinear})
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    torch.manual_seed(seed)
    return get_peft_model(model, config)


def micro_batches(examples: list[Example], tokens: int) -> list[list[Example]]:
    """`examples` in order, in groups of at most `tokens` tokens; a longer example stands alone."""
    groups: list[list[Example]] = []
    room = 0
    for example in examples:
        if len(example.ids) > room:
            groups.append([])
            room = tokens
        groups[-1].append(example)
        room -= len(example.ids)
    return groups


@dataclass(frozen=True)
class MicroBatch:
    """What a process computes at once; `counts` is false for one that only keeps in step."""

    term: Term
    examples: list[Example]
    counts: bool


class Trainer:
    """State of one training run: model, optimizer, the losses so far. Every process has one."""

    def __init__(
        self, model: Any, terms: list[Term], settings: TrainSettings, epochs: int, seed: int
    ) -> None:
        self.terms = terms
        self.settings = settings
        self.seed = seed
        self.total = math.ceil(epochs * len(terms[0].examples) / terms[0].batch_size)
        self.accelerator = Accelerator(cpu=device().type == "cpu")
        trainable = [value for value in model.parameters() if value.requires_grad]
        optimizer = make_optimizer(trainable, settings)
        loss = Loss(model)
        expected = self._probe(loss) if sharded() else 0.0
        self.model, self.optimizer = self.accelerator.prepare(loss, optimizer)
        if sharded():
            check_division(expected, self._probe(self.model))
        self.rows: list[dict[str, str]] = []
        self.tokens = 0

    @torch.no_grad()
    def _probe(self, loss: torch.nn.Module) -> float:
        """The loss on the first example, to compare a divided model with the whole one."""
        term = self.terms[0]
        total = loss(term.loss_sum, pack(term.examples[:1], self.accelerator.device))
        return float(total.item())

    def step(self) -> None:
        """One optimizer step, and its row of loss.csv: on every process the same one."""
        step = len(self.rows)
        # Dropout draws from a stream of the step: resuming at a step equals never having stopped.
        stream = random.Random(f"{self.seed}/dropout/{step}").getrandbits(63)
        torch.manual_seed(stream ^ self.accelerator.process_index)
        rate = learning_rate(step, self.total, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        joining = [term for term in self.terms if term.weight > 0 and step % term.every == 0]
        losses = self._accumulate(joining, step)
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        loss = sum(term.weight * losses[term.name] for term in joining)
        epoch = (step + 1) * self.terms[0].batch_size / len(self.terms[0].examples)
        numbers = {"epoch": epoch, "loss": loss, "learning_rate": rate, **losses}
        shown = {name: f"{number:.6g}" for name, number in numbers.items()}
        self.rows.append({"step": str(step + 1), **shown, "tokens": str(self.tokens)})
        if not math.isfinite(loss):
            raise UserError(f"The loss is {loss} at step {step + 1}; lower train.learning_rate.")

    def _accumulate(self, terms: list[Term], step: int) -> dict[str, float]:
        """Add the gradients of the terms' mean losses over their batches; returns the means."""
        drawn = [(term, example) for term in terms for example in term.draw(step, self.seed)]
        labels = {term.name: 0 for term in terms}
        for term, example in drawn:
            labels[term.name] += example.label_count
        # In double precision: there the order of processes is below what loss.csv shows.
        sums = {
            term.name: torch.zeros((), dtype=torch.float64, device=self.accelerator.device)
            for term in terms
        }
        mine = self._deal(drawn)[self.accelerator.process_index]
        for place, part in enumerate(mine, start=1):
            # Gradients travel once a step, with the last micro-batch.
            waits = nullcontext() if place == len(mine) else self.accelerator.no_sync(self.model)
            with waits:
                batch = pack(part.examples, self.accelerator.device)
                loss = self.model(part.term.loss_sum, batch) / labels[part.term.name]
                # DDP and FSDP take the mean over the processes; the loss is their sum.
                factor = part.term.weight * self.accelerator.num_processes
                self.accelerator.backward((factor if part.counts else 0.0) * loss)
            if part.counts:
                sums[part.term.name] += loss.detach()
        self.tokens += sum(labels.values())
        totals = self.accelerator.reduce(sums, reduction="sum")
        return {name: total.item() for name, total in totals.items()}

    def _deal(self, drawn: list[tuple[Term, Example]]) -> list[list[MicroBatch]]:
        """The micro-batches of every process: of about equal tokens, and equally many.

        Forward and backward passes are joint work under FSDP, and under DDP the last one is: a
        process with fewer micro-batches repeats the shortest example and counts it for nothing.
        """
        sizes = [len(example.ids) for _, example in drawn]
        dealt = []
        for indices in deal(sizes, self.accelerator.num_processes):
            mine = [drawn[index] for index in indices]
            dealt.append(
                [
                    MicroBatch(term, group, counts=True)
                    for term in self.terms
                    for group in micro_batches(
                        [example for other, example in mine if other is term],
                        self.settings.micro_batch_tokens,
                    )
                ]
            )
        term, shortest = drawn[sizes.index(min(sizes))]
        idle = MicroBatch(term, [shortest], counts=False)
        most = max(map(len, dealt))
        return [parts + [idle] * (most - len(parts)) for parts in dealt]

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        progress = {"rows": self.rows, "tokens": self.tokens}
        save_checkpoint(path, self.model, self.optimizer.optimizer, progress)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint of the same run, on however many processes.

        Raises:
            UserError: the processes found different checkpoints.
        """
        if path.exists():
            progress = load_checkpoint(path, self.model, self.optimizer.optimizer)
            self.rows, self.tokens = progress["rows"], progress["tokens"]
            logging.info("continuing at step %d of %d", len(self.rows) + 1, self.total)
        steps = self.accelerator.gather(torch.tensor([len(self.rows)], device=device())).tolist()
        if len(set(steps)) > 1:
            raise UserError(
                f"The processes would continue after {', '.join(map(str, steps))} steps: expected "
                "one checkpoint for all. Give all machines the same repository folder."
            )


def train(
    model: Any,
    terms: list[Term],
    settings: TrainSettings,
    *,
    epochs: int,
    seed: int,
    work: Path,
    out: Path,
) -> None:
    """Train the LoRA layers of `model`; write `out/adapter/` and `out/loss.csv`.

    Args:
        model: from `attach_lora`.
        terms: the first one's examples define an epoch.
        settings: see params.yaml `train`.
        epochs: passes over the first term's examples.
        seed: of the order of examples and of dropout.
        work: checkpoints go here, and the run continues from the one it finds.
        out: a folder.

    Raises:
        UserError: no examples, steps without a term, or the loss is not finite.
    """
    if not any(term.weight > 0 and term.every == 1 for term in terms):
        raise UserError("Some steps would have no loss: give a term of weight above 0 every step.")
    for term in terms:
        if term.weight > 0 and not term.examples:
            raise UserError(f"No examples for the loss term `{term.name}`; see data/pseudo/.")
    trainer = Trainer(model, terms, settings, epochs, seed)
    checkpoint = work / "checkpoint.pt"
    trainer.load(checkpoint)
    trainer.model.train()
    interval = 1.0 if sys.stderr.isatty() else 15.0
    with tqdm(
        total=trainer.total,
        initial=len(trainer.rows),
        desc="train",
        unit="step",
        mininterval=interval,
        disable=not trainer.accelerator.is_main_process,
    ) as bar:
        while len(trainer.rows) < trainer.total:
            trainer.step()
            bar.set_postfix(loss=trainer.rows[-1]["loss"], refresh=False)
            bar.update(1)
            if len(trainer.rows) % settings.checkpoint_every == 0:
                trainer.save(checkpoint)
    weights = adapter_weights(trainer.model)
    named = {name.removeprefix("model."): value for name, value in weights.items()}
    save_adapter(model, named, out / "adapter")
    text = io.StringIO()
    names = [term.name for term in terms if term.weight > 0]
    columns = ["step", "epoch", "loss", *names, "learning_rate", "tokens"]
    writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(trainer.rows)
    write_text(out / "loss.csv", text.getvalue())
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()
