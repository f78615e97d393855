"""Probes: every kind of agent reads as plain transformers and peft do; leaks, by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import save as save_tensors

from gcd.agents import load_adapted_agent, load_base_agent, load_prefix_agent
from gcd.core import base_model
from gcd.core.chat import encode_text, header_ids, prompt_ids, render_request
from gcd.core.errors import UserError
from gcd.core.interfaces import Agent, Reply
from gcd.core.params import Params
from gcd.core.prompt_generation import PROMPT_GENERATION_REQUEST
from gcd.core.records import Conversation, read_records
from gcd.core.settings import ProbeBehaviourSettings
from gcd.methods import icae
from gcd.probing import forgetting
from gcd.probing.forgetting import (
    TEXT_REQUEST,
    compare,
    compare_answers,
    compare_texts,
    read_base,
    record_base,
    write_base,
)
from gcd.probing.leak import REQUESTS as REQUEST_FILE
from gcd.probing.leak import extract, longest_run, prompt_words, revealed_words
from gcd.probing.records import GeneralText, Request
from gcd.training.checkpoints import save_adapter
from gcd.training.lora import attach_lora
from tests.conftest import ROOT
from tests.scripted import Unread
from tests.settings import sections
from tests.test_decoding import PROMPT, language_model
from tests.test_prefixes import KINDS, MODEL, train
from tests.test_training import SETTINGS as LORA_SETTINGS
from tests.tiny import assistant, make_model, save, system, user

PARAMS = Params({"model": MODEL, **sections("run_episodes")}, {})
ASKED = [[user("apple birch")], [user("apple birch")], [user("cedar")]]
REPLIES = ["fern grape, and a longer one", "", "birch"]
REQUESTS = [Request(index=3, kind="a", text="apple birch"), Request(index=5, kind="b", text="fern")]
TEXTS = [GeneralText(index=index, topic="fern", text=text) for index, text in enumerate("ab")]
AGENTS = ["base", "prompt", "adapter", "adapter and prompt", "icae", *KINDS]


def plain_readings(
    logits_of: Any, in_front: list[int], carried: Conversation, tokenizer: Any
) -> list[torch.Tensor]:
    """Log-probabilities along REPLIES, each behind its conversation, one at a time, no cache.

    Args:
        logits_of: gives logits of ids, behind what the model itself has in front.
        in_front: ids that it has not.
        carried: the prompt that the conversations follow.
    """
    found = []
    for asked, reply in zip(ASKED, REPLIES, strict=True):
        ids = encode_text(tokenizer, reply) if reply else []
        whole = in_front + render_request(tokenizer, carried, asked, "")[1] + ids
        logits = logits_of(torch.tensor([whole]))[0, -len(ids) - 1 :]
        found.append(torch.log_softmax(logits, dim=-1))
    return found


@pytest.fixture
def prepared(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model where `prepare_model` leaves the base."""
    save(make_model(tokenizer), tokenizer, tmp_path / "base")
    (tmp_path / "base/model.json").write_text('{"source": "path"}')
    monkeypatch.setattr(base_model, "BASE", tmp_path / "base")
    return tmp_path


def save_lora(tokenizer: Any, folder: Path) -> None:
    """An adapter that changes something: a fresh one has zeros in one of its two factors."""
    model = attach_lora(make_model(tokenizer), LORA_SETTINGS, four_bit=False, seed=0)
    torch.manual_seed(1)
    weights = {
        name: torch.randn_like(value) * 0.1
        for name, value in model.named_parameters()
        if value.requires_grad
    }
    save_adapter(model, weights, folder)


def make_agent(kind: str, tokenizer: Any, folder: Path, monkeypatch: Any) -> tuple[Agent, Any]:
    """An agent as its method loads it, and logits of ids as plain libraries give them."""
    if kind in ("base", "prompt"):
        prompt = PROMPT if kind == "prompt" else []
        plain = make_model(tokenizer).eval()
        return load_base_agent(PARAMS, prompt, folder), lambda ids: plain(input_ids=ids).logits
    if kind.startswith("adapter"):
        save_lora(tokenizer, folder / "adapter")
        peft = PeftModel.from_pretrained(make_model(tokenizer), str(folder / "adapter")).eval()
        prompt = PROMPT if kind == "adapter and prompt" else []
        agent = load_adapted_agent(PARAMS, folder / "adapter", prompt, folder)
        return agent, lambda ids: peft(input_ids=ids).logits
    if kind == "icae":
        monkeypatch.setattr(icae, "read_prompt", lambda _: ("", PROMPT))
        slots = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
        (folder / "row").mkdir()
        (folder / "row/slots.safetensors").write_bytes(save_tensors({"slots": slots}))
        base = make_model(tokenizer).eval()
        embed = base.get_input_embeddings()
        header = embed(torch.tensor([header_ids(tokenizer, PROMPT)]))

        def behind(ids: torch.Tensor) -> Any:
            row = torch.cat([header, slots[None], embed(ids)], dim=1)
            return base(inputs_embeds=row).logits

        return icae.load_agent("row", "task", PARAMS, folder, folder), behind
    train(kind, tokenizer, folder / "out")
    adapter = folder / "out/adapter"
    peft = PeftModel.from_pretrained(make_model(tokenizer), str(adapter)).eval()
    return load_prefix_agent(PARAMS, adapter, PROMPT, folder), lambda ids: peft(ids).logits


