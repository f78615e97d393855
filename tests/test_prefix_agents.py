"""Trained prefixes as agents: what was saved replies as it was trained, and as plain peft does."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from gcd.agents import load_base_agent, load_prefix_agent
from gcd.core import base_model
from gcd.core.chat import prompt_ids, render_request
from gcd.core.errors import UserError
from gcd.core.interfaces import load_method
from gcd.core.language_model import LanguageModel
from gcd.core.params import Params, check_section, read_params
from gcd.core.prompt import parse_prompt, read_prompt_text
from gcd.core.records import write_text
from gcd.core.settings import RunEpisodesSettings
from gcd.core.shared_prefix import Prefix, compute_prefix
from gcd.core.task_settings import TrainingSettings
from gcd.core.trained_prefix import load_with_prefix, prefix_layers
from gcd.methods import cartridge
from gcd.training.prefixes import (
    attach_cartridge,
    encoder_weights,
    save_prefix,
    shorten,
)
from tests.conftest import ROOT
from tests.test_decoding import PROMPT, plain_greedy
from tests.test_multiple_processes import write_pseudo_data
from tests.test_prefixes import KINDS, MODEL, TASK, train
from tests.test_training import SETTINGS as LORA_SETTINGS
from tests.tiny import make_model, save, user


@pytest.fixture
def prepared(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model where `prepare_model` leaves the base."""
    save(make_model(tokenizer), tokenizer, tmp_path / "base")
    (tmp_path / "base/model.json").write_text('{"source": "path"}')
    monkeypatch.setattr(base_model, "BASE", tmp_path / "base")
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_agents_reply_as_plain_peft_does(kind, tokenizer, prepared):
    """Greedy, token by token, from what follows the prompt; the whole prompt counts as six."""
    out = prepared / "out"
    train(kind, tokenizer, out)
    episodes = RunEpisodesSettings(
        max_new_tokens=8, live_environments=1, recall_requests=1, recall_tokens=8
    )
    params = Params({"model": MODEL, "run_episodes": episodes}, {})
    agent = load_prefix_agent(params, out / "adapter", PROMPT, prepared)
    assert agent.deployment == "trained prefix"
    assert agent.prompt_tokens == 6
    record = json.loads((out / "training.json").read_text())
    assert agent.adapter_parameters == record["trainable_parameters"]
    asked = [user("How many files are in /etc?")]
    [reply] = agent.reply([asked])
    assert reply is not None
    ids = render_request(tokenizer, PROMPT, asked, "")[1]
    plain = PeftModel.from_pretrained(make_model(tokenizer), str(out / "adapter"))
    made = plain_greedy(plain, ids, 8, tokenizer.eos_token_id)
    assert reply.text == tokenizer.decode(made, skip_special_tokens=True).strip()


def test_a_whole_cartridge_replies_as_the_prompted_model(model, tokenizer):
    ids = prompt_ids(tokenizer, PROMPT)
    asked = [[user("How many files are in /etc?")], [user("cedar")]]
    prompted = LanguageModel(model, tokenizer, MODEL, None)
    expected = prompted.generate(PROMPT, asked, max_new_tokens=12, progress="test")
    whole = attach_cartridge(make_model(tokenizer), compute_prefix(model, ids).layers, frozen=1)
    replaced = LanguageModel(whole, tokenizer, MODEL, None)
    replaced.stand_in(Prefix(ids, prefix_layers(whole)))
    assert replaced.generate(PROMPT, asked, max_new_tokens=12, progress="test") == expected


