"""A tiny Llama with a tokenizer of its own, taught the protocols of the tasks in seconds.

For `prepare_model.source: tiny`: with it the whole pipeline runs in minutes (profiles/smoke.yaml).
A purely random model writes no list of problems and no action, and synthesis would have nothing to
keep. This one has learnt what the stages ask a model for: behind a prompt it acts, without one it
greets, it goes on with numbered lists, plays the environment and gives a reason.

It knows the prompts of data/prompts/smoke/ (a test compares them), but not what the stages say
around them: in its lessons these are random words, so that preparing a model depends on no other
stage's code.
"""

import random
import sys
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from gcd.core.chat import encode_text, render_request
from gcd.core.records import Conversation, Message
from gcd.core.settings import TinySource

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WORD = "WORD"  # stands in a protocol's texts for a word of its own
GREETING = "Hello there."
REASON = "The prompt says so."
ALIKE = 4  # lessons of about the same length that are read together
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Protocol:
    """How a task is talked about. WORD stands for a word that differs from problem to problem.

    Attributes:
        words: what WORD may be; the first one is that of the prompt's demonstration.
        system: what the prompt says before its demonstration.
        problem: one line.
        turns: what user and assistant say, by turns; an assistant's is last.
    """

    words: tuple[str, ...]
    system: str
    problem: str
    turns: tuple[str, ...]

    def say(self, word: str) -> list[str]:
        """The turns about `word`."""
        return [text.replace(WORD, word) for text in self.turns]

    def prompt(self) -> Conversation:
        """The prompt that the model is taught: what it says, and a demonstration."""
        system = Message(role="system", content=self.system)
        return [system, *_turns(self.say(self.words[0]), "user")]


@dataclass(frozen=True)
class Lesson:
    """A request, and a reply to it that begins with `opening`; the rest of it is taught."""

    request: Conversation
    opening: str
    rest: str


OS_INTERACTION = Protocol(
    words=("bin", "boot", "dev", "etc", "home", "lib", "media", "opt", "srv", "tmp"),
    system="You work in a shell.",
    problem="How many files are in /WORD?",
    turns=(
        "Problem: How many files are in /WORD?",
        "Think: I count.\n\nAct: bash\n\n```bash\nls /etc | wc -l\n```",
        "The output of the OS:\n\n3",
        "Think: done.\n\nAct: answer(3)",
    ),
)
WEB_BROWSING = Protocol(
    words=("bus", "car", "doctor", "flight", "hotel", "job", "room", "table", "train", "van"),
    system="You choose the next element of a web page.",
    problem="Find a WORD: click Show | button Show; link Help",
    turns=(
        """\
'''
<html> <body> <button id=0> Show </button> <a id=1> Help </a> </body> </html>
'''

This is a part of a web page. The next action of this task is wanted:
Task: Find a WORD: click Show
Previous actions:
None
Which of these elements does it need? (A, if the element is not in the page above.)

A. None of the above
B. <button id=0> Show </button>
C. <a id=1> Help </a>""",
        "Thought: Next is Show.\nAnswer: B.\nAction: CLICK",
    ),
)
WEB_SHOPPING = Protocol(
    words=("black", "blue", "brown", "cheap", "green", "large", "new", "red", "small", "white"),
    system="You shop in a web shop.",
    problem="i need a WORD mug",
    turns=(
        """\
Observation:
WebShop [SEP] Instruction: [SEP] i need a WORD mug [SEP] Search

Available Actions:
{'has_search_bar': True, 'clickables': ['search']}""",
        "Thought:\nI search.\n\nAction:\nsearch[mug]",
        """\
Observation:
Instruction: [SEP] i need a WORD mug [SEP] Back to Search [SEP] Mug [SEP] Buy Now

Available Actions:
{'has_search_bar': False, 'clickables': ['back to search', 'buy now']}""",
        "Thought:\nI buy.\n\nAction:\nclick[buy now]",
    ),
)
PROTOCOLS = (OS_INTERACTION, WEB_BROWSING, WEB_SHOPPING)


def _turns(texts: list[str], first: str) -> Conversation:
    """`texts` by turns, the first one said by `first`."""
    roles = ["user", "assistant"] if first == "user" else ["assistant", "user"]
    return [
        Message.model_validate({"role": roles[place % 2], "content": text})
        for place, text in enumerate(texts)
    ]


def _filler(rng: random.Random, longest: int) -> str:
    """At least one random word, up to `longest` of them, of one to five letters each."""
    count = rng.randint(1, longest)
    return " ".join("".join(rng.choices(LETTERS, k=rng.randint(1, 5))) for _ in range(count))