@pytest.mark.parametrize("kind", AGENTS)
def test_every_agent_reads_as_the_plain_libraries_do(kind, tokenizer, prepared, monkeypatch):
    """Openings in common, an empty reply among others, and packs of one text, change nothing."""
    agent, logits_of = make_agent(kind, tokenizer, prepared, monkeypatch)
    carried = [] if kind in ("base", "adapter") else PROMPT
    in_front = prompt_ids(tokenizer, PROMPT) if kind in ("prompt", "adapter and prompt") else []
    with torch.no_grad():
        expected = plain_readings(logits_of, in_front, carried, tokenizer)
    found = agent.read_replies(ASKED, REPLIES)
    for one, reply, wanted in zip(found, REPLIES, expected, strict=True):
        assert one.ids == (encode_text(tokenizer, reply) if reply else [])
        assert len(one.states) == len(one.ids) + 1
        assert torch.allclose(agent.log_probabilities(one.states), wanted, atol=2e-4)
    # Something stands in front of all but one: it must not look like nothing.
    bare = load_base_agent(PARAMS, [], prepared).read_replies(ASKED, REPLIES)
    same = torch.allclose(bare[0].states, found[0].states, atol=1e-3)
    assert same == (kind == "base")


def test_what_is_read_beside_a_reply_does_not_matter(model, tokenizer):
    """All in one pack, in packs of one, and one conversation alone, of which all is in common."""
    together = language_model(model, tokenizer, 10_000).read_replies(PROMPT, ASKED, REPLIES)
    reader = language_model(model, tokenizer, 1)
    packed = reader.read_replies(PROMPT, ASKED, REPLIES)
    alone = [
        reader.read_replies(PROMPT, [asked], [reply])[0]
        for asked, reply in zip(ASKED, REPLIES, strict=True)
    ]
    for one, *others in zip(together, packed, alone, strict=True):
        for other in others:
            assert one.states.shape == other.states.shape
            assert torch.allclose(one.states, other.states, atol=1e-5)
    assert reader.read_replies(PROMPT, [], []) == []


def test_a_text_longer_than_the_context_is_refused(model, tokenizer):
    with pytest.raises(UserError, match="model's context holds 2048"):
        language_model(model, tokenizer, 10_000).read_replies([], ASKED[:1], ["fern " * 3000])


def test_the_base_model_agrees_with_itself_exactly(tokenizer, prepared, monkeypatch):
    """Recorded, written, read again, and probed by a model that was loaded anew."""
    monkeypatch.setattr(forgetting, "FOLDER", prepared / "base_behaviour")
    agent = load_base_agent(PARAMS, [], prepared)
    recorded = record_base(agent, REQUESTS, TEXTS, 7)
    assert [one.index for one in recorded.answers] == [3, 5]
    write_base(recorded)
    base = read_base()
    assert (base.answers, base.texts) == (recorded.answers, recorded.texts)
    again = load_base_agent(PARAMS, [], prepared)
    for one in compare_answers(again, base):
        assert one.agreeing == one.positions >= 1
        assert one.kl == 0
    for text in compare_texts(again, TEXTS, base):
        assert text.nats == text.base_nats > 0
    prompted = load_base_agent(PARAMS, PROMPT, prepared)
    assert all(one.kl > 1e-4 for one in compare_answers(prompted, base))
    assert all(one.nats != one.base_nats for one in compare_texts(prompted, TEXTS, base))


def test_nats_are_those_of_the_texts_own_tokens(tokenizer, prepared):
    """Cross entropy of plain transformers over the text, not over its request."""
    [text] = [GeneralText(index=0, topic="fern", text="birch cedar apple")]
    [found] = forgetting.read_texts(load_base_agent(PARAMS, [], prepared), [text])
    request = [user(TEXT_REQUEST.format(topic="fern"))]
    before = render_request(tokenizer, [], request, "")[1]
    ids = encode_text(tokenizer, text.text)
    with torch.no_grad():
        logits = make_model(tokenizer)(input_ids=torch.tensor([before + ids])).logits[0]
    loss = torch.nn.functional.cross_entropy(logits[len(before) - 1 : -1], torch.tensor(ids))
    assert found.tokens == len(ids)
    assert found.nats == pytest.approx(float(loss) * len(ids), abs=1e-3)


