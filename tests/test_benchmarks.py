"""Every benchmark in miniature: both sides do the same work, on a tiny taught model."""

import json
import shutil
from importlib import import_module
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import __main__ as everything
from benchmarks.limit import attention_flops, prefill_flops, training_flops
from benchmarks.reference import PlainTrainer, attach_plain_lora, cut_at, pad_right
from benchmarks.settings import TrainRowsSettings
from benchmarks.train_epoch import plain_epoch
from benchmarks.train_rows import TrainedRow, trained_rows
from benchmarks.workloads import made_up_examples
from gcd.core.errors import UserError
from gcd.core.interfaces import load_task
from gcd.core.records import (
    Episode,
    PairedOutput,
    PseudoConversation,
    Reason,
    Turn,
    write_records,
)
from gcd.cost import Architecture
from gcd.tiny_model import OS_INTERACTION, WORD
from gcd.training.checkpoints import save_adapter
from gcd.training.lora import attach_lora
from gcd.training.losses import Example, token_loss_sum
from gcd.training.terms import Term
from tests import tiny
from tests.conftest import ROOT
from tests.test_training import SETTINGS

# What replaces the settings: sizes that a tiny model works through in seconds.
SMALL = """\
common: {seed: 0, task: os_interaction}
synthesis: {repeats: 2, reference_share: 2, conversations: 4, turns: 3, agent_tokens: 60,
  environment_tokens: 60, at_least: 0.001}
prompted_episodes: {repeats: 1, episodes: 3, max_new_tokens: 60, at_least: 0.001}
train_step: {repeats: 1, examples: 2, tokens: 128, supervised_share: 0.25, at_least: 0.001,
  memory_at_most: 1000.0}
train_epoch: {repeats: 1, at_least: 0.001}
kl: {repeats: 2, labels: 300, kind: reverse, teacher_share: 0.5, memory_at_most: 1000.0}
train_rows: {repeats: 1, conversations: 4, epochs: 1, shortened: {icae: {slots: [8]}},
  variants: {prompt_prepending: shares}}
inference: {repeats: 1, turns: 3, new_tokens: 4}
growth: {repeats: 1, prompt_tokens: [40, 80], conversations: 4, pseudo_inputs: [4, 8],
  short_prompt_tokens: 20, new_tokens: 4, training_tokens: 16, exponent_at_most: 100.0}
limit: {repeats: 1, examples: 2, tokens: 128, supervised_share: 0.25, matrix_size: 64, products: 2,
  at_least: 0.000001}
"""


def turn(reply: str, observation: str | None) -> Turn:
    return Turn(
        reply=reply,
        context_tokens=1,
        reply_tokens=1,
        complete=True,
        continues=False,
        action=None,
        observation=observation,
    )


