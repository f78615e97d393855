"""Tokens and FLOPs of synthesis, from params.yaml and assumed lengths; pieces for the rows'.

Counts (inputs, epochs, samples) are those of the params; all pseudo inputs are taken to be usable.
Lengths are means of the recorded default run (`profiles/facts/lengths.yaml`), or, with `longest`,
the bounds that the params set, as if every text were as long as it may be. Overheads of the chat
template and of the texts around a prompt are left out: some 5 tokens a message, 60 a request.
"""

import math
from dataclasses import dataclass

from gcd.core.params import Params
from gcd.core.settings import Section
from gcd.core.task_settings import SynthesisSettings
from gcd.cost import Architecture, ModelRecord, decode_flops, forward_flops

SYNTHESIS = (
    "make_pseudo_inputs",
    "make_paired_outputs",
    "make_reasons",
    "make_pseudo_conversations",
)
LISTED = 3  # tokens of a list's number and line break


class Lengths(Section):
    """Lengths of a task's texts in tokens, and turns; see profiles/facts/lengths.yaml."""

    prompt: int
    problem: int
    first_message: int
    reply: int
    observation: int
    turns: float
    reason: int
    played_observation: int
    played_turns: float


@dataclass
class Work:
    """What a stage reads and writes (or, in training, sees and is supervised on), and its FLOPs."""

    stage: str
    read: float = 0
    written: float = 0
    flops: float = 0

    def generate(
        self, model: Architecture, replies: float, prompt: float, own: float, reply: float
    ) -> None:
        """`replies` replies of `reply` tokens, behind a shared prompt and `own` tokens each."""
        cost = forward_flops(model, round(own), round(prompt), 0)
        cost += decode_flops(model, round(reply), round(prompt + own), 0)
        self.read += replies * own
        self.written += replies * reply
        self.flops += replies * cost

    def read_prompt(self, model: Architecture, prompt: float) -> None:
        """The prompt that is read once and shared."""
        self.read += prompt
        self.flops += forward_flops(model, round(prompt), 0, 0)


def longest(lengths: Lengths, params: Params) -> Lengths:
    """`lengths` with the bounds of the params in place of what the default run wrote."""
    sizes = params.task.synthesis
    return lengths.model_copy(
        update={
            "problem": sizes.input_tokens // sizes.per_request,
            "reply": params.teacher.max_new_tokens,
            "observation": sizes.environment_tokens,
            "turns": float(sizes.max_turns),
            "reason": params.make_reasons.max_new_tokens,
            "played_turns": float(params.task.max_turns),
        }
    )


def synthesis(
    models: dict[str, ModelRecord],
    settings: SynthesisSettings,
    demonstrations: int,
    sizes: Lengths,
) -> list[Work]:
    """The four synthesis stages of a task, each with its model.

    `demonstrations` is how many problems a request for pseudo inputs shows.
    """
    asking, pairing, explaining, playing = (models[stage].architecture for stage in SYNTHESIS)
    inputs, per_request = settings.inputs, settings.per_request
    asked = Work("make_pseudo_inputs")
    asked.read_prompt(asking, sizes.prompt)
    line = sizes.problem + LISTED
    shown = demonstrations * line
    asked.generate(asking, math.ceil(inputs / per_request), sizes.prompt, shown, per_request * line)
    paired = Work("make_paired_outputs")
    paired.read_prompt(pairing, sizes.prompt)
    for prompt in (sizes.prompt, 0):
        paired.generate(pairing, inputs, prompt, sizes.first_message, sizes.reply)
    explained = Work("make_reasons")
    explained.read_prompt(explaining, sizes.prompt)
    both = sizes.problem + 2 * sizes.reply
    reasons = min(inputs, settings.reasons)
    explained.generate(explaining, reasons, sizes.prompt, both, sizes.reason)
    played = Work("make_pseudo_conversations")
    own = sizes.first_message + sizes.reply
    for turn in range(1, math.ceil(sizes.turns)):
        share = min(1.0, sizes.turns - turn)  # of the conversations have this turn
        if turn == 1:
            played.read_prompt(playing, 2 * sizes.prompt)
        played.generate(playing, share * inputs, sizes.prompt, own, sizes.observation)
        own += sizes.observation
        played.generate(playing, share * inputs, sizes.prompt, own, sizes.reply)
        own += sizes.reply
    return [asked, paired, explained, played]


def conversation_tokens(sizes: Lengths, limit: int) -> tuple[float, float]:
    """Tokens and labels of an SFT example, which is cut at `limit` tokens."""
    labels = sizes.turns * (sizes.reply + 1)
    read = sizes.first_message + (sizes.turns - 1) * sizes.observation
    return min(read + labels, limit), min(labels, limit)


def generation_tokens(sizes: Lengths, target: str, cut: int | None) -> tuple[float, float]:
    """Tokens and labels of a PG example with this `pg_target`, which is cut at `cut` labels."""
    parts = {"prompt": sizes.prompt, "reason": sizes.reason}
    labels = parts.get(target, sizes.prompt + sizes.reason)
    labels = labels if cut is None else min(labels, cut)
    return sizes.problem + 2 * sizes.reply + labels, labels


def training_flops(
    model: Architecture, tokens: float, labels: float, adapter: int, *, checkpointing: bool
) -> float:
    """FLOPs of one example, there and back.

    Forward: 2 n (N + A) + 4 L D n². Back: the same for the gradients of activations (the frozen
    weights have none), 2 n A for those of LoRA, and attention's products twice and a half, as the
    fused kernel computes the scores again. The head reads labels only. Checkpointing repeats the
    forward pass of the blocks.
    """
    linear = 2 * tokens * (model.linear_weights + adapter)
    attention = model.pair_flops * tokens**2
    forward = linear + attention
    back = linear + 2 * tokens * adapter + 2.5 * attention
    return forward * (2 if checkpointing else 1) + back + 4 * labels * model.head_weights