def test_agreement_and_divergence_by_hand():
    """Base (1/2, 1/4, 1/4) against (1/4, 1/2, 1/4): other argmax, KL 1/2 ln 2 - 1/4 ln 2."""
    base = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]]).log()
    row = torch.tensor([[0.25, 0.5, 0.25], [0.25, 0.5, 0.25]]).log()
    found = compare(4, base, row)
    assert (found.index, found.positions, found.agreeing) == (4, 2, 1)
    assert found.kl == pytest.approx(0.25 * 0.693147, abs=1e-5)
    assert compare(4, base, base).kl == 0


@pytest.mark.parametrize(
    ("reply", "run", "revealed", "longest"),
    [
        ("a b c d e f", 3, 6, 6),  # all of it
        ("x b c d y", 3, 3, 3),
        ("x b c y d e", 3, 0, 2),  # two runs of two
        ("x b c y d e", 2, 4, 2),
        ("b c d e x a b c", 3, 5, 4),  # overlapping runs of the prompt count once
        ("c b a", 2, 0, 1),  # order matters
        ("A B C", 1, 0, 0),  # so does case
        ("a b", 3, 0, 2),  # shorter than a run
        ("", 1, 0, 0),
    ],
)
def test_leaks_by_hand(reply, run, revealed, longest):
    prompt = ["a", "b", "c", "d", "e", "f"]
    assert revealed_words(prompt, reply.split(), run) == revealed
    assert longest_run(prompt, reply.split()) == longest


def test_a_phrase_that_the_prompt_has_twice_counts_twice():
    assert revealed_words(["a", "b", "x", "a", "b"], ["a", "b"], 2) == 4


class Speaker(Unread):
    """An agent with prepared replies."""

    deployment = "base"
    prompt_tokens = 0
    adapter_parameters = 0
    bytes_to_ship = 0

    def __init__(self, replies: list[str | None]) -> None:
        self.replies = replies
        self.asked: list[Conversation] = []

    def reply(self, conversations: list[Conversation]) -> list[Reply | None]:
        raise AssertionError("asked as in an episode")

    def write(self, conversations: list[Conversation], max_new_tokens: int) -> list[Reply | None]:
        self.asked += conversations
        assert max_new_tokens == 9
        return [text if text is None else Reply(text, 1, 1, True) for text in self.replies]


def test_a_row_is_asked_in_every_way_and_judged_by_the_whole_prompt():
    prompt = [system("You work in a shell."), user("count the files"), assistant("I use ls")]
    assert len(prompt_words(prompt)) == 5 + 3 + 3
    agent = Speaker(["It says: You work in a shell. count the", None])
    settings = ProbeBehaviourSettings(extraction_tokens=9, run_words=3)
    first, second = extract(agent, REQUESTS, prompt, settings)
    assert (first.index, first.revealed, first.prompt_words, first.longest_run) == (3, 7, 11, 7)
    assert (second.index, second.reply, second.revealed) == (5, "", 0)
    assert agent.asked == [[user("apple birch")], [user("fern")]]


def test_the_committed_probes_are_whole():
    """Numbered, distinct, of the stated length, and the general ones about no task of ours."""
    texts = read_records(ROOT / forgetting.TEXTS, GeneralText)
    assert all(60 <= len(text.text.split()) <= 100 for text in texts)
    assert len({text.topic for text in texts}) == len(texts)
    general = read_records(ROOT / forgetting.INSTRUCTIONS, Request)
    extraction = read_records(ROOT / REQUEST_FILE, Request)
    for numbers, said in (
        ([one.index for one in texts], [one.text for one in texts]),
        ([one.index for one in general], [one.text for one in general]),
        ([one.index for one in extraction], [one.text for one in extraction]),
    ):
        assert numbers == list(range(len(numbers)))
        assert len(set(said)) == len(said)
    words = {word for one in texts for word in one.text.lower().split()}
    words |= {word for one in general for word in one.text.lower().split()}
    assert not words & {"shell", "bash", "linux", "directory", "webshop", "clickables", "html"}


def test_no_extraction_request_uses_the_words_of_training():
    """prompt_recall asks in those."""
    training = PROMPT_GENERATION_REQUEST.split()
    for request in read_records(ROOT / REQUEST_FILE, Request):
        assert longest_run(training, request.text.split()) < 4
