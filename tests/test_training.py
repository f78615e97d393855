"""The training loop: end points, invariances, what moves, resuming."""

import csv
import hashlib
from dataclasses import replace

import pytest
import torch
from peft import PeftModel

from gcd.core.errors import UserError
from gcd.core.settings import LoraSettings, TrainSettings
from gcd.training.checkpoints import save_adapter
from gcd.training.lora import attach_lora
from gcd.training.losses import Example, token_loss_sum
from gcd.training.optimizers import learning_rate, make_optimizer
from gcd.training.processes import check_division, deal
from gcd.training.terms import Term, micro_batches
from gcd.training.trainer import Trainer, train
from tests.tiny import make_model

SETTINGS = TrainSettings(
    optimizer="adamw",
    gradient_checkpointing=False,
    micro_batch_tokens=1000,
    max_length=100,
    learning_rate=0.01,
    warmup_share=0.1,
    weight_decay=0.0,
    gradient_clip=1.0,
    checkpoint_every=2,
    conversations="role_played",
    lora=LoraSettings(rank=4, alpha=8, dropout=0.1),
)
EXAMPLES = [
    Example([start + k for k in range(4 + start)], [False] * 2 + [True] * (2 + start))
    for start in range(5)
]


def term(name="sft", weight=1.0, batch_size=2, every=1):
    return Term({name: weight}, EXAMPLES, 0, batch_size, every, token_loss_sum)


def train_adapter(model, terms, settings, epochs, seed, work, out):
    def save(weights):
        save_adapter(model, weights, out / "adapter")

    train(model, terms, settings, epochs=epochs, seed=seed, work=work, out=out, save=save)


def run(tokenizer, tmp_path, name, terms, settings=SETTINGS, seed=0):
    """Train a fresh tiny model; returns the digest of the adapter folder and loss.csv."""
    model = attach_lora(make_model(tokenizer), settings, four_bit=False, seed=seed)
    out, work = tmp_path / name, tmp_path / f"{name}-work"
    work.mkdir(exist_ok=True)
    train_adapter(model, terms, settings, 3, seed, work, out)
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def test_equal_seeds_give_equal_files_and_other_seeds_others(tokenizer, tmp_path):
    first = run(tokenizer, tmp_path, "a", [term()])
    assert run(tokenizer, tmp_path, "b", [term()]) == first
    assert run(tokenizer, tmp_path, "c", [term()], seed=1) != first


def test_weight_one_and_zero_is_the_first_term_alone(tokenizer, tmp_path):
    """λ = 1: GCD is SeqKD, to the last bit of the adapter."""
    alone = run(tokenizer, tmp_path, "a", [term()])
    joint = run(tokenizer, tmp_path, "b", [term(), term("prompt_generation", 0.0, 1)])
    weights = [(tmp_path / n / "adapter/adapter_model.safetensors").read_bytes() for n in "ab"]
    assert weights[0] == weights[1]
    assert alone == joint


def test_weight_zero_trains_on_the_second_term_only(tokenizer, tmp_path):
    """λ = 0: the conversations have no influence, only their number sets the steps."""
    other = Term({"sft": 0.0}, list(reversed(EXAMPLES)), 0, 2, 1, token_loss_sum)
    first = run(tokenizer, tmp_path, "a", [term("sft", 0.0), term("prompt_generation", 1.0, 1)])
    second = run(tokenizer, tmp_path, "b", [other, term("prompt_generation", 1.0, 1)])
    assert first == second


def test_joint_loss_is_the_weighted_sum_of_its_columns(tokenizer, tmp_path):
    run(tokenizer, tmp_path, "a", [term("sft", 0.7), term("prompt_generation", 0.3, 1)])
    header, *lines = (tmp_path / "a/loss.csv").read_text().splitlines()
    assert header == "step,epoch,loss,sft,prompt_generation,learning_rate,tokens"
    assert len(lines) == 8  # 3 epochs of 5 examples, 2 a step, rounded up
    for line in lines:
        _, _, loss, sft, generation, _, _ = map(float, line.split(","))
        assert loss == pytest.approx(0.7 * sft + 0.3 * generation, rel=1e-4)


