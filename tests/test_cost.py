"""Costs: the closed forms against torch's own counter, and sessions worked out by hand."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from gcd.core.errors import UserError
from gcd.core.records import AgentRecord, Episode, Turn
from gcd.cost import (
    REGIMES,
    Architecture,
    decode_flops,
    episode_costs,
    episode_flops,
    forward_flops,
    key_value_bytes,
    read_model,
)
from gcd.rows import Row
from tests.tiny import ARCHITECTURE as TINY

# All sizes 1: N = 4 + 3 = 7, H = 1, 4 L D = 4, so forward(n | c) = 14 n + 4 n (c + n) + 2.
UNIT = Architecture(
    layers=1,
    hidden_size=1,
    heads=1,
    key_value_heads=1,
    head_size=1,
    intermediate_size=1,
    vocabulary_size=1,
)


@pytest.fixture(scope="module")
def llama() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=TINY.vocabulary_size,
        hidden_size=TINY.hidden_size,
        intermediate_size=TINY.intermediate_size,
        num_hidden_layers=TINY.layers,
        num_attention_heads=TINY.heads,
        num_key_value_heads=TINY.key_value_heads,
        head_dim=TINY.head_size,
        max_position_embeddings=256,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config).eval()


def tokens(count: int) -> torch.Tensor:
    return torch.arange(count).remainder(TINY.vocabulary_size)[None]


def count(work: Callable[[], Any]) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def read(model: Any, new: int, past: Any = None) -> Any:
    """One pass over `new` tokens with the logits of the last; returns the cache."""
    with torch.no_grad():
        return model(
            input_ids=tokens(new), past_key_values=past, use_cache=True, logits_to_keep=1
        ).past_key_values


def generate(model: Any, context: int, reply: int, past: Any = None) -> Any:
    """Read `context` tokens, then decode as many single ones as a reply needs."""
    past = read(model, context, past)
    for _ in range(reply - 1):
        past = read(model, 1, past)
    return past


def test_weights_match_the_real_model(llama: Any) -> None:
    linear = sum(
        module.weight.numel()
        for name, module in llama.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    )
    assert linear == TINY.linear_weights
    assert llama.lm_head.weight.numel() == TINY.head_weights


@pytest.mark.parametrize("length", [1, 7, 33])
def test_prefill_equals_the_counter(llama: Any, length: int) -> None:
    assert count(lambda: read(llama, length)) == forward_flops(TINY, length, 0, 0)


def test_suffix_prefill_equals_the_counter(llama: Any) -> None:
    past = read(llama, 20)
    assert count(lambda: read(llama, 9, copy.deepcopy(past))) == forward_flops(TINY, 9, 20, 0)


@pytest.mark.parametrize("reply", [1, 2, 6])
def test_a_decoded_reply_equals_the_counter(llama: Any, reply: int) -> None:
    expected = forward_flops(TINY, 11, 0, 0) + decode_flops(TINY, reply, 11, 0)
    assert count(lambda: generate(llama, 11, reply)) == expected


def test_unmerged_adapter_equals_the_counter(llama: Any) -> None:
    config = LoraConfig(r=3, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(copy.deepcopy(llama), config).eval()
    weights = sum(weight.numel() for name, weight in adapted.named_parameters() if "lora_" in name)
    expected = forward_flops(TINY, 11, 0, weights) + decode_flops(TINY, 5, 11, weights)
    assert count(lambda: generate(adapted, 11, 5)) == expected
    merged = adapted.merge_and_unload()
    expected = forward_flops(TINY, 11, 0, 0) + decode_flops(TINY, 5, 11, 0)
    assert count(lambda: generate(merged, 11, 5)) == expected


def test_a_reply_of_one_token_needs_no_decoding() -> None:
    assert decode_flops(TINY, 1, 100, 0) == 0
    assert decode_flops(TINY, 0, 100, 0) == 0


def turn(context: int, reply: int, *, continues: bool = True) -> Turn:
    return Turn(
        reply="r",
        context_tokens=context,
        reply_tokens=reply,
        complete=True,
        continues=continues,
        action=None,
        observation=None,
    )


SESSION = [turn(3, 2, continues=False), turn(8, 1), turn(12, 3)]


def test_three_turns_by_hand() -> None:
    # Prompt of 5 tokens; contexts 8, 13, 17; replies 2, 1, 3 need 1, 0, 2 passes of one token.
    # forward(n | c) = 14 n + 4 n (c + n) + 2.
    decoded = (14 + 4 * 9 + 2) + (14 + 4 * 18 + 2) + (14 + 4 * 19 + 2)  # 52 + 88 + 92
    assert decoded == 232
    # recompute: forward(8|0) = 370, forward(13|0) = 860, forward(17|0) = 1396.
    assert episode_flops(UNIT, SESSION, 5, 0, "recompute") == 370 + 860 + 1396 + decoded
    # session: after turn 1 the cache holds 8 + 1 tokens: 4 new; after turn 2 it holds 13: 4 new.
    # forward(8|0) = 370, forward(4|9) = 56 + 208 + 2 = 266, forward(4|13) = 56 + 272 + 2 = 330.
    assert episode_flops(UNIT, SESSION, 5, 0, "session_cache") == 370 + 266 + 330 + decoded
    # prefix: the first turn reads 3 tokens after 5: forward(3|5) = 42 + 96 + 2 = 140.
    assert episode_flops(UNIT, SESSION, 5, 0, "prefix_cache") == 140 + 266 + 330 + decoded


def test_a_conversation_that_starts_anew_shares_the_prompt_only() -> None:
    # Contexts 8 and 13 of which the prompt has 5: forward(8|5) = 112 + 416 + 2 = 530.
    anew = [turn(3, 2, continues=False), turn(8, 1, continues=False)]
    first = episode_flops(UNIT, anew[:1], 5, 0, "session_cache")
    assert episode_flops(UNIT, anew, 5, 0, "session_cache") == first + 530
    # Without a prompt nothing is shared: the session is worth nothing.
    assert len({episode_flops(UNIT, anew, 0, 0, regime) for regime in REGIMES}) == 1


def test_session_cache_equals_a_real_session(llama: Any) -> None:
    def play() -> None:
        past = generate(llama, 5 + 3, 2)  # holds 9 tokens: the reply's last was never read
        past = generate(llama, 5 + 8 - 9, 1, past)
        generate(llama, 5 + 12 - 13, 3, past)

    assert count(play) == episode_flops(TINY, SESSION, 5, 0, "session_cache")


def test_prefix_cache_equals_a_real_session(llama: Any) -> None:
    prompt = read(llama, 5)

    def play() -> None:
        past = generate(llama, 3, 2, copy.deepcopy(prompt))
        past = generate(llama, 4, 1, past)
        generate(llama, 4, 3, past)

    assert count(play) == episode_flops(TINY, SESSION, 5, 0, "prefix_cache")


@pytest.mark.parametrize("prompt", [0, 1, 50])
def test_regimes_are_ordered(prompt: int) -> None:
    recompute, session, prefix = (
        episode_flops(TINY, SESSION, prompt, 7, regime) for regime in REGIMES
    )
    assert recompute > session >= prefix
    assert (session == prefix) == (prompt == 0)


def test_single_turn_without_prompt_costs_the_same_everywhere() -> None:
    assert len({episode_flops(TINY, SESSION[:1], 0, 0, regime) for regime in REGIMES}) == 1


def test_a_reply_that_came_back_shorter_still_reads_a_token() -> None:
    # 20 tokens were generated after 3, but stripped: the next context has 10, fewer than cached.
    stripped = [turn(3, 20), turn(10, 1)]
    first = episode_flops(UNIT, stripped[:1], 0, 0, "session_cache")
    whole = episode_flops(UNIT, stripped, 0, 0, "session_cache")
    assert whole - first == forward_flops(UNIT, 1, 9, 0)


def test_cache_bytes() -> None:
    # keys and values (2) x 2 layers x 1 head x 8 values x 4 bytes = 128 a token
    assert key_value_bytes(TINY, 10, "float32") == 1280
    assert key_value_bytes(TINY, 10, "bfloat16") == 640


def make_row(prompt: int, turns: list[Turn], deployment: str = "base", adapter: int = 0) -> Row:
    episodes = [
        Episode(
            task="t",
            row="r",
            index=str(index),
            groups={},
            problem="p",
            status="completed" if played else "unknown",
            score=0.0,
            measures={},
            details={},
            prompt_tokens=prompt,
            turns=played,
            error=None,
        )
        for index, played in enumerate([turns, []])  # the second could not be started
    ]
    agent = AgentRecord(
        row="r",
        deployment=deployment,
        prompt_tokens=prompt,
        adapter_parameters=adapter,
        bytes_to_ship=7,
    )
    return Row("m", agent, episodes, state_replies=[], recall=[])


def test_costs_of_a_row_by_hand() -> None:
    costs = episode_costs(UNIT, make_row(5, SESSION), make_row(5, SESSION), "float32")
    assert costs is not None
    assert costs["episodes"] == 1  # an episode that never started costs nothing and is no case
    assert costs["input_tokens"] == 8 + 13 + 17
    assert costs["output_tokens"] == 6
    assert costs["kv_bytes_peak"] == 2 * 4 * (17 + 2)  # the reply's last token is not cached
    assert costs["kv_bytes_prompt"] == 2 * 4 * 5
    assert costs["flops"] == {"recompute": 2858, "session_cache": 1198, "prefix_cache": 968}
    ones = dict.fromkeys(REGIMES, 1.0)
    assert costs["flops_relative_to_full_prompt"] == ones
    assert costs["flops_relative_on_teacher_episodes"] == ones


def test_relative_on_teacher_episodes_holds_behaviour_fixed() -> None:
    teacher = make_row(50, SESSION)
    brief = episode_costs(TINY, make_row(0, SESSION[:1]), teacher, "float32")
    long = episode_costs(TINY, make_row(0, [*SESSION, turn(40, 30)]), teacher, "float32")
    assert brief and long
    assert brief["flops_relative_to_full_prompt"] != long["flops_relative_to_full_prompt"]
    key = "flops_relative_on_teacher_episodes"
    assert brief[key] == long[key]


def test_only_an_unmerged_adapter_costs() -> None:
    teacher = make_row(0, SESSION)
    flops = {
        deployment: episode_costs(TINY, make_row(0, SESSION, deployment, 1000), teacher, "float32")
        for deployment in ("base", "merged adapter", "unmerged adapter")
    }
    assert flops["base"] == flops["merged adapter"] != flops["unmerged adapter"]
    prefix = episode_costs(TINY, make_row(0, SESSION, "trained prefix", 1000), teacher, "float32")
    assert prefix == flops["base"]
    with pytest.raises(UserError, match="expected a deployment"):
        episode_costs(TINY, make_row(0, SESSION, "folded", 1000), teacher, "float32")


def test_model_file_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    with pytest.raises(UserError, match="no such file"):
        read_model(path)
    model = {"source": "s", "architecture": TINY.model_dump(), "parameters": 7, "more": 1}
    path.write_text(json.dumps(model), encoding="utf-8")
    assert read_model(path).architecture == TINY
    del model["architecture"]["heads"]  # type: ignore[attr-defined]
    path.write_text(json.dumps(model), encoding="utf-8")
    with pytest.raises(UserError, match=r"architecture\.heads"):
        read_model(path)
