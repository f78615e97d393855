"""A tiny model and tokenizer, made in seconds: random, or taught to act in a handful of words.

The taught one answers every problem in the Think/Act protocol and continues numbered lists, so
that the whole pipeline runs on it in miniature.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from gcd import role_play, synthesis
from gcd.core.chat import render
from gcd.core.interfaces import load_task
from gcd.core.prompt import parse_prompt
from gcd.core.records import Conversation, Message
from gcd.cost import Architecture

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NOUNS = ["apple", "birch", "cedar", "daisy", "elder", "fern", "grape", "hazel", "iris", "juniper"]
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
PROMPT = """\
You work in a shell.
<!-- user -->
Problem: How many files are in /etc?
<!-- assistant -->
Think: I count.

Act: bash

```bash
ls /etc | wc -l
```
<!-- user -->
The output of the OS:

3
<!-- assistant -->
Think: done.

Act: answer(3)
"""


@dataclass(frozen=True)
class Material:
    """What the tiny model is taught about a task: the prompt's demonstrations, over and over."""

    task: Any
    prompt: str
    problems: Callable[[str], str]  # from a noun


OS_INTERACTION = Material(
    load_task("os_interaction"), PROMPT, lambda noun: f"How many files are in /{noun}?"
)


def make_tokenizer(material: Material | None = None) -> PreTrainedTokenizerFast:
    """Byte-level BPE with ChatML's two control tokens; `<|im_end|>` ends a turn and pads."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    taught = lessons(random.Random(0), material or OS_INTERACTION)
    texts = [message.content for lesson in taught for message in lesson]
    tokenizer.train_from_iterator([*texts, " ".join(NOUNS), "system user assistant"] * 4, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
    )
    fast.chat_template = TEMPLATE
    return fast


def make_model(tokenizer: Any, hidden_size: int = 64) -> LlamaForCausalLM:
    """A random Llama of two layers with grouped-query attention."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config).eval()


def user(text: str) -> Message:
    return Message(role="user", content=text)


def assistant(text: str) -> Message:
    return Message(role="assistant", content=text)


def system(text: str) -> Message:
    return Message(role="system", content=text)


BASH = "Think: I count.\n\nAct: bash\n\n```bash\nls /etc | wc -l\n```"
ANSWER = "Think: done.\n\nAct: answer(3)"
OUTPUT = "The output of the OS:\n\n3"


def lessons(rng: random.Random, material: Material) -> list[Conversation]:
    """One conversation of each kind that the pipeline asks a model for."""
    task = material.task
    problems = [material.problems(noun) for noun in rng.sample(NOUNS, 8)]
    prompt = parse_prompt(material.prompt, "prompt")
    demonstration = [message for message in prompt if message.role != "system"]
    act = [user(task.first_message(problems[0])), *demonstration[1:]]
    inputs = synthesis.INPUTS_REQUEST.format(
        agent=task.WORDING.agent, problem=task.WORDING.problem, prompt=material.prompt.strip()
    )
    question = synthesis.INPUTS_QUESTION.format(count=8)
    reasons = synthesis.REASON_REQUEST.format(prompt=material.prompt.strip())
    lines = [f"{n}. {problem}" for n, problem in enumerate(problems, start=1)]
    environment = role_play.environment_prompt(prompt, task, "[END]")
    return [
        [system(inputs), user(question), assistant("\n".join(lines))],
        [*prompt, *act],
        [act[0], assistant("Hello there.")],
        [system(reasons), user("Input: x"), assistant("The prompt says so.")],
        [*environment, *role_play.swap_roles(act[:3])],
    ]


def teach(model: LlamaForCausalLM, tokenizer: Any, material: Material, steps: int) -> None:
    """Train the whole model on lessons of all kinds."""
    rng = random.Random(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(steps):
        taught = lessons(rng, material)
        rows = [render(tokenizer, lesson, generation_header=False) for lesson in taught]
        width = max(len(row.ids) for row in rows)
        ids = torch.tensor([row.ids + [0] * (width - len(row.ids)) for row in rows])
        marks = [row.supervised + [False] * (width - len(row.ids)) for row in rows]
        labels = torch.where(torch.tensor(marks), ids, -100)
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def save_taught(material: Material, folder: Path) -> None:
    """A tiny model that has learnt to act in one task, in transformers' format."""
    tokenizer = make_tokenizer(material)
    model = make_model(tokenizer)
    teach(model, tokenizer, material, 150)
    save(model, tokenizer, folder)


def save(model: LlamaForCausalLM, tokenizer: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
