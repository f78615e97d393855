"""The commands and programs that a card shows for serving an export."""

import ast
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gcd.core.settings import ModelSettings
from gcd.exports.base import describe_base
from gcd.exports.convert_merged import splits_as_gpt2
from gcd.exports.serving import Served, serving_sections, transformers_code
from gcd.exports.settings import read_settings
from tests.test_exports import WHEEL


def served(**changes: Any) -> Served:
    plain = Served(
        name="talk",
        base=describe_base(WHEEL, read_settings(), Path("exports/talk")),
        merged=True,
        gguf=["adapter", "merged"],
        model=ModelSettings(quantization="none", dtype="bfloat16", batch_tokens=1),
        rank=4,
        max_new_tokens=7,
        opening='Say "hi" \\ in\nÖsterreich.',
        again="python -m gcd.exports a b --to NEW_FOLDER",
    )
    return replace(plain, **changes)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_programs_are_python_whatever_a_user_turn_holds(quantization: Any) -> None:
    model = ModelSettings(quantization=quantization, dtype="bfloat16", batch_tokens=1)
    text = "\n\n".join(serving_sections(served(model=model)))
    programs = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(programs) == 3  # adapter, merged, OpenAI's client
    for program in programs:
        [said] = [
            node.value
            for node in ast.walk(ast.parse(program))
            if isinstance(node, ast.Constant) and "Say" in str(node.value)
        ]
        assert said == served().opening
    assert "torch.bfloat16" in programs[0]
    assert ("merge_and_unload" in programs[0]) == (quantization == "none")


def test_serving_speaks_of_what_is_there() -> None:
    everything = "\n".join(serving_sections(served()))
    assert "--model merged.gguf" in everything
    assert "SmolLM2-135M-Instruct.Q4_1.gguf --lora adapter.gguf" in everything
    assert "--max-lora-rank 8" in everything  # vLLM's smallest
    assert "vllm serve merged" in everything
    little = "\n".join(serving_sections(served(merged=False, gguf=[])))
    assert "llama-server" not in little
    assert "`python -m gcd.exports a b --to NEW_FOLDER --gguf merged` makes one" in little
    assert '"merged"' not in little


def gpt2(**changes: Any) -> str:
    level = {"type": "ByteLevel", "use_regex": True, "add_prefix_space": False}
    plain = {"model": {"type": "BPE", "ignore_merges": False}, "normalizer": None}
    return json.dumps({**plain, "pre_tokenizer": level, **changes})


def test_which_tokenizers_split_as_gpt2(tokenizer) -> None:
    assert splits_as_gpt2(gpt2())
    assert splits_as_gpt2(tokenizer.backend_tokenizer.to_str())
    level = json.loads(gpt2())["pre_tokenizer"]
    digits = {"type": "Sequence", "pretokenizers": [{"type": "Digits"}, level]}
    for other in (
        {"pre_tokenizer": digits},
        {"pre_tokenizer": None},
        {"pre_tokenizer": {**level, "use_regex": False}},
        {"pre_tokenizer": {**level, "add_prefix_space": True}},
        {"normalizer": {"type": "NFC"}},
        {"model": {"type": "BPE", "ignore_merges": True}},
        {"model": {"type": "Unigram"}},
    ):
        assert not splits_as_gpt2(gpt2(**other)), other


def test_the_program_of_the_merged_model_needs_no_peft() -> None:
    assert "peft" not in transformers_code(served(), "merged")
