"""A conversation's second turn reads only what is new, and replies as if it had read it all."""

from typing import Any

import pytest
import torch

from gcd.core.language_model import LanguageModel
from gcd.core.sessions import Sessions, common_length
from gcd.core.settings import ModelSettings
from tests.tiny import assistant, system, user

PROMPT = [system("You work in a shell, and count files."), user("apple"), assistant("birch")]
SETTINGS = ModelSettings(quantization="none", dtype="float32", batch_tokens=100_000)


@pytest.fixture
def counted(model):
    """The model, and the number of tokens that each forward pass read (rows x length)."""
    read: list[int] = []
    forward = model.forward

    def count(*arguments, **options):
        read.append(options["input_ids"].numel())
        return forward(*arguments, **options)

    model.forward = count
    yield model, read
    del model.forward


def play(model: Any, tokenizer: Any, prompt: Any, sessions: Any, settings: Any = SETTINGS) -> Any:
    """Three turns of four conversations of different lengths, the last of which ends early."""
    agent = LanguageModel(model, tokenizer, settings, None)
    conversations = [[user("cedar " * n)] for n in (9, 1, 4, 2)]
    texts: list[Any] = []
    for turn in range(3):
        replies: Any = agent.generate(
            prompt, conversations, max_new_tokens=12, progress="test", sessions=sessions
        )
        assert None not in replies
        texts.append([(reply.text, reply.context_tokens) for reply in replies])
        conversations = [
            [*conversation, assistant(reply.text or "fern"), user(f"grape {turn} " * (place + 1))]
            for place, (conversation, reply) in enumerate(zip(conversations, replies, strict=True))
        ][: 4 - turn]
    return texts


@pytest.mark.parametrize("prompt", [PROMPT, []])
@pytest.mark.parametrize("batch_tokens", [100_000, 1])
def test_replies_are_those_of_reading_everything(model, tokenizer, prompt, batch_tokens):
    settings = SETTINGS.model_copy(update={"batch_tokens": batch_tokens})
    expected = play(model, tokenizer, prompt, None)
    assert play(model, tokenizer, prompt, Sessions(), settings) == expected


def test_only_what_is_new_is_read(counted, tokenizer):
    """In the later turns, the passes that read contexts are much smaller."""
    model, read = counted
    play(model, tokenizer, PROMPT, None)
    without = sum(read)
    read.clear()
    play(model, tokenizer, PROMPT, Sessions())
    assert sum(read) < 0.8 * without


def test_the_last_token_is_always_read():
    """Its logits open the reply, even where everything is held."""
    sessions: Any = Sessions()
    pair = (torch.arange(8.0).reshape(1, 4, 2), torch.zeros(1, 4, 2))
    sessions.hold([5, 6, 7, 8], 2, [pair])
    assert sessions.find([5, 6, 7, 8]) is None  # of this call, not of the last
    sessions.begin()
    [(keys, _)] = sessions.find([5, 6, 7, 8])
    assert keys.tolist() == pair[0][:, :3].tolist()
    [(keys, _)] = sessions.find([5, 6, 9, 8, 1])  # the reply, 7 8, came back as other ids
    assert keys.tolist() == pair[0][:, :2].tolist()
    assert sessions.find([5, 4, 7, 8, 1]) is None  # another context
    sessions.begin()
    assert sessions.find([5, 6, 7, 8]) is None


def test_common_length():
    assert common_length([1, 2, 3], [1, 2, 4, 5]) == 2
    assert common_length([1, 2], [1, 2, 3]) == 2
    assert common_length([], [1]) == 0
    assert common_length([2], [1]) == 0