def lessons(rng: random.Random, protocol: Protocol, longest_filler: int) -> list[Lesson]:
    """One lesson of every kind, about words drawn from the protocol's."""
    words = rng.sample(protocol.words, min(len(protocol.words), 8))
    # Inputs that the model invents later hold words that are none.
    now = protocol.say(rng.choice([words[0], _filler(rng, longest_filler)]))
    prompt = protocol.prompt()
    shown = "\n".join(message.content for message in prompt)

    def around(text: str) -> str:
        return f"{_filler(rng, longest_filler)}\n{text}\n{_filler(rng, longest_filler)}"

    def ask(system: str, question: str) -> Conversation:
        return [Message(role="system", content=system), Message(role="user", content=question)]

    lines = [f"{n}. {protocol.problem.replace(WORD, word)}" for n, word in enumerate(words, 1)]
    cut = rng.randrange(1, len(lines))
    opening = "".join(f"{n}. {_filler(rng, 15)}\n" for n in range(1, cut + 1))
    question = f"Write a numbered list of {len(lines)} new ones, one a line."
    why = f"Input:\n{now[0]}\n\nOutput with the prompt:\n{now[1]}\n\n"
    environment = [
        Message(role="system", content=_filler(rng, longest_filler)),
        *_turns([message.content for message in prompt[1:]], "assistant"),
    ]
    return [
        Lesson(ask(around(shown), question), opening, "\n".join(lines[cut:])),
        Lesson(ask(around(shown), why + _filler(rng, longest_filler)), "", REASON),
        Lesson(_turns(now[:1], "user"), "", GREETING),
        *(
            Lesson([*prompt, *_turns(now[:place], "user")], "", now[place])
            for place in range(1, len(now), 2)
        ),
        *(
            Lesson([*environment, *_turns(now[:place], "assistant")], "", now[place])
            for place in range(2, len(now), 2)
        ),
    ]


def make_tokenizer(
    protocols: tuple[Protocol, ...], vocabulary_size: int
) -> PreTrainedTokenizerFast:
    """Byte-level BPE of at most `vocabulary_size` tokens, with ChatML's two control tokens.

    `<|im_end|>` ends a turn and pads.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rng = random.Random(0)
    taught = [lesson for protocol in protocols for lesson in lessons(rng, protocol, 1)]
    texts = [message.content for lesson in taught for message in lesson.request]
    texts += [lesson.opening + lesson.rest for lesson in taught]
    texts += [" ".join(protocol.words) for protocol in protocols]
    tokenizer.train_from_iterator([*texts, "system user assistant"] * 4, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
    )
    fast.chat_template = TEMPLATE
    return fast


def make_model(tokenizer: Any, source: TinySource) -> LlamaForCausalLM:
    """A random Llama of the sizes in `source`, in evaluation mode."""
    torch.manual_seed(source.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=source.hidden_size,
        intermediate_size=source.intermediate_size,
        num_hidden_layers=source.layers,
        num_attention_heads=source.heads,
        num_key_value_heads=source.key_value_heads,
        max_position_embeddings=source.context,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config).eval()


def _read(tokenizer: Any, lesson: Lesson) -> tuple[list[int], list[int]]:
    """Ids and labels of a lesson; labels are what is taught of the reply, and its end."""
    _, given = render_request(tokenizer, [], lesson.request, lesson.opening)
    rest = [*encode_text(tokenizer, lesson.rest), tokenizer.eos_token_id]
    return given + rest, [-100] * len(given) + rest


def _loss_sum(model: Any, rows: list[tuple[list[int], list[int]]]) -> Tensor:
    """Cross entropy summed over the labels of ids and labels of several lessons."""
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([row + [0] * (width - len(row)) for row, _ in rows])
    labels = torch.tensor([row + [-100] * (width - len(row)) for _, row in rows])[:, 1:]
    hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
    labelled = labels != -100
    return cross_entropy(model.lm_head(hidden[labelled]), labels[labelled], reduction="sum")


def teach(model: Any, tokenizer: Any, protocols: tuple[Protocol, ...], source: TinySource) -> None:
    """Train all weights of `model` on lessons of every kind, with more and more filler."""
    rng = random.Random(source.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=source.learning_rate)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, source.steps)
    interval = 1.0 if sys.stderr.isatty() else 15.0
    model.train()
    for step in tqdm(range(source.steps), desc="tiny model", unit="step", mininterval=interval):
        longest = 1 + source.longest_filler * step // source.steps
        taught = [one for protocol in protocols for one in lessons(rng, protocol, longest)]
        rows = sorted((_read(tokenizer, lesson) for lesson in taught), key=lambda row: len(row[0]))
        count = sum(label != -100 for _, labels in rows for label in labels)
        for start in range(0, len(rows), ALIKE):
            loss = _loss_sum(model, rows[start : start + ALIKE]) / count
            loss.backward()  # type: ignore[no-untyped-call]  # torch
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        decay.step()
    model.eval()


def build(source: TinySource, protocols: tuple[Protocol, ...] = PROTOCOLS) -> tuple[Any, Any]:
    """A model that has learnt `protocols`, and its tokenizer."""
    tokenizer = make_tokenizer(protocols, source.vocabulary_size)
    model = make_model(tokenizer, source)
    teach(model, tokenizer, protocols, source)
    return model, tokenizer
