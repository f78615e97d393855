"""The plan's closed forms: by hand, against torch and peft, and against the recorded run."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from gcd.core.errors import UserError
from gcd.core.interfaces import load_method
from gcd.core.params import read_params
from gcd.core.settings import LoraSettings, ModelSettings
from gcd.cost import Architecture, ModelRecord, forward_flops
from gcd.plan import find_lengths, find_model, plan
from gcd.plan_memory import activation_bytes, head_bytes, lora_parameters, weight_bytes
from gcd.plan_rows import Cell, episodes, fits, left_out, positions
from gcd.plan_work import Lengths, Work, conversation_tokens, generation_tokens, training_flops
from gcd.training.losses import Example, pack, token_loss_sum
from tests.conftest import ROOT
from tests.tiny import ARCHITECTURE

DEFAULT = Architecture(
    layers=30,
    hidden_size=576,
    heads=9,
    key_value_heads=3,
    head_size=64,
    intermediate_size=1536,
    vocabulary_size=49152,
)
LORA = LoraSettings(rank=4, alpha=8, dropout=0.0)
TOKENS = 40


def lora_model(dtype: torch.dtype, dropout: float, layers: int = ARCHITECTURE.layers) -> Any:
    """A Llama of ARCHITECTURE's sizes, but for its depth, with LoRA."""
    sizes = ARCHITECTURE
    config = LlamaConfig(
        vocab_size=sizes.vocabulary_size,
        hidden_size=sizes.hidden_size,
        intermediate_size=sizes.intermediate_size,
        num_hidden_layers=layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.key_value_heads,
        head_dim=sizes.head_size,
        tie_word_embeddings=True,
    )
    lora = LoraConfig(
        r=LORA.rank, lora_dropout=dropout, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return get_peft_model(LlamaForCausalLM(config).to(dtype), lora).train()


def batch() -> Any:
    """One example whose model reads TOKENS tokens, and which has one label."""
    example = Example(list(range(TOKENS + 1)), [False] * TOKENS + [True])
    return pack([example], torch.device("cpu"))


def test_lora_weights_by_hand_and_as_peft_makes_them() -> None:
    """Rank 4, two layers: 4 x 2 x (2 x (24 + 24) + 2 x (24 + 8) + 3 x (24 + 40))."""
    assert lora_parameters(ARCHITECTURE, 4) == 8 * (96 + 64 + 192)
    model = lora_model(torch.float32, 0.0)
    made = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert made == lora_parameters(ARCHITECTURE, 4)
    # As every adapter of the recorded run has it (agent.json).
    assert lora_parameters(DEFAULT, 16) == 4_884_480


def saved_bytes(dtype: torch.dtype, dropout: float, layers: int) -> int:
    """Bytes of all tensors that a forward pass keeps for the way back, weights apart."""
    model = lora_model(dtype, dropout, layers)
    seen = {weight.untyped_storage().data_ptr(): 0 for weight in model.parameters()}
    kept = []  # so that no address is used twice

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        storage = tensor.untyped_storage()
        seen.setdefault(storage.data_ptr(), storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        token_loss_sum(model, batch())
    return sum(seen.values())


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_activations_are_what_torch_keeps(dtype: str, dropout: float) -> None:
    """To the byte: one layer more, for what lies outside of the layers is not in the form."""
    lora = LORA.model_copy(update={"dropout": dropout})
    planned = activation_bytes(ARCHITECTURE, TOKENS, dtype, lora, checkpointing=False)
    three, two = (saved_bytes(getattr(torch, dtype), dropout, layers) for layers in (3, 2))
    assert planned == ARCHITECTURE.layers * (three - two)


def test_checkpointing_keeps_layer_inputs_and_one_layer() -> None:
    whole = activation_bytes(DEFAULT, 100, "float32", LORA, checkpointing=False)
    kept = activation_bytes(DEFAULT, 100, "float32", LORA, checkpointing=True)
    assert kept == 100 * 30 * 576 * 4 + whole / 30


def test_weights_by_hand() -> None:
    """Llama-3-8B: 6.98 billion weights in NF4 at 0.516 bytes, 1.05 billion in bf16 or fp32."""
    model = ModelRecord(
        source="hub",
        parameters=8_030_261_248,
        architecture=Architecture(
            layers=32,
            hidden_size=4096,
            heads=32,
            key_value_heads=8,
            head_size=128,
            intermediate_size=14336,
            vocabulary_size=128256,
        ),
    )
    plain = ModelSettings(quantization="none", dtype="bfloat16", batch_tokens=1)
    four_bit = plain.model_copy(update={"quantization": "nf4"})
    assert weight_bytes(model, plain, training=True) == 2 * 8_030_261_248
    rest = 8_030_261_248 - 6_979_321_856
    quantized = 6_979_321_856 * (0.5 + 1 / 64 + 1 / 4096)
    assert weight_bytes(model, four_bit, training=False) == round(quantized) + 2 * rest
    assert weight_bytes(model, four_bit, training=True) == round(quantized) + 4 * rest
    assert lora_parameters(model.architecture, 16) == 41_943_040  # the paper's scripts print it
    assert head_bytes(model.architecture, 10, "float32") == 10 * 128256 * 12


def test_training_flops_are_what_torch_counts() -> None:
    """To the product. torch does not count fused attention on a CPU, and the first layer's queries,
    keys and values pass nothing back to the embedding; the plan leaves that out of account."""
    model = lora_model(torch.float32, 0.0)
    with FlopCounterMode(display=False) as counter:
        token_loss_sum(model, batch()).backward()
    sizes, rank = ARCHITECTURE, LORA.rank
    planned = training_flops(sizes, TOKENS, 1, lora_parameters(sizes, rank), checkpointing=False)
    attention = 3.5 * sizes.pair_flops * TOKENS**2
    first = 2 * TOKENS * sizes.hidden_size * (24 + 2 * 8 + 3 * rank)
    assert planned - attention - first == counter.get_total_flops()


def test_examples_by_hand() -> None:
    sizes = Lengths(
        prompt=100,
        problem=5,
        first_message=7,
        reply=10,
        observation=3,
        turns=2.5,
        reason=20,
        played_observation=0,
        played_turns=1.0,
    )
    assert conversation_tokens(sizes, 1000) == (7 + 2.5 * 11 + 1.5 * 3, 27.5)
    assert conversation_tokens(sizes, 20) == (20, 20)
    assert generation_tokens(sizes, "prompt_and_reason", None) == (5 + 20 + 120, 120)
    assert generation_tokens(sizes, "prompt_and_reason", 50) == (5 + 20 + 50, 50)
    assert generation_tokens(sizes, "reason", None) == (5 + 20 + 20, 20)
    assert generation_tokens(sizes, "prompt", None) == (5 + 20 + 100, 100)


def test_a_reply_costs_its_passes() -> None:
    """Reading 3 tokens behind 2, then one pass of one token behind 5."""
    work = Work("")
    work.generate(ARCHITECTURE, 4, 2, 3, 2)
    weights, pair, head = ARCHITECTURE.linear_weights, 4 * 2 * 24, 50 * 24
    reading = 2 * 3 * weights + pair * 3 * 5 + 2 * head
    writing = 2 * weights + pair * 6 + 2 * head
    assert (work.read, work.written, work.flops) == (12, 8, 4 * (reading + writing))


SIZES = Lengths(
    prompt=100,
    problem=5,
    first_message=7,
    reply=10,
    observation=3,
    turns=3.0,
    reason=20,
    played_observation=4,
    played_turns=2.0,
)


def make_cell() -> Cell:
    """Five conversations, two a step, two epochs: five steps. LoRA has 1,000 weights."""
    params: Any = SimpleNamespace(
        train=SimpleNamespace(max_length=1000, gradient_checkpointing=False),
        task=SimpleNamespace(
            synthesis=SimpleNamespace(inputs=5),
            training=SimpleNamespace(epochs=2, batch_size=2),
            test=SimpleNamespace(count=6),
        ),
        run_episodes=SimpleNamespace(recall_requests=0, recall_tokens=256),
    )
    return Cell(ARCHITECTURE, params, SIZES, 1000)


def price(method: str, **settings: Any) -> Work:
    [work] = fits(make_cell(), method, SimpleNamespace(**settings))
    return work


def test_training_of_rows_by_hand() -> None:
    """A conversation has 7 + 3 x 11 + 2 x 3 = 46 tokens, 33 labels; each is visited twice."""
    one = training_flops(ARCHITECTURE, 46, 33, 1000, checkpointing=False)
    head = 2 * ARCHITECTURE.head_weights
    prompt = forward_flops(ARCHITECTURE, 100, 0, 0)
    seqkd = price("seqkd")
    assert (seqkd.read, seqkd.written, seqkd.flops) == (460, 330, 10 * one)
    whole = {"pg_target": "prompt_and_reason"}
    joint = {"pg_every": 2, "pg_batch_size": 4, "pg_max_length": 50, **whole}
    generation = training_flops(ARCHITECTURE, 75, 50, 1000, checkpointing=False)
    assert price("gcd", **joint).flops == 10 * one + 12 * generation  # steps 1, 3 and 5
    teacher = prompt + 5 * forward_flops(ARCHITECTURE, 46, 100, 0)
    distilled = price("seqkd_kld")
    assert (distilled.read, distilled.written) == (460 + 100 + 5 * 46, 330)
    assert distilled.flops == 10 * one + teacher + 330 * 3 * head
    assert price("gcd_kld", **joint).flops == distilled.flops + 12 * generation
    longer = training_flops(ARCHITECTURE, 146, 33, 1000, checkpointing=False)
    always, half = fits(make_cell(), "prompt_prepending", SimpleNamespace(shares=[100, 50]))
    assert always.flops == 10 * longer
    assert half.flops == 5 * longer + 5 * one
    assert (always.written, half.written) == (330, 330)


def test_on_policy_by_hand() -> None:
    """Before a mean turn are 7 + 14 = 21 tokens; a reply has 11 labels."""
    settings = {"steps": 3, "batch_size": 2, "max_new_tokens": 40, "warm_start": "seqkd"}
    work, seqkd = price("on_policy", **settings), price("seqkd")
    head = 2 * ARCHITECTURE.head_weights
    sampled = Work("")
    sampled.generate(ARCHITECTURE, 6, 0, 21, 11)
    teacher = forward_flops(ARCHITECTURE, 100, 0, 0)
    teacher += 6 * forward_flops(ARCHITECTURE, 32, 100, 0)
    learnt = 6 * training_flops(ARCHITECTURE, 32, 11, 1000, checkpointing=False)
    assert work.written == seqkd.written + 66
    expected = seqkd.flops + sampled.flops + teacher + learnt + 66 * 2 * head
    assert work.flops == pytest.approx(expected, rel=1e-12)
    joint = SimpleNamespace(pg_every=1, pg_batch_size=1, pg_max_length=None, pg_target="prompt")
    gcd = price("gcd", **vars(joint)).flops - seqkd.flops
    warm = price("on_policy", **{**settings, "warm_start": "gcd"}, joint_loss=joint)
    assert warm.flops == pytest.approx(expected + gcd, rel=1e-12)


def test_episodes_read_what_stands_in_for_the_prompt() -> None:
    settings: Any = SimpleNamespace(shares=[100], rates=[70, 20], slots=[8])
    assert positions("full_prompt", settings, 100) == [100]
    assert positions("gcd", settings, 100) == positions("on_policy", settings, 100) == [0]
    assert positions("prompt_prepending", settings, 100) == [0, 100]
    assert positions("llmlingua2", settings, 100) == [70, 20]
    assert positions("cartridge", settings, 100) == positions("soft_prompt", settings, 100) == [8]
    assert positions("icae", settings, 100) == [9]
    cell = make_cell()
    [bare] = episodes(cell, "no_prompt", None, ["no_prompt"])
    [full] = episodes(cell, "full_prompt", None, ["full_prompt"])
    assert (bare.read, bare.written) == (6 * (7 + 4), 6 * 20)
    assert full.read == 100 + bare.read
    assert full.flops > bare.flops
    assert episodes(cell, "mine", settings, ["mine"]) == fits(cell, "mine", settings) == []
    assert left_out(["gcd", "icae", "mine"]) == ["training of icae", "mine"]


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The repository as the current folder."""
    monkeypatch.chdir(ROOT)


@pytest.mark.usefixtures("root")
def test_the_default_plan_has_the_recorded_labels() -> None:
    """Within 8 %: lengths are rounded means, some data is rejected, epochs end within batches."""
    text = plan("default", 1e12, as_long_as_possible=False)
    rows = [line.split() for line in text.splitlines()]
    planned = {(row[2], row[1]): int(row[4].replace(",", "")) for row in rows if row[:1] == ["fit"]}
    recorded = json.loads(Path("reports/costs.json").read_text())
    assert len(recorded) == 3
    for task, rows_of_task in recorded.items():
        for row in ("seqkd", "gcd"):
            labels = rows_of_task[row]["training"]["supervised_tokens"]
            assert planned[task, row] == pytest.approx(labels, rel=0.08), (task, row)
        # Every row learns from the same conversations as often.
        for method in ("seqkd_kld", "prompt_prepending_100", "prompt_prepending_50"):
            assert planned[task, method] == planned[task, "seqkd"]
    played = {row[1] for row in rows if row[:1] == ["run_episodes"]}
    methods = read_params("methods").methods
    expected = [load_method(one).rows(read_params(f"methods.{one}").method) for one in methods]
    assert played == {row for found in expected for row in found}
    assert text.endswith("Not in the sum: training of llmlingua2, training of icae\n")


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("name", ["smoke", "gpu", "paper"])
def test_longest_texts_cost_no_less(name: str) -> None:
    def total(*, longest: bool) -> float:
        text = plan(name, 1e12, as_long_as_possible=longest)
        [line] = [line for line in text.splitlines() if line.startswith("sum ")]
        return float(line.split()[1].replace(",", ""))

    assert 0 <= total(longest=False) <= total(longest=True) < math.inf


@pytest.mark.usefixtures("root")
def test_unknown_sizes_are_named() -> None:
    with pytest.raises(UserError, match=r"lengths of 'chess' as of os_interaction"):
        find_lengths("chess")
    known = read_params("prepare_model").prepare_model
    hub = known.hub.model_copy(update={"id": "me/mine"})
    with pytest.raises(UserError, match=r"sizes of me/mine are not known: add them to .*archit"):
        find_model(known.model_copy(update={"source": "hub", "hub": hub}))
