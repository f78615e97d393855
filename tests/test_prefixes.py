"""Trained prefixes: what they begin as, what moves, what is learnt, what is saved."""

import csv
import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from gcd.core.chat import prompt_ids
from gcd.core.errors import UserError
from gcd.core.params import Params
from gcd.core.records import PseudoConversation
from gcd.core.settings import ModelSettings
from gcd.core.shared_prefix import compute_prefix
from gcd.core.task_settings import TrainingSettings
from gcd.training.divergence import forward_divergence, imitation_loss_sums, with_teacher_states
from gcd.training.examples import behind, conversation_examples, prompted_examples
from gcd.training.losses import Example, pack, token_loss_sum
from gcd.training.prefixes import (
    attach_cartridge,
    attach_soft_prompt,
    behind_slots,
    fit_prefix,
    kept,
    read_behind_cartridge,
    read_soft_prompt,
    require_room,
    shorten,
    spread,
)
from gcd.training.terms import Term
from gcd.training.trainer import Trainer
from tests.test_decoding import PROMPT
from tests.test_training import SETTINGS as LORA_SETTINGS
from tests.tiny import BASH, NOUNS, OUTPUT, assistant, make_model, user

SETTINGS = LORA_SETTINGS.model_copy(update={"learning_rate": 0.02})
MODEL = ModelSettings(quantization="none", dtype="float32", batch_tokens=1000)
TASK = "os_interaction"
KINDS = ["cartridge", "soft_prompt"]


def conversations() -> list[PseudoConversation]:
    """Three of different lengths."""
    made = []
    for index in range(3):
        turns = [user(f"How many files are in /{NOUNS[index]}?"), assistant(BASH)]
        turns += [user(OUTPUT), assistant("cedar fern")] * index
        made.append(PseudoConversation(index=index, messages=turns, end="committed"))
    return made


def following(tokenizer: Any) -> list[Example]:
    """The conversations as they follow the prompt."""
    plain = conversation_examples(tokenizer, conversations(), 1000).examples
    prompted = prompted_examples(tokenizer, PROMPT, conversations(), plain)
    return [behind(example, len(prompt_ids(tokenizer, PROMPT))) for example in prompted]


def make(kind: str, tokenizer: Any, slots: int) -> tuple[Any, Term]:
    """A fresh tiny model with a prefix of so many slots in front, and what it learns from."""
    base, teacher, ids = make_model(tokenizer), make_model(tokenizer), prompt_ids(tokenizer, PROMPT)
    follow = following(tokenizer)
    if kind == "soft_prompt":
        model = attach_soft_prompt(
            base, [ids[place] for place in spread(slots, len(ids))], checkpointing=False
        )
        examples = [behind_slots(example, slots) for example in follow]
        sums = partial(token_loss_sum, read=read_soft_prompt)
        return model, Term({"sft": 1.0}, examples, 0, 3, 1, sums)
    prompt = compute_prefix(teacher, ids)
    examples = with_teacher_states(teacher, prompt, follow, follow)
    loss = imitation_loss_sums(forward_divergence, read_behind_cartridge)
    model = attach_cartridge(base, shorten(teacher, prompt, slots), frozen=1)
    return model, Term({"sft": 0.0, "divergence": 1.0}, examples, 0, 3, 1, loss)


def train(kind: str, tokenizer: Any, folder: Path, epochs: int = 4) -> tuple[Any, list[float]]:
    """Train 6 slots into `folder`, a step an epoch; returns the model and the losses."""
    model, term = make(kind, tokenizer, 6)
    training = TrainingSettings(epochs=epochs, batch_size=3)
    params = Params({"seed": 0, "train": SETTINGS, "training": training}, {})
    work = folder.parent / f"{folder.name}-work"
    work.mkdir(exist_ok=True)
    fit_prefix(model, term, params, folder, work)
    rows = list(csv.DictReader((folder / "loss.csv").open()))
    return model, [float(row["loss"]) for row in rows]


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def test_places_are_spread_from_the_first_to_the_last():
    assert spread(3, 9) == [0, 4, 8]
    assert spread(5, 5) == [0, 1, 2, 3, 4]
    assert spread(1, 9) == [0]


def test_a_whole_cartridge_is_the_prompt(model, tokenizer):
    """As many slots as the prompt has tokens: the hidden states of plain transformers."""
    follow = following(tokenizer)
    ids = prompt_ids(tokenizer, PROMPT)
    expected = [
        model.model(input_ids=torch.tensor([ids + example.ids])).last_hidden_state[0, len(ids) :]
        for example in follow
    ]
    prompt = compute_prefix(model, ids)
    whole = attach_cartridge(model, shorten(model, prompt, len(ids)), frozen=1)
    found = read_behind_cartridge(whole, pack(follow, model.device))
    wanted = torch.cat(
        [
            states[[place - 1 for place in example.labels]]
            for states, example in zip(expected, follow, strict=True)
        ]
    )
    assert len(wanted) == len(found) > 20
    assert torch.allclose(found, wanted, atol=1e-5)