def test_micro_batches_do_not_change_the_gradient(tokenizer):
    """One micro-batch of everything, and one an example: the same gradient."""
    gradients = []
    for tokens in (1000, 1):
        settings = SETTINGS.model_copy(
            update={
                "micro_batch_tokens": tokens,
                "lora": SETTINGS.lora.model_copy(update={"dropout": 0.0}),
            }
        )
        model = attach_lora(make_model(tokenizer), settings, four_bit=False, seed=0)
        trainer = Trainer(model, [term(batch_size=5)], settings, epochs=1, seed=0)
        trainer.model.train()
        trainer._accumulate(trainer.terms, 0)
        gradients.append(
            torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        )
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)
    assert gradients[0].abs().max() > 1e-3


def test_micro_batches_respect_the_limit_and_keep_every_example():
    groups = micro_batches(EXAMPLES, 16)
    assert sorted(len(e.ids) for group in groups for e in group) == [4, 5, 6, 7, 8]
    assert all(sum(len(e.ids) for e in g) <= 16 for g in groups)
    assert len(micro_batches(EXAMPLES, 1)) == len(EXAMPLES)


def test_dealing_gives_everything_once_and_about_equal_work():
    """By hand: 9 to the first, 7 to the second, 5 to the second (7 < 9), 4 and 1 to the first."""
    assert deal([4, 9, 1, 7, 5], 2) == [[0, 1], [2, 3, 4]]
    assert deal([4, 9, 1, 7, 5], 1) == [[0, 1, 2, 3, 4]]
    assert deal([3], 2) == [[0], []]


def test_gradient_checkpointing_gives_the_same_gradient(tokenizer):
    """Through our own call of the base model, with several examples in a row."""
    gradients, recomputed = [], []
    for checkpointing in (False, True):
        settings = SETTINGS.model_copy(update={"gradient_checkpointing": checkpointing})
        model = attach_lora(make_model(tokenizer), settings, four_bit=False, seed=0)
        calls: list[int] = []
        model.get_base_model().model.layers[0].mlp.register_forward_pre_hook(
            lambda *_, calls=calls: calls.append(1)
        )
        trainer = Trainer(model, [term(batch_size=5)], settings, epochs=1, seed=0)
        trainer.model.train()
        torch.manual_seed(0)
        trainer._accumulate(trainer.terms, 0)
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
        recomputed.append(len(calls))
    assert recomputed == [1, 2]
    for plain, checkpointed in zip(*gradients, strict=True):
        assert torch.equal(plain, checkpointed)


@pytest.mark.parametrize("name", ["paged_adamw_32bit", "paged_adamw_8bit"])
def test_paged_optimizers_want_a_gpu(name):
    settings = SETTINGS.model_copy(update={"optimizer": name})
    with pytest.raises(UserError, match=f"{name} .* no GPU here"):
        make_optimizer([torch.nn.Parameter(torch.zeros(3))], settings)


def test_a_divided_model_has_to_keep_its_loss():
    check_division(100.0, 100.001)
    for other in (100.1, 99.9, float("nan")):
        with pytest.raises(UserError, match="FSDP has changed its weights"):
            check_division(100.0, other)


def test_every_example_once_an_epoch():
    drawn = [item for step in range(5) for item in term().draw(step, 0)]
    for epoch in (drawn[:5], drawn[5:]):
        assert sorted(len(item.ids) for item in epoch) == [4, 5, 6, 7, 8]
    assert drawn[:5] != drawn[5:]


