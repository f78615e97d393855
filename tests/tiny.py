"""A tiny model and tokenizer, made in seconds: random, or taught to act in a handful of words.

The taught one answers every problem in the Think/Act protocol and continues numbered lists, so
that the whole pipeline runs on it in miniature.
"""

import random
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


def make_tokenizer() -> PreTrainedTokenizerFast:
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
    texts = [message.content for lesson in lessons(random.Random(0)) for message in lesson]
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


os_interaction = load_task("os_interaction")


def lessons(rng: random.Random) -> list[Conversation]:
    """One conversation of each kind that the pipeline asks a model for."""
    names = rng.sample(NOUNS, 8)
    wording = os_interaction.WORDING
    problem = os_interaction.first_message(f"How many files are in /{names[0]}?")
    prompt = parse_prompt(PROMPT, "prompt")
    inputs = synthesis.INPUTS_REQUEST.format(
        agent=wording.agent, problem=wording.problem, prompt=PROMPT.strip()
    )
    question = synthesis.INPUTS_QUESTION.format(count=8)
    reasons = synthesis.REASON_REQUEST.format(prompt=PROMPT.strip())
    lines = [f"{n}. How many files are in /{name}?" for n, name in enumerate(names, start=1)]
    act = [user(problem), assistant(BASH), user(OUTPUT), assistant(ANSWER)]
    environment = role_play.environment_prompt(prompt, os_interaction, "[END]")
    return [
        [system(inputs), user(question), assistant("\n".join(lines))],
        [*prompt, *act],
        [user(problem), assistant("Hello there.")],
        [system(reasons), user("Input: x"), assistant("The prompt says so.")],
        [*environment, *role_play.swap_roles(act[:3])],
    ]


def teach(model: LlamaForCausalLM, tokenizer: Any, steps: int) -> None:
    """Train the whole model on lessons of all kinds."""
    rng = random.Random(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(steps):
        rows = [render(tokenizer, lesson, generation_header=False) for lesson in lessons(rng)]
        width = max(len(row.ids) for row in rows)
        ids = torch.tensor([row.ids + [0] * (width - len(row.ids)) for row in rows])
        marks = [row.supervised + [False] * (width - len(row.ids)) for row in rows]
        labels = torch.where(torch.tensor(marks), ids, -100)
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def save(model: LlamaForCausalLM, tokenizer: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
