"""Settings of losses that several methods share; the sections of params.yaml are the methods'."""

from typing import Annotated, Literal

from pydantic import Field

from gcd.core.settings import Count, Positive, Section, Share


class DivergenceSettings(Section):
    """The divergence between the distributions of the prompted teacher and of the student.

    forward: KL(teacher || student), reverse: KL(student || teacher), jensen_shannon: both to a
    mixture that has `teacher_share` of the teacher. `weight` is its factor in the loss.
    """

    kind: Literal["forward", "reverse", "jensen_shannon"]
    teacher_share: Annotated[float, Field(gt=0, lt=1)]
    weight: Positive


class PromptGenerationSettings(Section):
    """The joint loss λ · SFT + (1 - λ) · PG. `sft_weight` is λ, for all tasks or by task.

    `pg_batch_size` PG examples join every `pg_every`-th optimizer step. `pg_target` says what an
    example makes the student write, and `pg_reasons` whether the reason is the pair's own or, to
    ask whether reasons matter, that of another pair. `pg_max_length` cuts PG targets at so many
    tokens; null trains them whole.
    """

    sft_weight: Share | dict[str, Share]
    pg_batch_size: Count
    pg_every: Count
    pg_max_length: Count | None
    pg_target: Literal["prompt_and_reason", "prompt", "reason"]
    pg_reasons: Literal["own", "shuffled"]


class OnPolicySettings(Section):
    """Training on replies that the student samples itself.

    `steps` optimizer steps with a peak of `learning_rate`, each on `batch_size` replies of at most
    `max_new_tokens` at `temperature`. The divergence is over the student's `top_k` most probable
    tokens and one bucket for all others.
    """

    steps: Count
    batch_size: Count
    learning_rate: Positive
    temperature: Positive
    max_new_tokens: Annotated[int, Field(ge=2)]
    top_k: Count
