"""benchmarks/settings.yaml, typed: one class a benchmark, without defaults."""

from pathlib import Path
from typing import Any, Literal, TypeVar

from ruamel.yaml import YAML

from gcd.core.errors import UserError
from gcd.core.params import check_section
from gcd.core.settings import Count, Positive, Section, Share

FILE = Path("benchmarks/settings.yaml")
SectionT = TypeVar("SectionT", bound=Section)


class SynthesisSettings(Section):
    """`turns` agent turns a conversation.

    In repeat r the reference plays the conversations r, r + `reference_share`, …, and its time
    counts `reference_share` times.
    """

    repeats: Count
    reference_share: Count
    conversations: Count
    turns: Count
    agent_tokens: Count
    environment_tokens: Count
    at_least: Positive


class PromptedEpisodesSettings(Section):
    """The first `episodes` recorded ones are played again."""

    repeats: Count
    episodes: Count
    max_new_tokens: Count
    at_least: Positive


class TrainStepSettings(Section):
    """`examples` of `tokens` tokens each, of which the last in every turn are supervised."""

    repeats: Count
    examples: Count
    tokens: Count
    supervised_share: Share
    at_least: Positive
    memory_at_most: Positive


class TrainEpochSettings(Section):
    """The data, batch size and loss are those of params.yaml."""

    repeats: Count
    at_least: Positive


class KlSettings(Section):
    """A batch of `labels`; the divergence is that of `kind`, see `DivergenceSettings`."""

    repeats: Count
    labels: Count
    kind: Literal["forward", "reverse", "jensen_shannon"]
    teacher_share: Share
    memory_at_most: Positive


class TrainRowsSettings(Section):
    """`fit` of every trained row on the first `conversations`, for `epochs`.

    `shortened` are numbers under `methods:` of params.yaml, by method: of training beside that.
    `variants` names, by method, the list there that makes a trained row of each of its values.
    """

    repeats: Count
    conversations: Count
    epochs: Count
    shortened: dict[str, dict[str, Any]]
    variants: dict[str, str]


class InferenceSettings(Section):
    """A session of `turns` turns, each a reply of exactly `new_tokens` tokens."""

    repeats: Count
    turns: Count
    new_tokens: Count


class GrowthSettings(Section):
    """Two axes: `prompt_tokens` for a number of `conversations`; `pseudo_inputs` for one prompt.

    Replies have at most `new_tokens`, conversations to train on `training_tokens`.
    """

    repeats: Count
    prompt_tokens: list[Count]
    conversations: Count
    pseudo_inputs: list[Count]
    short_prompt_tokens: Count
    new_tokens: Count
    training_tokens: Count
    exponent_at_most: Positive


class LimitSettings(Section):
    """The training step and the prefill read `examples` of `tokens` tokens each."""

    repeats: Count
    examples: Count
    tokens: Count
    supervised_share: Share
    matrix_size: Count
    products: Count
    at_least: Positive


class CommonSettings(Section):
    """`task`'s prompt, pseudo data and episodes are used; `seed` is that of orders and weights."""

    seed: int
    task: str


def read_settings(name: str, kind: type[SectionT]) -> SectionT:
    """Section `name` of the file as a `kind`; raises UserError on a missing or mistyped key."""
    raw = YAML(typ="safe").load(FILE.read_text(encoding="utf-8"))
    if name not in raw:
        raise UserError(f"{FILE}: key `{name}` is missing.")
    section: SectionT = check_section(name, kind, raw[name], FILE)
    return section
