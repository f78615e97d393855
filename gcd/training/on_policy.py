"""On-policy distillation of a prompt: the student answers without it, the prompted teacher judges.

A state is a pseudo conversation cut before an assistant turn. The student, as it is at this step,
samples a reply to it without the prompt; in every place of the reply its next-token distribution is
drawn to that of the teacher, who reads the same reply behind the prompt: reverse KL, on what the
student itself is likely to write (OPCD, arXiv 2602.12275). The teacher is the same model with the
adapter off.
"""

import random
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from gcd.core.chat import render_request, stop_ids
from gcd.core.decoding import Sampling, decode, make_chooser
from gcd.core.errors import UserError
from gcd.core.records import Conversation, PseudoConversation
from gcd.core.shared_prefix import Prefix, attach_prefix
from gcd.training.divergence import divergence_sum, reverse_divergence
from gcd.training.losses import Batch, Example, pack, read_adapted, read_row
from gcd.training.packed_attention import attend_within_examples
from gcd.training.settings import OnPolicySettings
from gcd.training.terms import Term, Visit

# Rows of logits held at a time: see `losses`.
_ROWS = 128


@dataclass(frozen=True)
class State:
    """A conversation up to where an assistant turn begins, in token ids.

    `plain` is what the student reads; `behind` is what the teacher reads after the prompt.
    """

    plain: list[int]
    behind: list[int]


def turn_states(
    tokenizer: Any, prompt: Conversation, conversation: PseudoConversation, longest: int
) -> list[State]:
    """The state before each assistant turn; those of more than `longest` tokens are left out."""
    states = []
    for place, message in enumerate(conversation.messages):
        if message.role == "assistant":
            before = conversation.messages[:place]
            plain = render_request(tokenizer, [], before, "")[1]
            behind = render_request(tokenizer, prompt, before, "")[1]
            if max(len(plain), len(behind)) <= longest:
                states.append(State(plain, behind))
    return states


def draw_states(choices: list[list[State]], count: int, seed: int) -> list[State]:
    """`count` states: the conversations in a new seeded order every pass, a random turn of each.

    Args:
        choices: the states of each conversation.

    Raises:
        UserError: no conversation has a state.
    """
    usable = [states for states in choices if states]
    if not usable:
        raise UserError(
            "No pseudo conversation leaves room for a reply: raise train.max_length, or choose a "
            "model with a longer context."
        )
    drawn: list[State] = []
    while len(drawn) < count:
        stream = random.Random(f"{seed}/states/{len(drawn)}")
        order = stream.sample(usable, len(usable))
        drawn += [stream.choice(states) for states in order]
    return drawn[:count]


def top_k_divergence(student: Tensor, teacher: Tensor, top_k: int) -> Tensor:
    """KL(student || teacher) on the student's `top_k` tokens and one bucket for all others.

    The bucket's probability is the sum of theirs: by the log-sum inequality the value is at most
    the full divergence, which it equals where no token is left over.

    Args:
        student, teacher: log-probabilities, [n, V].

    Returns:
        [n].
    """
    if top_k >= student.shape[-1]:
        return reverse_divergence(student, teacher)
    chosen = student.topk(top_k, dim=-1).indices

    def buckets(scores: Tensor) -> Tensor:
        rest = scores.scatter(-1, chosen, -torch.inf).logsumexp(-1, keepdim=True)
        return torch.cat([scores.gather(-1, chosen), rest], dim=-1)

    return reverse_divergence(buckets(student), buckets(teacher))


@torch.no_grad()
def entropy_sum(base: Any, hidden: Tensor) -> Tensor:
    """Entropies of the next-token distributions behind hidden states [L, d], summed, in nats."""
    total = hidden.new_zeros((), dtype=torch.float32)
    for start in range(0, len(hidden), _ROWS):
        block = hidden[start : start + _ROWS]
        scores = torch.log_softmax((block @ base.lm_head.weight.t()).float(), dim=-1)
        total -= (scores.exp() * scores).sum()
    return total


def on_policy_loss_sums(top_k: int, model: Any, batch: Batch) -> Tensor:
    """`top_k_divergence` and the student's entropy, summed over the labels, [2]."""
    if batch.teacher is None:
        raise UserError("A reply has no teacher states; see `Replies.visit`.")
    base, hidden = model.get_base_model(), read_adapted(model, batch)
    divergence = partial(top_k_divergence, top_k=top_k)
    teacher = batch.teacher.to(hidden.dtype)
    total = divergence_sum(base, hidden, teacher, divergence)
    return torch.stack([total, entropy_sum(base, hidden)])