def write_data(folder: Any, problems: list[str]) -> None:
    """Pseudo data and recorded episodes of two turns."""
    task = load_task("os_interaction")
    opened = [tiny.user(task.first_message(problem)) for problem in problems]
    talks = [[one, tiny.assistant(tiny.BASH)] for one in opened]
    whole = [[*talk, tiny.user(tiny.OUTPUT), tiny.assistant(tiny.ANSWER)] for talk in talks[1:]]
    pairs = [
        PairedOutput(index=n, pseudo_input=text, teacher_output=tiny.BASH, student_output="Hello.")
        for n, text in enumerate(problems)
    ]
    episodes = [
        Episode(
            task="os_interaction",
            row="full_prompt",
            index=str(n),
            groups={},
            problem=text,
            status="completed",
            score=1.0,
            measures={},
            details={},
            prompt_tokens=1,
            turns=[turn(tiny.BASH, tiny.OUTPUT), turn(tiny.ANSWER, None)][n % 2 :],
            error=None,
        )
        for n, text in enumerate(problems)
    ]
    pseudo = folder / "data/pseudo/os_interaction"
    write_records(pseudo / "paired_outputs.jsonl", pairs)
    reasons = [Reason(index=n, reason="The prompt says so.") for n in range(3)]
    write_records(pseudo / "reasons.jsonl", reasons)
    conversations = [
        PseudoConversation(index=n, messages=talk, end="turn limit")
        for n, talk in enumerate([talks[0], *whole])
    ]
    write_records(pseudo / "conversations.jsonl", conversations)
    recorded = folder / "reports/episodes/os_interaction/full_prompt/full_prompt"
    write_records(recorded / "episodes.jsonl", episodes)
    (folder / "data/tasks/os_interaction").mkdir(parents=True)
    (folder / "data/tasks/os_interaction/prompt.md").write_text(tiny.PROMPT)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What `make repro` leaves, as far as the benchmarks read it."""
    folder = tmp_path_factory.mktemp("repository")
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "benchmarks").mkdir()
    (folder / "benchmarks/settings.yaml").write_text(SMALL)
    tiny.save_taught(OS_INTERACTION, folder / "models/base")
    tokenizer = tiny.make_tokenizer()
    model = tiny.make_model(tokenizer)
    architecture = Architecture(
        layers=2,
        hidden_size=64,
        heads=4,
        key_value_heads=2,
        head_size=16,
        intermediate_size=128,
        vocabulary_size=len(tokenizer),
    )
    description = {"source": "path", "architecture": architecture.model_dump(), "parameters": 1}
    (folder / "models/base/model.json").write_text(json.dumps(description))
    adapted = attach_lora(model, SETTINGS, four_bit=False, seed=0)
    weights = {name: value for name, value in adapted.named_parameters() if "lora_" in name}
    save_adapter(adapted, weights, folder / "models/os_interaction/gcd/adapter")
    problems = [OS_INTERACTION.problem.replace(WORD, noun) for noun in tiny.NOUNS[:6]]
    write_data(folder, problems)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", everything.NAMES)
def test_both_sides_do_the_same_work(repository, monkeypatch, name):
    monkeypatch.chdir(repository)
    record = import_module(f"benchmarks.{name}").main()
    written = json.loads((repository / f"reports/benchmarks/{name}.json").read_text())
    assert written["name"] == name
    assert {"median", "low", "high", "unit"} <= written["ours"].keys() & written["reference"].keys()
    assert {"median", "low", "high"} <= written["ratio"].keys()
    assert written["repeats"] == written["settings"]["repeats"]
    assert all(one.met() is not False for one in [record, *record.further])
    check_facts(name, written["facts"])


def check_facts(name: str, facts: dict[str, Any]) -> None:
    """What a benchmark itself says about the equality of its sides."""
    if name == "synthesis":
        assert facts["conversations_compared"] == facts["conversations_identical"] == 4
        assert facts["agent_turns"] >= 8
    if name == "prompted_episodes":
        assert facts["episodes_identical"] == 3
        assert facts["turns"] == 2 + 1 + 2
    if name == "train_step":
        pairs = zip(facts["losses_of_ours"], facts["losses_of_reference"], strict=True)
        assert all(ours == pytest.approx(reference, rel=1e-4) for ours, reference in pairs)
    if name == "train_epoch":
        assert facts["labels_of_ours"] == facts["labels_of_reference"] > 0
        assert facts["tokens_with_padding"] > facts["tokens"]
    if name == "kl":
        assert facts["value_of_ours"] == pytest.approx(facts["value_of_reference"], rel=1e-4)
        gradients = facts["largest_difference_of_gradients"], facts["largest_gradient"]
        assert gradients[0] < 1e-3 * gradients[1]
    if name == "train_rows":
        trained = {"prompt_prepending_100", "prompt_prepending_50", "seqkd", "seqkd_kld", "gcd"}
        assert trained <= facts["tokens"].keys()
        assert not facts["tokens"].keys() & {"full_prompt", "no_prompt"}
    if name == "inference":
        assert facts["student_identical_in_all_regimes"]
        assert facts["teacher_identical_in_all_regimes"]
    if name == "growth":
        assert len(facts["by_size"]) == 2 * 3 * 2


def test_a_line_for_each_trained_row():
    """A method that trains several is run once for each, with the others left out."""
    settings = TrainRowsSettings(
        repeats=1,
        conversations=1,
        epochs=1,
        shortened={"icae": {"steps": 2}, "absent": {"steps": 1}},
        variants={"icae": "slots"},
    )
    methods = {"seqkd": {}, "icae": {"slots": [32, 128], "steps": 20}}
    assert trained_rows(methods, settings) == {
        "seqkd": TrainedRow("seqkd", {}),
        "icae_32": TrainedRow("icae", {"slots": [32], "steps": 2}),
        "icae_128": TrainedRow("icae", {"slots": [128], "steps": 2}),
    }
    with pytest.raises(UserError, match=r"`train_rows\.variants\.icae`: expected a list .*'steps'"):
        trained_rows(methods, settings.model_copy(update={"variants": {"icae": "steps"}}))


@pytest.mark.slow
def test_the_table_is_written_and_the_status_names_what_missed(repository, monkeypatch):
    monkeypatch.chdir(repository)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # not the folder `benchmarks` with settings alone
    assert everything.main(["train_step"]) is None
    text = SMALL.replace("memory_at_most: 1000.0", "memory_at_most: 0.000001")
    (repository / "benchmarks/settings.yaml").write_text(text)
    assert everything.main(["train_step"]) == "bar missed: train_step, peak memory of a step"
    (repository / "benchmarks/settings.yaml").write_text("train_step: {}")
    assert everything.main(["train_step"]) == "failed: train_step"
    assert "train_step" not in (repository / "reports/benchmarks/table.md").read_text()
    with pytest.raises(UserError, match="no benchmark speed; there are synthesis"):
        everything.main(["speed"])


def test_padding_and_labels_of_the_reference():
    examples = [Example([5, 6, 7], [False, True, True]), Example([8], [False])]
    ids, mask, labels = pad_right(examples)
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert labels.tolist() == [[-100, 6, 7], [-100, -100, -100]]
    assert cut_at([4, 2, 3, 2], {2}) == [4, 2]
    assert cut_at([4, 3], {2}) == [4, 3]


def test_an_epoch_of_the_reference_has_the_examples_of_ours():
    """Six examples in batches of 2, and one of another term in the steps 0 and 2."""
    sft = [Example([number], [True]) for number in range(6)]
    generation = [Example([10 + number], [True]) for number in range(4)]
    terms = [
        Term({"sft": 0.7}, sft, 0, 2, 1, token_loss_sum),
        Term({"prompt_generation": 0.3}, generation, 0, 1, 2, token_loss_sum),
    ]
    epoch = plain_epoch(terms, 3, seed=0)
    assert [[weight for weight, _ in step] for step in epoch] == [[0.7, 0.3], [0.7], [0.7, 0.3]]
    assert sorted(one.ids[0] for step in epoch for one in step[0][1]) == list(range(6))
    drawn = {one.ids[0] for step in (0, 2) for one in terms[1].draw(step, 0)}
    assert {one.ids[0] for step in (epoch[0], epoch[2]) for one in step[1][1]} == drawn


def test_made_up_examples_have_the_share_of_labels():
    """Turns of 128 tokens, the last 32 supervised."""
    [example] = made_up_examples(1, 256, 0.25, 100, 0)
    assert [example.supervised.index(True), sum(example.supervised)] == [96, 64]
    assert max(example.ids) < 100


def test_flops_are_those_that_are_executed(tokenizer):
    """torch's own count of a plain step, less what the counter counts and the result needs not.

    It counts attention between all pairs and logits at all positions; it does not count the
    gradients of the first layer's inputs (the embedding is frozen): those of query, key and value,
    with the LoRA weights `A` that read them.
    """
    tokens = 32
    base = tiny.make_model(tokenizer)
    base.set_attn_implementation("eager")
    settings = SETTINGS.model_copy(update={"lora": SETTINGS.lora.model_copy(update={"dropout": 0})})
    model = attach_plain_lora(base, settings, 0)
    adapter = sum(value.numel() for value in model.parameters() if value.requires_grad)
    sizes = Architecture(
        layers=2,
        hidden_size=64,
        heads=4,
        key_value_heads=2,
        head_size=16,
        intermediate_size=128,
        vocabulary_size=len(tokenizer),
    )
    example = Example(list(range(tokens)), [True] * tokens)
    trainer = PlainTrainer(model, settings)
    with FlopCounterMode(display=False) as counter:
        trainer.step([(1.0, [example])], 0.0)
    all_pairs = 3 * (sizes.pair_flops * tokens**2 - attention_flops(sizes, tokens))
    all_logits = 4 * sizes.head_weights
    first = 2 * tokens * (64 * (64 + 32 + 32) + 3 * 64 * settings.lora.rank)
    expected = training_flops(sizes, adapter, [example]) + all_pairs + all_logits - first
    assert counter.get_total_flops() == expected
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        base(torch.tensor([example.ids]), logits_to_keep=1)
    read = prefill_flops(sizes, [tokens]) + all_pairs // 3
    assert counter.get_total_flops() == read + 2 * tokens * adapter
