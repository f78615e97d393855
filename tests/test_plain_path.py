"""On the real model: our fast paths give what plain transformers and peft give.

Greedy replies to prompted conversations over two turns, with and without sessions; loss and
gradients of a training step.
"""

from typing import Any

import pytest
import torch

from benchmarks.reference import attach_plain_lora, load_plain, pad_right, reply
from gcd.core.base_model import load_base
from gcd.core.chat import render
from gcd.core.language_model import LanguageModel
from gcd.core.params import Params, read_params
from gcd.core.prompt import parse_prompt, read_prompt_text
from gcd.core.records import Conversation
from gcd.core.sessions import Sessions
from gcd.training.lora import attach_lora
from gcd.training.losses import Example, pack, token_loss_sum
from tests.conftest import ROOT
from tests.tiny import assistant, user

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (ROOT / "models/base/model.json").exists(),
        reason="needs the prepared model: run `dvc repro prepare_model`",
    ),
]
PROMPT = ROOT / "data/prompts/os_interaction.md"
OPENED = [
    [user("Problem: How many files are in /etc?")],
    [user("Problem: Write the word tulip into the file /home/garden/spring.txt.")],
    [user("Problem: What is the last line of the file /var/log/boot.log, and who owns that file?")],
]
OBSERVED = ["The output of the OS:\n\n7", "The output of the OS:\n\n", "The output of the OS: none"]
NEW_TOKENS = 24


@pytest.fixture(scope="module", autouse=True)
def in_the_repository() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield


@pytest.fixture(scope="module")
def params() -> Params:
    return read_params("seed", "model", "train")


def next_turn(conversations: list[Conversation], texts: list[str]) -> list[Conversation]:
    """Each conversation with its reply and what the environment shows then."""
    parts = zip(conversations, texts, OBSERVED, strict=True)
    return [[*messages, assistant(text), user(shown)] for messages, text, shown in parts]


def test_greedy_replies_are_those_of_plain_generate(params):
    prompt = parse_prompt(read_prompt_text(PROMPT), str(PROMPT))
    base, tokenizer = load_base(params.model)
    plain = load_plain(params.model)
    ours = LanguageModel(base, tokenizer, params.model, None)
    sessions = Sessions()
    conversations = OPENED
    for _ in range(2):
        alone = [
            reply(plain, tokenizer, [[*prompt, *messages]], NEW_TOKENS)[0][0]
            for messages in conversations
        ]
        for kept in (None, sessions):
            made = ours.generate(
                prompt,
                conversations,
                max_new_tokens=NEW_TOKENS,
                progress="agent",
                sessions=kept,
            )
            assert [one and one.text for one in made] == alone
        conversations = next_turn(conversations, alone)


def test_a_training_step_has_the_loss_and_gradients_of_the_plain_one(params):
    """Packed without padding and logits at labels only, against padded with all logits."""
    base, tokenizer = load_base(params.model)
    talks = next_turn(OPENED, ["Think: I use ls.", "Think: I use echo.", "Think: I use tail."])
    rendered = [
        render(tokenizer, [*talk, assistant("Act: finish")], generation_header=False)
        for talk in talks
    ]
    examples = [Example(one.ids, one.supervised) for one in rendered]
    models = [
        attach_lora(base, params.train, four_bit=False, seed=params.seed),
        attach_plain_lora(load_plain(params.model), params.train, params.seed),
    ]
    weights = [
        {name: value for name, value in model.named_parameters() if value.requires_grad}
        for model in models
    ]
    draw = torch.Generator().manual_seed(0)
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name])
        # LoRA's B begins at zero, and A has no gradient then.
        noise = 0.02 * torch.randn(value.shape, generator=draw)
        value.data += noise
        weights[1][name].data += noise
    labels = sum(example.label_count for example in examples)
    ours = token_loss_sum(models[0], pack(examples, torch.device("cpu"))) / labels
    ours.backward()
    ids, mask, targets = pad_right(examples)
    plain = models[1](input_ids=ids, attention_mask=mask, labels=targets).loss
    plain.backward()
    assert ours.item() == pytest.approx(plain.item(), rel=1e-5)
    for name, value in weights[0].items():
        expected = weights[1][name].grad
        assert expected is not None and value.grad is not None
        scale = expected.abs().max()
        assert scale > 0
        assert (value.grad - expected).abs().max() < 1e-3 * scale, name
