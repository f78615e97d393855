"""The tiny model of the tests, and short ways to say things.

Random, or taught to act in a handful of words (`gcd/tiny_model.py`), so that the whole pipeline
runs on it in miniature.
"""

from pathlib import Path
from typing import Any

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from gcd import tiny_model
from gcd.compression.tiny_encoder import TinyEncoderSource
from gcd.core.prompt import format_prompt
from gcd.core.records import Message
from gcd.core.settings import TinySource
from gcd.cost import Architecture
from gcd.tiny_model import OS_INTERACTION, Protocol

# Sizes that all differ, so that no two can be confused in a closed form.
ARCHITECTURE = Architecture(
    layers=2,
    hidden_size=24,
    heads=3,
    key_value_heads=1,
    head_size=8,
    intermediate_size=40,
    vocabulary_size=50,
)
# Two layers with grouped-query attention. 120 steps teach one protocol.
SOURCE = TinySource(
    hidden_size=64,
    intermediate_size=128,
    layers=2,
    heads=4,
    key_value_heads=2,
    vocabulary_size=1500,
    context=2048,
    steps=120,
    learning_rate=0.005,
    longest_filler=30,
    seed=0,
)
ENCODER = TinyEncoderSource(hidden_size=32, layers=2, heads=2, vocabulary_size=600, context=512)
PROMPT = format_prompt(OS_INTERACTION.prompt(), "prompt") + "\n"
NOUNS = OS_INTERACTION.words
BASH, OUTPUT, ANSWER = OS_INTERACTION.turns[1:]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A small vocabulary with ChatML's two control tokens."""
    return tiny_model.make_tokenizer((OS_INTERACTION,), SOURCE.vocabulary_size)


def make_model(tokenizer: Any) -> LlamaForCausalLM:
    """A random Llama of two layers with grouped-query attention."""
    return tiny_model.make_model(tokenizer, SOURCE)


def user(text: str) -> Message:
    return Message(role="user", content=text)


def assistant(text: str) -> Message:
    return Message(role="assistant", content=text)


def system(text: str) -> Message:
    return Message(role="system", content=text)


def save_taught(protocol: Protocol, folder: Path) -> None:
    """A tiny model that has learnt to act in one task, in transformers' format."""
    save(*tiny_model.build(SOURCE, (protocol,)), folder)


def save(model: LlamaForCausalLM, tokenizer: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
