"""The divergence to the prompted teacher: by hand, against a dense one, end points, its states."""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from gcd.core.chat import prompt_ids
from gcd.core.errors import UserError
from gcd.core.interfaces import load_task
from gcd.core.prompt import parse_prompt
from gcd.core.records import PseudoConversation
from gcd.core.shared_prefix import compute_prefix
from gcd.tiny_model import OS_INTERACTION, WORD
from gcd.training.divergence import (
    choose_divergence,
    divergence_sum,
    forward_divergence,
    imitation_loss_sums,
    jensen_shannon_divergence,
    reverse_divergence,
    with_teacher_states,
)
from gcd.training.examples import behind, conversation_examples, prompted_examples
from gcd.training.lora import attach_lora
from gcd.training.losses import Example, pack, token_loss_sum
from gcd.training.packed_attention import attend_within_examples
from gcd.training.settings import DivergenceSettings
from gcd.training.terms import Term
from gcd.training.trainer import Trainer
from tests.test_training import SETTINGS
from tests.tiny import BASH, NOUNS, assistant, system, user
from tests.tiny import PROMPT as PROMPT_TEXT

CPU = torch.device("cpu")
GENTLE = SETTINGS.model_copy(update={"learning_rate": 0.002})
PROMPT = [system("be brief"), user("the cat"), assistant("the dog")]
CONVERSATIONS = [
    PseudoConversation(index=0, messages=[user("the fox"), assistant("jumps")], end="committed"),
    PseudoConversation(
        index=1,
        messages=[user("the"), assistant("the lazy dog"), user("over"), assistant("brown")],
        end="committed",
    ),
]
KINDS = ["forward", "reverse", "jensen_shannon"]


def settings(kind, share=0.5):
    return DivergenceSettings(kind=kind, teacher_share=share, weight=1.0)


def logs(*probabilities):
    return torch.tensor([probabilities], dtype=torch.float64).log()


def test_by_hand():
    """Student 1/2, 1/2; teacher 3/4, 1/4; the even mixture is 5/8, 3/8."""
    student, teacher = logs(0.5, 0.5), logs(0.75, 0.25)
    forward = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    reverse = 0.5 * math.log(2 / 3) + 0.5 * math.log(2)
    assert forward_divergence(student, teacher).item() == pytest.approx(forward)
    assert reverse_divergence(student, teacher).item() == pytest.approx(reverse)
    to_teacher = 0.75 * math.log(6 / 5) + 0.25 * math.log(2 / 3)
    to_student = 0.5 * math.log(4 / 5) + 0.5 * math.log(4 / 3)
    even = jensen_shannon_divergence(student, teacher, 0.5).item()
    assert even == pytest.approx(0.5 * to_teacher + 0.5 * to_student)


def test_end_points():
    """Equal distributions cost nothing; a mixture of nearly one side is that side's divergence."""
    student, teacher = logs(0.5, 0.3, 0.2), logs(0.2, 0.2, 0.6)
    for kind in KINDS:
        divergence = choose_divergence(settings(kind))
        assert divergence(student, student).item() == pytest.approx(0, abs=1e-12)
        assert divergence(student, teacher).item() > 0.01
    little, much = (
        jensen_shannon_divergence(student, teacher, share) for share in (1e-6, 1 - 1e-6)
    )
    assert little.item() / 1e-6 == pytest.approx(
        forward_divergence(student, teacher).item(), rel=1e-3
    )
    assert much.item() / 1e-6 == pytest.approx(
        reverse_divergence(student, teacher).item(), rel=1e-3
    )


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_equal_the_dense_one_in_value_and_gradient(model, kind):
    """More labels than a block holds, against autograd through [n, vocabulary] at once."""
    generator = torch.Generator().manual_seed(0)
    size = model.config.hidden_size
    teacher, start = (20 * torch.randn(300, size, generator=generator) for _ in range(2))
    divergence = choose_divergence(settings(kind, 0.3))
    ours, dense = start.clone().requires_grad_(), start.clone().requires_grad_()
    value = divergence_sum(model, ours, teacher, divergence)
    value.backward()
    weight = model.lm_head.weight.detach()
    expected = divergence(
        torch.log_softmax(dense @ weight.t(), -1), torch.log_softmax(teacher @ weight.t(), -1)
    ).sum()
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    assert ours.grad is not None
    assert dense.grad is not None
    assert torch.allclose(ours.grad, dense.grad, atol=1e-6, rtol=1e-3)
    assert dense.grad.abs().max() > 1e-3