def test_shortened_keys_stand_at_their_new_positions(model, tokenizer):
    """In the first layer they depend on token and position alone: as if nothing else were read.

    Elsewhere they hold what the whole prompt said, and differ.
    """
    ids = prompt_ids(tokenizer, PROMPT)
    prompt = compute_prefix(model, ids)
    alone = compute_prefix(model, [ids[place] for place in kept(5, len(ids))])
    layers = shorten(model, prompt, 5)
    for part in (0, 1):
        assert torch.allclose(layers[0][part], alone.layers[0][part], atol=1e-5)
    assert not torch.allclose(layers[1][1], alone.layers[1][1], atol=1e-3)
    for one, other in zip(shorten(model, prompt, len(ids)), prompt.layers, strict=True):
        assert torch.equal(one[0], other[0])


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_slots_move_and_they_learn(kind, tokenizer, tmp_path):
    """All but the frozen one; the base not at all."""
    start, _ = make(kind, tokenizer, 6)
    before = {name: value.clone() for name, value in start.named_parameters()}
    model, losses = train(kind, tokenizer, tmp_path / "out", epochs=20)
    changed = {
        name for name, value in model.named_parameters() if not torch.equal(value, before[name])
    }
    name = "trainable_embedding" if kind == "cartridge" else "embedding.weight"
    assert changed == {f"prompt_encoder.default.{name}"}
    [moved] = [value - before[name] for name, value in model.named_parameters() if name in changed]
    assert moved.shape[0] == (5 if kind == "cartridge" else 6)
    assert (moved.abs().amax(dim=1) > 1e-3).all()
    # A random model behind few slots says little else, but it has to go down.
    assert losses[-1] < (0.5 if kind == "cartridge" else 0.995) * losses[0]


@pytest.mark.parametrize("kind", KINDS)
def test_equal_seeds_give_equal_files_and_a_killed_run_too(kind, tokenizer, tmp_path, monkeypatch):
    """Killed after three of four steps: nothing shows it in the end."""
    train(kind, tokenizer, tmp_path / "a")
    step = Trainer.step

    def killed(self):
        if len(self.rows) == 3:
            raise KeyboardInterrupt
        step(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "step", killed)
        train(kind, tokenizer, tmp_path / "b")
    train(kind, tokenizer, tmp_path / "b")
    assert digest(tmp_path / "b") == digest(tmp_path / "a")


@pytest.mark.parametrize("kind", KINDS)
def test_saved_files_reload_into_plain_peft(kind, tokenizer, tmp_path):
    """Its own forward pass: the states that training has seen. And no path of this machine."""
    follow = following(tokenizer)
    model, _ = train(kind, tokenizer, tmp_path / "out")
    text = (tmp_path / "out/adapter/adapter_config.json").read_text()
    assert '"base_model_name_or_path": "models/base"' in text
    example = follow[1]
    slots = [] if kind == "cartridge" else [-1 - slot for slot in range(6)]
    flags = [False] * (len(slots) + len(example.ids) - 1) + [True]
    batch = pack([Example(slots + example.ids, flags)], torch.device("cpu"))
    read = read_behind_cartridge if kind == "cartridge" else read_soft_prompt
    expected = model.get_base_model().lm_head(read(model, batch))[0]
    plain = PeftModel.from_pretrained(make_model(tokenizer), str(tmp_path / "out/adapter"))
    logits = plain(input_ids=torch.tensor([example.ids[:-1]])).logits[0, -1]
    assert torch.allclose(logits, expected, atol=1e-5)


def test_more_slots_than_the_prompt_has_tokens_are_refused():
    require_room("methods.cartridge.slots", [2, 5], [1] * 5)
    with pytest.raises(UserError, match=r"`methods\.cartridge\.slots`: 6 slots .* of 5 tokens"):
        require_room("methods.cartridge.slots", [6, 2], [1] * 5)


def test_soft_prompts_train_with_gradient_checkpointing(tokenizer):
    """The same gradient, from layers that are computed twice."""
    follow = following(tokenizer)
    gradients = []
    for checkpointing in (False, True):
        ids = prompt_ids(tokenizer, PROMPT)[:6]
        model = attach_soft_prompt(make_model(tokenizer), ids, checkpointing=checkpointing)
        batch = pack([behind_slots(example, 6) for example in follow], torch.device("cpu"))
        model.train()
        token_loss_sum(model, batch, read=read_soft_prompt).sum().backward()
        gradients.append(model.prompt_encoder["default"].embedding.weight.grad)
    assert torch.equal(*gradients)
    assert gradients[0].abs().max() > 1e-3