def test_a_term_joins_every_so_many_steps(tokenizer, tmp_path):
    """Steps 1, 3, 5, …: as many batches as it joins steps, in the same order as always."""
    run(tokenizer, tmp_path, "both", [term(), term("other", batch_size=1, every=2)])
    with (tmp_path / "both/loss.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["other"]) for row in rows] == [step % 2 == 0 for step in range(8)]
    for row in rows:
        expected = float(row["sft"]) + float(row["other"] or 0)
        assert float(row["loss"]) == pytest.approx(expected, rel=1e-4)
    drawn = [term(batch_size=1, every=2).draw(step, 0) for step in range(0, 10, 2)]
    assert drawn == [term(batch_size=1).draw(step, 0) for step in range(5)]


def test_steps_without_a_loss_are_refused(tokenizer, tmp_path):
    with pytest.raises(UserError, match="no loss"):
        run(tokenizer, tmp_path, "none", [term(weight=0.0), term("other", every=2)])


def test_only_the_adapter_moves_and_it_learns(tokenizer, tmp_path):
    settings = SETTINGS.model_copy(update={"learning_rate": 0.05})
    model = attach_lora(make_model(tokenizer), settings, four_bit=False, seed=0)
    before = {name: value.clone() for name, value in model.named_parameters()}
    train_adapter(model, [term()], settings, 80, 0, tmp_path, tmp_path)
    for name, value in model.named_parameters():
        assert ("lora_" in name) == (not torch.equal(value, before[name])), name
    losses = [
        float(line.split(",")[2]) for line in (tmp_path / "loss.csv").read_text().splitlines()[1:]
    ]
    assert losses[-1] < 0.9 * losses[0]


@torch.no_grad()
def logits(model):
    """What a reader of the adapter computes: transformers' attention, not that of packed rows.

    Without gradients: for those, bitsandbytes takes another way through 4-bit weights on some CPUs
    (bf16, where there is AVX-512 for it), which rounds in the third digit.
    """
    model.get_base_model().set_attn_implementation("sdpa")
    return model.eval()(input_ids=torch.tensor([[5, 6, 7]])).logits


def test_saved_adapter_loads_to_the_same_logits(tokenizer, tmp_path):
    model = attach_lora(make_model(tokenizer), SETTINGS, four_bit=False, seed=0)
    train_adapter(model, [term()], SETTINGS, 3, 0, tmp_path, tmp_path)
    loaded = PeftModel.from_pretrained(make_model(tokenizer), str(tmp_path / "adapter"))
    assert torch.equal(logits(loaded), logits(model))


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_killed_run_resumes_to_the_same_files(tokenizer, tmp_path, monkeypatch, steps):
    """Killed after `steps` steps (checkpoint every 2): nothing shows it in the end."""
    terms = [term("sft", 0.7), term("prompt_generation", 0.3, 1)]
    whole = run(tokenizer, tmp_path, "whole", terms)
    step = Trainer.step

    def killed(self):
        if len(self.rows) == steps:
            raise KeyboardInterrupt
        step(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "step", killed)
        run(tokenizer, tmp_path, "cut", terms)
    assert (tmp_path / "cut-work/checkpoint.pt").exists() == (steps >= 2)
    assert run(tokenizer, tmp_path, "cut", terms) == whole


def test_learning_rate_warms_up_and_falls_to_zero():
    settings = SETTINGS.model_copy(update={"warmup_share": 0.1, "learning_rate": 1.0})
    rates = [learning_rate(step, 20, settings) for step in range(20)]
    assert rates[0] == pytest.approx(1 / 3)
    assert rates[2] == 1.0  # after round(20 × 0.1) = 2 warm-up steps
    assert rates[11] == pytest.approx(0.5)  # half of the 18 steps of the cosine
    assert 0 < rates[-1] < 0.01


def test_no_examples_is_an_error(tokenizer, tmp_path):
    with pytest.raises(UserError, match="No examples for the loss term `sft`"):
        run(tokenizer, tmp_path, "a", [replace(term(), examples=[])])


def test_four_bit_base_trains_and_reloads(tokenizer, tmp_path):
    """QLoRA on the CPU: NF4 base, LoRA on top, the same logits after reloading both."""
    from gcd.core import base_model
    from gcd.core.settings import ModelSettings
    from tests.tiny import save

    save(make_model(tokenizer), tokenizer, tmp_path / "base")
    (tmp_path / "base/model.json").write_text('{"source": "path"}')
    settings = ModelSettings(quantization="nf4", dtype="float32", batch_tokens=100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base_model, "BASE", tmp_path / "base")
        base, _ = base_model.load_base(settings)
        assert type(base.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"
        model = attach_lora(base, SETTINGS, four_bit=True, seed=0)
        train_adapter(model, [term()], SETTINGS, 3, 0, tmp_path, tmp_path)
        loaded, _, deployment, trained = base_model.load_with_adapter(
            settings, tmp_path / "adapter"
        )
    assert deployment == "unmerged adapter"
    assert trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert torch.equal(logits(loaded), logits(model))
