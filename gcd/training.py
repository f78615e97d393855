"""The one training loop: LoRA on a frozen base. A method brings terms: examples, weight, loss.

An optimizer step draws a batch from every term that joins it, takes each term's mean over its
supervised tokens and minimises the weighted sum. Batches are split into micro-batches by memory;
the result is that of the whole batch.
"""

import csv
import io
import json
import logging
import math
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from peft import (
    LoraConfig,
    get_peft_model,
    get_peft_model_state_dict,
    prepare_model_for_kbit_training,
    set_peft_model_state_dict,
)
from torch import Tensor, nn
from tqdm import tqdm

from gcd.core.errors import UserError
from gcd.core.records import write_bytes, write_text
from gcd.core.settings import TrainSettings
from gcd.lora_layer import LoraLinear
from gcd.losses import Batch, Example, pack
from gcd.packed_attention import attend_within_examples


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
    if four_bit:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    else:
        config._register_custom_module({nn.Linear: LoraLinear})
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


def learning_rate(step: int, total: int, settings: TrainSettings) -> float:
    """Linear warm-up, then a cosine to zero (the paper's schedule), for step 0 … total - 1."""
    warmup = round(total * settings.warmup_share)
    if step < warmup:
        return settings.learning_rate * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, total - warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


class Trainer:
    """State of one training run: model, optimizer, the losses so far."""

    def __init__(
        self, model: Any, terms: list[Term], settings: TrainSettings, epochs: int, seed: int
    ) -> None:
        self.terms = terms
        self.settings = settings
        self.seed = seed
        self.total = math.ceil(epochs * len(terms[0].examples) / terms[0].batch_size)
        self.accelerator = Accelerator()
        if self.accelerator.num_processes > 1:
            raise UserError("Training on several processes is not supported yet; start one.")
        trainable = [value for value in model.parameters() if value.requires_grad]
        optimizer = torch.optim.AdamW(
            trainable, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.rows: list[dict[str, str]] = []
        self.tokens = 0

    def step(self) -> None:
        """One optimizer step, and its row of loss.csv."""
        step = len(self.rows)
        # Dropout draws from a stream of the step: resuming at a step equals never having stopped.
        torch.manual_seed(random.Random(f"{self.seed}/dropout/{step}").getrandbits(63))
        rate = learning_rate(step, self.total, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        joining = [term for term in self.terms if term.weight > 0 and step % term.every == 0]
        losses = {term.name: self._accumulate(term, step) for term in joining}
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

    def _accumulate(self, term: Term, step: int) -> float:
        """Add the gradients of the term's mean loss over its batch; returns the mean."""
        examples = term.draw(step, self.seed)
        labels = sum(example.label_count for example in examples)
        total = 0.0
        for group in micro_batches(examples, self.settings.micro_batch_tokens):
            batch = pack(group, self.accelerator.device)
            loss = term.loss_sum(self.accelerator.unwrap_model(self.model), batch) / labels
            self.accelerator.backward(term.weight * loss)
            total += loss.item()
        self.tokens += labels
        return total

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        state = {
            "adapter": get_peft_model_state_dict(self.accelerator.unwrap_model(self.model)),
            "optimizer": self.optimizer.state_dict(),
            "rows": self.rows,
            "tokens": self.tokens,
        }
        # Through memory: on a full disk torch's own writer reports a broken file, not a full disk.
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_bytes(path, buffer.getvalue())

    def load(self, path: Path) -> None:
        """Continue from a checkpoint of the same run."""
        state = torch.load(path, map_location=self.accelerator.device, weights_only=True)
        set_peft_model_state_dict(self.accelerator.unwrap_model(self.model), state["adapter"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rows, self.tokens = state["rows"], state["tokens"]
        logging.info("continuing at step %d of %d", len(self.rows) + 1, self.total)


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
    if checkpoint.exists():
        trainer.load(checkpoint)
    trainer.model.train()
    interval = 1.0 if sys.stderr.isatty() else 15.0
    with tqdm(
        total=trainer.total,
        initial=len(trainer.rows),
        desc="train",
        unit="step",
        mininterval=interval,
    ) as bar:
        while len(trainer.rows) < trainer.total:
            trainer.step()
            bar.set_postfix(loss=trainer.rows[-1]["loss"], refresh=False)
            bar.update(1)
            if len(trainer.rows) % settings.checkpoint_every == 0:
                trainer.save(checkpoint)
    save_adapter(trainer.accelerator.unwrap_model(trainer.model), out / "adapter")
    text = io.StringIO()
    names = [term.name for term in terms if term.weight > 0]
    columns = ["step", "epoch", "loss", *names, "learning_rate", "tokens"]
    writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(trainer.rows)
    write_text(out / "loss.csv", text.getvalue())


def save_adapter(model: Any, folder: Path) -> None:
    """Save the LoRA weights so that equal weights give equal files.

    peft writes `target_modules` in the random order of a Python set, and an absolute base path.
    """
    model.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = "models/base"
    config["target_modules"] = sorted(config["target_modules"])
    write_text(file, json.dumps(config, indent=2, sort_keys=True) + "\n")