def teacher_examples(model, tokenizer, max_length=1000):
    """The conversations' examples with teacher states, and what each reads behind the prompt."""
    plain = conversation_examples(tokenizer, CONVERSATIONS, max_length).examples
    prompted = prompted_examples(tokenizer, PROMPT, CONVERSATIONS, plain)
    ids = prompt_ids(tokenizer, PROMPT)
    following = [behind(example, len(ids)) for example in prompted]
    prefix = compute_prefix(model, ids)
    return with_teacher_states(model, prefix, plain, following), prompted


@pytest.mark.parametrize("max_length", [1000, 40])
def test_teacher_states_are_those_of_the_prompted_model(model, tokenizer, max_length):
    """Against transformers' own attention over prompt and conversation at once; whole and cut."""
    examples, prompted = teacher_examples(model, tokenizer, max_length)
    model.set_attn_implementation("sdpa")
    for example, whole in zip(examples, prompted, strict=True):
        ids = torch.tensor([whole.ids])
        states = model.model(input_ids=ids).last_hidden_state[0]
        expected = states[[place - 1 for place in whole.labels]]
        assert [whole.ids[p] for p in whole.labels] == [example.ids[p] for p in example.labels]
        assert torch.allclose(example.teacher, expected, atol=1e-5)


def test_prompt_and_demonstrations_are_no_labels(tokenizer):
    plain = conversation_examples(tokenizer, CONVERSATIONS, 1000).examples
    for example, whole in zip(
        plain, prompted_examples(tokenizer, PROMPT, CONVERSATIONS, plain), strict=True
    ):
        assert whole.label_count == example.label_count
        assert min(whole.labels) >= len(prompt_ids(tokenizer, PROMPT))


def test_one_reading_gives_both_losses(model, tokenizer):
    """Cross entropy as `token_loss_sum` has it; the divergence is 0 for a student with the prompt.

    The student there reads the prompt too, and its LoRA layers are fresh: it is the teacher.
    """
    examples, prompted = teacher_examples(model, tokenizer)
    adapted = attach_lora(model, SETTINGS, four_bit=False, seed=0).eval()
    loss_sums = imitation_loss_sums(choose_divergence(settings("forward")))
    batch = pack(examples, CPU)
    entropy, apart = loss_sums(adapted, batch).tolist()
    assert entropy == pytest.approx(token_loss_sum(adapted, batch).item())
    assert apart > 1e-3
    as_teacher = [
        Example(whole.ids, whole.supervised, example.teacher)
        for whole, example in zip(prompted, examples, strict=True)
    ]
    assert loss_sums(adapted, pack(as_teacher, CPU))[1].item() == pytest.approx(0, abs=1e-5)


def test_mistakes_are_named(model, tokenizer):
    plain = conversation_examples(tokenizer, CONVERSATIONS, 1000).examples
    prefix = compute_prefix(model, prompt_ids(tokenizer, PROMPT))
    with pytest.raises(UserError, match="other labels behind the prompt"):
        with_teacher_states(model, prefix, plain, plain[::-1])
    attend_within_examples(model)
    adapted = attach_lora(model, SETTINGS, four_bit=False, seed=0)
    with pytest.raises(UserError, match="no teacher states"):
        imitation_loss_sums(forward_divergence)(adapted, pack(plain, CPU))


def test_on_held_out_conversations_it_falls_all_the_time(taught):
    """What `seqkd_kld` trains, every 4 steps over conversations that it does not see."""
    tokenizer = AutoTokenizer.from_pretrained(taught)
    base = AutoModelForCausalLM.from_pretrained(taught).eval()
    task = load_task("os_interaction")
    opened = [task.first_message(OS_INTERACTION.problem.replace(WORD, noun)) for noun in NOUNS[:12]]
    talks = [
        PseudoConversation(index=n, messages=[user(text), assistant(BASH)], end="turn limit")
        for n, text in enumerate(opened)
    ]
    prompt = parse_prompt(PROMPT_TEXT, "prompt")
    ids = prompt_ids(tokenizer, prompt)
    plain = conversation_examples(tokenizer, talks, 1000).examples
    following = [
        behind(example, len(ids)) for example in prompted_examples(tokenizer, prompt, talks, plain)
    ]
    examples = with_teacher_states(base, compute_prefix(base, ids), plain, following)
    loss_sums = imitation_loss_sums(forward_divergence)
    weights = {"sft": 1.0, "divergence": 1.0}
    term = Term(weights, examples[:8], 0, 4, 1, loss_sums)
    trainer = Trainer(attach_lora(base, GENTLE, four_bit=False, seed=0), [term], GENTLE, 12, 0)
    held_out = pack(examples[8:], CPU)
    seen = []
    for step in range(trainer.total):
        if step % 4 == 0:
            with torch.no_grad():
                seen.append(loss_sums(trainer.model.model, held_out)[1].item())
        trainer.step()
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] < 0.2 * seen[0]