def test_cartridges_refuse_gradient_checkpointing(tmp_path):
    train_settings = LORA_SETTINGS.model_copy(update={"gradient_checkpointing": True})
    with pytest.raises(UserError, match=r"`train\.gradient_checkpointing`"):
        cartridge.fit(TASK, Params({"train": train_settings}, {}), tmp_path, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_four_bit_base_carries_them(kind, tokenizer, prepared, monkeypatch):
    """Trained in fp32 on NF4 weights, loaded again to the same keys and values."""
    settings = MODEL.model_copy(update={"quantization": "nf4", "dtype": "bfloat16"})
    load = base_model.load_base
    monkeypatch.setattr("tests.test_prefixes.make_model", lambda _: load(settings)[0])
    model, losses = train(kind, tokenizer, prepared / "out", epochs=8)
    assert losses[-1] < losses[0]
    _, _, prefix, _ = load_with_prefix(settings, prepared / "out/adapter", PROMPT)
    assert len(prefix) == 6
    for one, other in zip(prefix.layers, prefix_layers(model.eval()), strict=True):
        assert one[0].dtype == torch.bfloat16
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


METHODS = {
    "cartridge": {
        "slots": [3, 6],
        "frozen_slots": 1,
        "learning_rate": 0.02,
        "sft_weight": 0.0,
        "divergence": {"kind": "forward", "teacher_share": 0.5, "weight": 1.0},
    },
    "soft_prompt": {"slots": [3, 6], "learning_rate": 0.1},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_method_fits_and_loads_each_of_its_rows(kind, tokenizer, prepared, monkeypatch):
    """From the files that synthesis leaves, with a learning rate of its own."""
    monkeypatch.chdir(prepared)
    write_text(prepared / "data/tasks" / TASK / "prompt.md", "You work in a shell.")
    write_pseudo_data(prepared / "data/pseudo" / TASK)
    method = load_method(kind)
    training = TrainingSettings(epochs=1, batch_size=3)
    episodes = RunEpisodesSettings(
        max_new_tokens=4, live_environments=1, recall_requests=1, recall_tokens=8
    )
    sections = {"seed": 0, "model": MODEL, "train": LORA_SETTINGS, "training": training}

    def params(**changes: Any) -> Params:
        settings = check_section(f"methods.{kind}", method.Settings, METHODS[kind] | changes)
        return Params({**sections, "method": settings, "run_episodes": episodes}, {})

    method.fit(TASK, params(), prepared / "out", prepared / "work")
    assert method.rows(params().method) == [f"{kind}_3", f"{kind}_6"]
    for slots in (3, 6):
        row = f"{kind}_{slots}"
        rates = [
            float(line["learning_rate"])
            for line in csv.DictReader((prepared / f"out/{row}/loss.csv").open())
        ]
        assert max(rates) == METHODS[kind]["learning_rate"]
        agent = method.load_agent(row, TASK, params(), prepared / "out", prepared)
        assert agent.prompt_tokens == slots
        assert len(agent.reply([[user("How many files are in /etc?")]])) == 1
    with pytest.raises(UserError, match=rf"`methods\.{kind}\.slots`: 900 slots"):
        method.fit(TASK, params(slots=[3, 900]), prepared / "more", prepared / "work")


@pytest.mark.slow
@pytest.mark.skipif(
    not (ROOT / "models/base/model.json").exists(),
    reason="needs the prepared model: run `dvc repro prepare_model`",
)
def test_a_whole_cartridge_acts_as_the_full_prompt(tmp_path: Path, monkeypatch: Any) -> None:
    """On the real model, from saved files: the same replies, turn by turn."""
    monkeypatch.chdir(ROOT)
    params = read_params("seed", "model", "train", "run_episodes")
    path = ROOT / "data/prompts/os_interaction.md"
    prompt = parse_prompt(read_prompt_text(path), str(path))
    asked = [[user("Problem: How many files are in /etc?")], [user("Problem: Who owns /tmp?")]]
    (tmp_path / "prompted").mkdir()
    prompted = load_base_agent(params, prompt, tmp_path / "prompted")
    expected = prompted.reply(asked)
    base, tokenizer = base_model.load_base(params.model)
    whole = compute_prefix(base, prompt_ids(tokenizer, prompt))
    model = attach_cartridge(base, shorten(base, whole, len(whole)), frozen=1)
    save_prefix(model, encoder_weights(model), tmp_path)
    found = load_prefix_agent(params, tmp_path, prompt, tmp_path)
    assert found.prompt_tokens == prompted.prompt_tokens
    assert found.reply(asked) == expected
