"""Batched decoding behind a shared prompt gives what the plain model gives, whatever the batch."""

import pytest
import torch

from gcd.core.decoding import Sampling, decode, draw_from_nucleus, make_chooser
from gcd.core.errors import UserError
from gcd.core.journal import Journal
from gcd.core.language_model import LanguageModel
from gcd.core.settings import ModelSettings
from gcd.core.shared_prefix import Prefix, attach_prefix, compute_prefix
from tests.tiny import assistant, make_model, system, user

PROMPT = [system("You work in a shell, and count files."), user("apple"), assistant("birch")]
CONVERSATIONS = [
    [user("cedar " * n), *([assistant("fern"), user("grape")] if n % 2 else [])]
    for n in range(1, 8)
]


def language_model(model, tokenizer, batch_tokens, journal=None):
    settings = ModelSettings(quantization="none", dtype="float32", batch_tokens=batch_tokens)
    return LanguageModel(model, tokenizer, settings, journal)


def plain_greedy(model, ids, new_tokens, stop):
    """No cache, no batch, no shared prompt: the definition."""
    made: list[int] = []
    for _ in range(new_tokens):
        with torch.no_grad():
            token = int(model(input_ids=torch.tensor([ids + made])).logits[0, -1].argmax())
        made.append(token)
        if token == stop:
            break
    return made


def test_shared_prompt_equals_the_plain_model(model, tokenizer):
    prompt = tokenizer.encode("the quick brown fox " * 5)
    suffixes = [tokenizer.encode(text) for text in ("a", "some longer text", "b c d")]
    stop = tokenizer.eos_token_id
    expected = [plain_greedy(model, prompt + suffix, 12, stop) for suffix in suffixes]
    attach_prefix(model, compute_prefix(model, prompt))
    made = decode(
        model, len(prompt), suffixes, 12, {stop}, make_chooser(None, [0, 1, 2]), lambda: None
    )
    assert made == expected


@pytest.mark.parametrize("sampling", [None, Sampling(temperature=1.0, top_p=0.9, seed="s")])
def test_replies_do_not_depend_on_the_batch(model, tokenizer, sampling):
    """One batch of everything, and batches of one: the same replies."""
    made = [
        language_model(model, tokenizer, tokens).generate(
            PROMPT, CONVERSATIONS, max_new_tokens=20, progress="test", sampling=sampling
        )
        for tokens in (100_000, 1)
    ]
    assert made[0] == made[1]


def test_sampling_depends_on_the_seed_and_repeats(model, tokenizer):
    def sample(seed):
        return language_model(model, tokenizer, 10_000).generate(
            [],
            CONVERSATIONS,
            max_new_tokens=20,
            progress="test",
            sampling=Sampling(temperature=1.0, top_p=0.9, seed=seed),
        )

    assert sample("a") == sample("a")
    assert sample("a") != sample("b")


def test_nucleus_of_a_hand_made_distribution():
    """0.5, 0.3, 0.2 with top_p 0.6: the set {0, 1} reaches it, 2 is never drawn."""
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2]])).repeat(2000, 1)
    chooser = make_chooser(Sampling(temperature=1.0, top_p=0.6, seed="x"), list(range(2000)))
    drawn = chooser(logits, list(range(2000)))
    assert set(drawn) == {0, 1}
    assert drawn.count(0) / 2000 == pytest.approx(0.5 / 0.8, abs=0.04)


def whole_sort(probabilities, draws, top_p):
    """The definition, one row at a time, in Python's own numbers."""
    chosen = []
    for row, draw in zip(probabilities.tolist(), draws[:, 0].tolist(), strict=True):
        nucleus, total = [], 0.0
        for token in sorted(range(len(row)), key=lambda token: (-row[token], token)):
            if total >= top_p:
                break
            nucleus.append(token)
            total += row[token]
        reached = 0.0
        for token in nucleus:
            reached += row[token]
            if draw * total < reached:
                break
        chosen.append(token)
    return chosen


@pytest.mark.parametrize("spread", [0.0, 0.5, 4.0])
def test_candidates_give_what_sorting_the_vocabulary_gives(spread):
    """Flat rows overflow the candidates, peaked ones do not; equal probabilities are everywhere."""
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 9, (64, 1000), generator=generator).double() / 8
    probabilities = torch.softmax(levels * spread * 4, dim=-1)
    draws = torch.rand(64, 1, generator=generator, dtype=torch.float64)
    made = draw_from_nucleus(probabilities, draws, 0.9)
    assert made.tolist() == whole_sort(probabilities, draws, 0.9)
    one_by_one = [
        draw_from_nucleus(probabilities[row : row + 1], draws[row : row + 1], 0.9).item()
        for row in range(64)
    ]
    assert made.tolist() == one_by_one


def test_a_draw_that_rounds_to_one_stays_in_the_nucleus():
    probabilities = torch.tensor([[0.2, 0.5, 0.3]])
    assert draw_from_nucleus(probabilities, torch.ones(1, 1), 0.6).tolist() == [2]


def test_low_temperature_is_greedy():
    logits = torch.tensor([[0.0, 1.0, 0.9]])
    assert make_chooser(Sampling(temperature=0.01, top_p=1.0, seed="x"), [0])(logits, [0]) == [1]


def test_conversation_that_does_not_fit_gives_none(model, tokenizer):
    made = language_model(model, tokenizer, 1000).generate(
        [], [[user("apple " * 3000)], [user("a")]], max_new_tokens=5, progress="test"
    )
    assert made[0] is None
    assert made[1] is not None


def test_prompt_longer_than_the_context_is_refused(model, tokenizer):
    with pytest.raises(UserError, match=r"The prompt has \d+ tokens and a reply .* holds 2048"):
        language_model(model, tokenizer, 1000).generate(
            [system("apple " * 3000)], [[user("a")]], max_new_tokens=5, progress="test"
        )


def test_attention_that_the_shared_form_does_not_reproduce_is_refused(tokenizer, monkeypatch):
    model = make_model(tokenizer)
    monkeypatch.setattr(
        "gcd.core.shared_prefix.attach_prefix",
        lambda base, prefix: attach_prefix(
            base, Prefix(prefix.ids, [(keys * 0, values) for keys, values in prefix.layers])
        ),
    )
    with pytest.raises(UserError, match="not supported"):
        compute_prefix(model, tokenizer.encode("the quick brown fox " * 5))


def test_journal_gives_back_what_was_generated(model, tokenizer, tmp_path):
    """Replies come from the journal where it has them: a killed stage repeats nothing."""
    path = tmp_path / "replies.jsonl"
    first = language_model(model, tokenizer, 90, Journal(path)).generate(
        PROMPT, CONVERSATIONS, max_new_tokens=20, progress="test"
    )
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) > 2
    path.write_text("".join(lines[:2]))
    broken = make_model(tokenizer)
    calls = []
    forward = broken.forward

    def counted(*arguments, **settings):
        calls.append(1)
        return forward(*arguments, **settings)

    broken.forward = counted
    again = language_model(broken, tokenizer, 90, Journal(path))
    assert again.generate(PROMPT, CONVERSATIONS, max_new_tokens=20, progress="test") == first
    assert path.read_text().splitlines(keepends=True) == lines
    calls.clear()
    done = language_model(broken, tokenizer, 90, Journal(path))
    assert done.generate(PROMPT, CONVERSATIONS, max_new_tokens=20, progress="test") == first
    assert not calls
