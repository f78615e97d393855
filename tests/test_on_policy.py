"""On-policy distillation: its loss by hand and against dense references, its states and samples."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import kl_div

from gcd.core.chat import prompt_ids, render
from gcd.core.decoding import decode, make_chooser
from gcd.core.errors import UserError
from gcd.core.records import PseudoConversation
from gcd.core.shared_prefix import attach_prefix, compute_prefix
from gcd.training.divergence import divergence_sum
from gcd.training.flops import count_flops
from gcd.training.lora import attach_lora
from gcd.training.losses import pack, read_adapted
from gcd.training.on_policy import (
    Replies,
    State,
    draw_states,
    entropy_sum,
    on_policy_loss_sums,
    on_policy_term,
    reply_flops,
    top_k_divergence,
    turn_states,
)
from gcd.training.settings import OnPolicySettings
from gcd.training.terms import Visit
from tests import tiny
from tests.test_multiple_processes import (
    miniature,  # noqa: F401  (a fixture)
)
from tests.test_training import SETTINGS as TRAIN

SETTINGS = OnPolicySettings(
    steps=4, batch_size=2, learning_rate=0.01, temperature=1.0, max_new_tokens=8, top_k=5
)
PROMPT = [tiny.system("Answer with one word, always in capital letters.")]
MESSAGES = [
    tiny.user("How many files?"),
    tiny.assistant("Act: bash"),
    tiny.user("OS: 3"),
    tiny.assistant("Act: answer(3)"),
]
CONVERSATION = PseudoConversation(index=0, messages=MESSAGES, end="committed")


def log_softmax(*rows: list[float]) -> Tensor:
    return torch.tensor(rows).log_softmax(-1)


def full_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    return kl_div(teacher, student, log_target=True, reduction="none").sum(-1)


# --- The loss ------------------------------------------------------------------------------------


def test_divergence_by_hand() -> None:
    """Student 1/2, 1/4, 1/8, 1/8, teacher 1/4, 1/4, 3/8, 1/8; the top two, and 1/4 against 1/2."""
    student = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    teacher = torch.tensor([[0.25, 0.25, 0.375, 0.125]]).log()
    expected = 0.5 * math.log(2) + 0.25 * math.log(0.25 / 0.5)
    assert top_k_divergence(student, teacher, 2).item() == pytest.approx(expected)


def test_the_whole_vocabulary_is_the_full_divergence_and_less_is_less() -> None:
    torch.manual_seed(0)
    student, teacher = (torch.randn(6, 20).log_softmax(-1) for _ in range(2))
    full = full_divergence(student, teacher)
    values = [top_k_divergence(student, teacher, k) for k in (1, 5, 19, 20, 100)]
    # Every bucket of more than one token can only hide a difference; one of one token hides none.
    assert torch.allclose(values[2], full)
    assert torch.equal(values[3], values[4])
    assert torch.allclose(values[3], full)
    assert (values[0] < values[1]).all()
    assert (values[1] < full).all()


def test_equal_distributions_have_no_divergence_and_no_gradient() -> None:
    student = log_softmax([1.0, 2.0, 0.0, -1.0], [50.0, 0.0, -50.0, 0.0]).requires_grad_()
    value = top_k_divergence(student, student.detach(), 2)
    assert torch.equal(value, torch.zeros(2))
    [gradient] = torch.autograd.grad(value.sum(), student)
    assert torch.isfinite(gradient).all()


def test_gradient_against_a_dense_reference(model: Any) -> None:
    """Through the head, block by block, and as autograd has it of the definition."""
    torch.manual_seed(0)
    hidden, teacher = 30 * torch.randn(2, 300, 64)  # far from uniform
    hidden.requires_grad_()
    weight = model.lm_head.weight.detach()
    scores, target = ((states @ weight.t()).softmax(-1) for states in (hidden, teacher))
    chosen = scores.topk(7).indices
    own, other = (part.gather(-1, chosen) for part in (scores, target))
    rest, other_rest = (1 - part.sum(-1) for part in (own, other))
    dense = (own * (own / other).log()).sum() + (rest * (rest / other_rest).log()).sum()
    made = divergence_sum(model, hidden, teacher, partial(top_k_divergence, top_k=7))
    assert made.item() == pytest.approx(dense.item(), rel=1e-4)
    expected, found = (torch.autograd.grad(value, hidden)[0] for value in (dense, made))
    assert torch.allclose(found, expected, atol=1e-5)
    assert expected.abs().max() > 1e-3


def test_entropy_of_a_uniform_and_of_a_certain_model(model: Any) -> None:
    """log V a token behind states of zeros; 0 where one logit is far above all others."""
    size = model.lm_head.weight.shape[0]
    assert entropy_sum(model, torch.zeros(200, 64)).item() == pytest.approx(200 * math.log(size))
    weight = model.lm_head.weight.detach()
    certain = weight[:1] / weight[:1].norm() ** 2 * 1e4
    assert entropy_sum(model, certain).item() == pytest.approx(0.0, abs=1e-6)


# --- States ---------------------------------------------------------------------------------------


def test_states_end_where_assistant_turns_begin(tokenizer: Any) -> None:
    """As the whole conversation has it, alone and behind the prompt."""
    first, second = turn_states(tokenizer, PROMPT, CONVERSATION, 1000)
    rendered = render(tokenizer, MESSAGES, generation_header=False)
    starts = [
        place
        for place, flag in enumerate(rendered.supervised)
        if flag and not rendered.supervised[place - 1]
    ]
    assert [first.plain, second.plain] == [rendered.ids[:start] for start in starts]
    whole = render(tokenizer, [*PROMPT, *MESSAGES], generation_header=False).ids
    prompt = prompt_ids(tokenizer, PROMPT)
    for state in (first, second):
        behind = prompt + state.behind
        assert whole[: len(behind)] == behind
    assert turn_states(tokenizer, PROMPT, CONVERSATION, len(second.plain) - 1) == [first]


def test_states_are_drawn_from_all_conversations_and_turns() -> None:
    choices = [[State([index, turn], []) for turn in range(index)] for index in range(4)]
    drawn = draw_states(choices, 60, seed=0)
    assert len(drawn) == 60
    assert draw_states(choices, 60, seed=0) == drawn != draw_states(choices, 60, seed=1)
    for start in range(0, 60, 3):  # the first conversation has no state; each other once a pass
        assert sorted(state.plain[0] for state in drawn[start : start + 3]) == [1, 2, 3]
    assert {tuple(state.plain) for state in drawn} == {(i, t) for i in range(4) for t in range(i)}
    with pytest.raises(UserError, match="No pseudo conversation leaves room for a reply"):
        draw_states([[], []], 4, seed=0)


# --- Replies --------------------------------------------------------------------------------------


@pytest.fixture
def student(model: Any) -> Any:
    """A LoRA student that differs from its base."""
    torch.manual_seed(0)
    adapted = attach_lora(model, TRAIN, four_bit=False, seed=0)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.2)
    return adapted.train()


def make_replies(student: Any, tokenizer: Any, **changes: Any) -> Replies:
    settings = SETTINGS.model_copy(update=changes)
    with student.disable_adapter():
        prefix = compute_prefix(student.get_base_model(), prompt_ids(tokenizer, PROMPT))
    states = turn_states(tokenizer, PROMPT, CONVERSATION, 1000)
    return Replies(student, tokenizer, prefix, states, settings, batch_tokens=1000)


def visits(replies: Replies, *streams: str) -> list[Visit]:
    state = on_policy_term(replies, replies._states, SETTINGS).examples[1]
    return [Visit(state, 1, stream) for stream in streams]


def test_replies_are_named_by_their_stream(student: Any, tokenizer: Any) -> None:
    """The same again, in another batch too; another stream says something else."""
    replies = make_replies(student, tokenizer)
    a, b = replies.visit(visits(replies, "a", "b"))
    assert a.ids != b.ids
    assert [example.ids for example in replies.visit(visits(replies, "b", "a"))] == [b.ids, a.ids]
    assert replies.visit(visits(replies, "a"))[0].ids == a.ids
    one_by_one = make_replies(student, tokenizer)
    one_by_one._batch_tokens = 1
    assert [example.ids for example in one_by_one.visit(visits(replies, "a", "b"))] == [
        a.ids,
        b.ids,
    ]
    assert student.training


def test_a_reply_follows_its_state_and_a_cut_one_has_no_last_label(
    student: Any, tokenizer: Any
) -> None:
    """As cold as this the student says what is most probable: no end token in 8 tokens."""
    replies = make_replies(student, tokenizer, temperature=1e-4)
    [example] = replies.visit(visits(replies, "a"))
    state = replies._states[1].plain
    assert example.ids[: len(state)] == state
    ids = torch.tensor([state])
    student.eval().get_base_model().set_attn_implementation("sdpa")
    for token in example.ids[len(state) :]:
        assert student(input_ids=ids).logits[0, -1].argmax() == token
        ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
    assert tokenizer.eos_token_id not in example.ids[len(state) :]
    assert example.supervised == [False] * len(state) + [True] * 7 + [False]


def test_a_finished_reply_counts_with_its_end(
    student: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies = make_replies(student, tokenizer)
    reply = [5, 6, tokenizer.eos_token_id]
    monkeypatch.setattr(replies, "_sample", lambda base, visits: [reply])
    [example] = replies.visit(visits(replies, "a"))
    assert example.ids[-3:] == reply
    assert example.supervised[-3:] == [True] * 3
    assert example.teacher is not None
    assert example.teacher.shape == (3, 64)


def test_the_teacher_is_the_prompted_base_without_the_adapter(student: Any, tokenizer: Any) -> None:
    """Its logits are those of a plain forward pass over prompt, conversation and reply."""
    replies = make_replies(student, tokenizer)
    [example] = replies.visit(visits(replies, "a"))
    base = student.get_base_model()
    reply = example.ids[len(replies._states[1].plain) :]
    whole = [*prompt_ids(tokenizer, PROMPT), *replies._states[1].behind, *reply]
    plain = tiny.make_model(tokenizer)
    assert base is not plain
    logits = plain(input_ids=torch.tensor([whole])).logits[0, -len(reply) - 1 : -1]
    assert example.teacher is not None
    made = example.teacher @ plain.lm_head.weight.t()
    assert torch.allclose(made, logits[: len(made)], atol=1e-4)
    # The student differs, by its adapter and by what it reads.
    hidden = read_adapted(student, pack([example], torch.device("cpu")))
    assert not torch.allclose(hidden, example.teacher, atol=0.1)


def test_losses_are_those_of_a_plain_forward_pass(student: Any, tokenizer: Any) -> None:
    """Divergence over the whole vocabulary and entropy, from transformers' own logits."""
    replies = make_replies(student, tokenizer)
    examples = replies.visit(visits(replies, "a", "b"))
    student.eval()
    sums = on_policy_loss_sums(10**6, student, pack(examples, torch.device("cpu")))
    student.get_base_model().set_attn_implementation("sdpa")
    divergence = entropy = 0.0
    for example in examples:
        logits = student(input_ids=torch.tensor([example.ids])).logits[0]
        scores = logits[[label - 1 for label in example.labels]].log_softmax(-1)
        assert example.teacher is not None
        target = (example.teacher @ student.get_base_model().lm_head.weight.t()).log_softmax(-1)
        divergence += full_divergence(scores, target).sum().item()
        entropy -= (scores.exp() * scores).sum().item()
    assert sums.tolist() == pytest.approx([divergence, entropy], rel=1e-4)


@pytest.mark.parametrize(("state", "reply"), [(7, 1), (5, 4)])
def test_flops_of_sampling_are_what_torch_counts(student: Any, state: int, reply: int) -> None:
    base = student.eval().get_base_model()
    attach_prefix(base, None)
    with count_flops() as counter:
        decode(base, 0, [list(range(3, 3 + state))], reply, set(), make_chooser(None, [0]), list)
    assert reply_flops(base, state, reply) == counter.get_total_flops()