def reply_flops(base: Any, state: int, reply: int) -> int:
    """FLOPs of sampling `reply` tokens after `state` ones, each token read once but the last.

    2 n N + 4 L D (n² + …) + 2 m H as in `gcd/cost.py`; N counts LoRA's weights too.
    """
    linear = [layer for layer in base.model.modules() if isinstance(layer, torch.nn.Linear)]
    weights = sum(layer.in_features * layer.out_features for layer in linear)
    sizes = base.config
    attention = 4 * sizes.num_hidden_layers * sizes.num_attention_heads * sizes.head_dim
    pairs = state**2 + sum(range(state + 1, state + reply))
    head = sizes.vocab_size * sizes.hidden_size
    return int(2 * (state + reply - 1) * weights + attention * pairs + 2 * reply * head)


def mean_labels(examples: list[Example]) -> float:
    """Labels of an example, on average."""
    return sum(example.label_count for example in examples) / len(examples)


class Replies:
    """What the student of this moment says in drawn states, and how the teacher sees it."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        prefix: Prefix,
        states: list[State],
        settings: OnPolicySettings,
        batch_tokens: int,
    ) -> None:
        """The student is `model`, a peft model that is trained meanwhile.

        Args:
            model, tokenizer: of the student.
            prefix: the prompt, read by the base model.
            states: by a visit's place.
            batch_tokens: how many tokens may be decoded at once.
        """
        self._model = model
        self._stop = stop_ids(tokenizer)
        self._prefix = prefix
        self._states = states
        self._settings = settings
        self._batch_tokens = batch_tokens

    def visit(self, visits: list[Visit]) -> list[Example]:
        """Each state with a sampled reply, its labels, and the teacher's states there.

        A reply depends on the weights and on its visit's stream alone, so that all processes of a
        training draw the same. One that was cut at the limit has no end: its last token, which
        might have been that, is no label.
        """
        base = self._model.get_base_model()
        self._model.eval()
        attach_prefix(base, None)
        replies = self._sample(base, visits)
        attend_within_examples(base)
        made = []
        for visit, reply in zip(visits, replies, strict=True):
            state = self._states[visit.place]
            labels = [True] * (len(reply) - 1) + [reply[-1] in self._stop]
            example = Example(state.plain + reply, [False] * len(state.plain) + labels)
            behind = Example(state.behind + reply, [False] * len(state.behind) + labels)
            flops = reply_flops(base, len(state.plain), len(reply))
            made.append(replace(example, teacher=self._read(base, behind), flops=flops))
        self._model.train()
        return made

    def _sample(self, base: Any, visits: list[Visit]) -> list[list[int]]:
        """New ids of each reply, as many at once as `batch_tokens` allows."""
        limit = self._settings.max_new_tokens
        texts = [self._states[visit.place].plain for visit in visits]
        at_once = max(1, self._batch_tokens // (max(map(len, texts)) + limit))
        sampling = Sampling(self._settings.temperature, 1.0, "reply")
        replies = []
        for start in range(0, len(visits), at_once):
            part = slice(start, start + at_once)
            choose = make_chooser(sampling, [visit.stream for visit in visits[part]])
            # Out of sight of the counter of FLOPs: with it decoding takes three times as long.
            with _disable_current_modes():
                replies += decode(base, 0, texts[part], limit, self._stop, choose, lambda: None)
        return replies

    @torch.no_grad()
    def _read(self, base: Any, behind: Example) -> Tensor:
        """The teacher's last hidden states where the labels are predicted, [labels, d]."""
        with self._model.disable_adapter():
            return read_row(base, pack([behind], base.device), prefix=self._prefix.layers)


def on_policy_term(replies: Replies, states: list[State], settings: OnPolicySettings) -> Term:
    """One pass over `states`; entropy and length are shown in loss.csv, and are no losses."""
    return Term(
        weights={"reverse_divergence": 1.0, "entropy": 0.0},
        examples=[Example(state.plain, [False] * len(state.plain)) for state in states],
        truncated=0,
        batch_size=settings.batch_size,
        every=1,
        loss_sums=partial(on_policy_loss_sums, settings.top_k),
        visit=replies.visit,
        measures={"reply_tokens": mean_labels},
    )
