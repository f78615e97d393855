"""The one training loop, on a frozen base. A method brings terms: examples, weights, losses.

An optimizer step draws a batch from every term that joins it, takes the mean of each of its losses
over the supervised tokens and minimises the weighted sum. Batches are dealt out to the processes
that accelerate launched, if several, and split into micro-batches by memory; the result is that of
the whole batch.
"""

import atexit
import csv
import io
import json
import logging
import math
import random
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from gcd.core.base_model import device
from gcd.core.errors import RowFailure, UserError
from gcd.core.launch import sharded
from gcd.core.records import write_text
from gcd.core.settings import TrainSettings
from gcd.training.checkpoints import load_checkpoint, save_checkpoint, trained_weights
from gcd.training.flops import count_flops
from gcd.training.losses import Example, pack
from gcd.training.optimizers import learning_rate, make_optimizer
from gcd.training.processes import Loss, check_division, deal
from gcd.training.terms import MicroBatch, Term, micro_batches


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
        self.trained = {name for name, value in loss.named_parameters() if value.requires_grad}
        self.parameters = sum(value.numel() for value in trainable)
        expected = self._probe(loss) if sharded() else 0.0
        self.model, self.optimizer = self.accelerator.prepare(loss, optimizer)
        if sharded():
            check_division(expected, self._probe(self.model))
        self.rows: list[dict[str, str]] = []
        self.totals = {"supervised_tokens": 0, "read_tokens": 0, "flops": 0}

    @torch.no_grad()
    def _probe(self, loss: torch.nn.Module) -> float:
        """The loss on the first example, to compare a divided model with the whole one."""
        term = self.terms[0]
        sums = loss(term.loss_sums, pack(term.examples[:1], self.accelerator.device))
        return float(sums[0].item())

    def step(self) -> None:
        """One optimizer step, and its row of loss.csv: on every process the same one."""
        step = len(self.rows)
        # Dropout draws from a stream of the step: resuming at a step equals never having stopped.
        stream = random.Random(f"{self.seed}/dropout/{step}").getrandbits(63)
        torch.manual_seed(stream ^ self.accelerator.process_index)
        rate = learning_rate(step, self.total, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        joining = [term for term in self.terms if term.counts and step % term.every == 0]
        with count_flops() as counter:
            losses = self._accumulate(joining, step)
        self.totals["flops"] += self._sum(counter.get_total_flops())
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        loss = sum(
            weight * losses[name] for term in joining for name, weight in term.weights.items()
        )
        epoch = (step + 1) * self.terms[0].batch_size / len(self.terms[0].examples)
        numbers = {"epoch": epoch, "loss": loss, "learning_rate": rate, **losses}
        shown = {name: f"{number:.6g}" for name, number in numbers.items()}
        tokens = str(self.totals["supervised_tokens"])
        self.rows.append({"step": str(step + 1), **shown, "tokens": tokens})
        if not math.isfinite(loss):
            raise RowFailure(
                f"The loss is {loss} at step {step + 1}; lower train.learning_rate, or the row's "
                "own learning rate where it has one."
            )

    def _sum(self, count: int) -> int:
        """A number of each process, summed over them."""
        total = torch.tensor([count], dtype=torch.long, device=self.accelerator.device)
        return int(self.accelerator.reduce(total, reduction="sum").item())

    def _accumulate(self, terms: list[Term], step: int) -> dict[str, float]:
        """Add the gradients of the terms' mean losses over their batches; returns their columns."""
        batches = {term.name: term.draw(step, self.seed) for term in terms}
        drawn = [(term, example) for term in terms for example in batches[term.name]]
        labels = {term.name: 0 for term in terms}
        for term, example in drawn:
            labels[term.name] += example.label_count
        # In double precision: there the order of processes is below what loss.csv shows.
        device = self.accelerator.device
        sums = {
            term.name: torch.zeros(len(term.weights), dtype=torch.float64, device=device)
            for term in terms
        }
        read = 0
        mine = self._deal(drawn)[self.accelerator.process_index]
        for place, part in enumerate(mine, start=1):
            # Gradients travel once a step, with the last micro-batch.
            waits = nullcontext() if place == len(mine) else self.accelerator.no_sync(self.model)
            with waits:
                batch = pack(part.examples, device)
                means = self.model(part.term.loss_sums, batch) / labels[part.term.name]
                weights = torch.tensor(list(part.term.weights.values()), device=device)
                # DDP and FSDP take the mean over the processes; the loss is their sum.
                factor = self.accelerator.num_processes if part.counts else 0.0
                self.accelerator.backward(factor * (weights * means).sum())
            if part.counts:
                sums[part.term.name] += means.detach()
                read += batch.ids.numel()
        self.totals["supervised_tokens"] += sum(labels.values())
        self.totals["read_tokens"] += self._sum(read)
        self.totals["flops"] += self._sum(sum(example.flops for _, example in drawn))
        totals = self.accelerator.reduce(sums, reduction="sum")
        columns: dict[str, float] = {}
        for term in terms:
            columns |= zip(term.weights, totals[term.name].tolist(), strict=True)
            trained_on = batches[term.name]
            columns |= {name: measure(trained_on) for name, measure in term.measures.items()}
        return columns

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

    def weights(self) -> dict[str, Tensor]:
        """The trained weights by name in the model, whole; empty on all processes but the first."""
        found = trained_weights(self.model, self.trained)
        return {name.removeprefix("model."): value for name, value in found.items()}

    def record(self) -> dict[str, int]:
        """What the run took: see `gcd.core.records.TrainingRecord`."""
        return {
            "optimizer_steps": len(self.rows),
            "trainable_parameters": self.parameters,
            **self.totals,
        }

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        progress = {"rows": self.rows, "totals": self.totals}
        save_checkpoint(path, self.model, self.trained, self.optimizer.optimizer, progress)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint of the same run, on however many processes.

        Raises:
            UserError: the processes found different checkpoints.
        """
        if path.exists():
            progress = load_checkpoint(path, self.model, self.optimizer.optimizer)
            self.rows, self.totals = progress["rows"], progress["totals"]
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
    save: Callable[[dict[str, Tensor]], None],
) -> None:
    """Train what requires gradients in `model`; write `out/loss.csv` and `out/training.json`.

    Args:
        model: has `get_base_model()`, e.g. from `attach_lora`.
        terms: the first one's examples define an epoch.
        settings: see params.yaml `train`.
        epochs: passes over the first term's examples.
        seed: of the order of examples and of dropout.
        work: checkpoints go here, and the run continues from the one it finds.
        out: a folder.
        save: called at the end with the trained weights, by name in `model`; on all processes but
            the first there are none.

    Raises:
        UserError: no examples, or steps without a term.
        RowFailure: the loss is not finite.
    """
    if not any(term.counts and term.every == 1 for term in terms):
        raise UserError("Some steps would have no loss: give a term of weight above 0 every step.")
    for term in terms:
        if term.counts and not term.examples:
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
            done = len(trainer.rows) == trainer.total
            if done or len(trainer.rows) % settings.checkpoint_every == 0:
                trainer.save(checkpoint)
    save(trainer.weights())
    text = io.StringIO()
    names = [name for term in terms if term.counts for name in [*term.weights, *term.measures]]
    columns = ["step", "epoch", "loss", *names, "learning_rate", "tokens"]
    writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(trainer.rows)
    write_text(out / "loss.csv", text.getvalue())
    write_text(out / "training.json", json.dumps(trainer.record(), indent=2) + "\n")
    trainer.accelerator.wait_for_everyone()
    # Not now: a method may train again. The state alone, so that no model is held until then.
    atexit.register(trainer.accelerator.state.destroy_process_group)
