"""What an episode costs, in tokens, FLOPs and bytes of key-value cache: counted, not timed.

Notation: N weights of the linear layers inside the blocks (no embedding, no head), H = vocabulary
x hidden size (the language-model head), L layers, D = heads x head size, A weights of an adapter
that is not merged (0 otherwise). One multiply-add is 2 FLOPs; only matrix products count. One
forward pass over n new tokens with c tokens in the cache costs

    forward(n | c) = 2 n (N + A) + 4 L D n (c + n) + 2 H

- Attention is counted dense, as `torch.utils.flop_counter.FlopCounterMode` counts it and as a
  plain kernel works; a kernel that skips the masked half does less.
- The head is applied to one position a pass, the last: the only one that generation reads.
- A reply of m tokens (its end-of-turn token included) takes the pass that reads its context, whose
  logits give the first token, and m - 1 passes of one token each. The last token is read by nobody
  within the reply, so with a session's cache it is one of the new tokens of the next turn.

The same episode is priced in three regimes, by how long the key-value cache lives:

    recompute      one reply: every turn reads prompt and conversation anew
    session_cache  one episode: the prompt is read once an episode, every message once, unless the
                   task starts the conversation anew (`Turn.continues`)
    prefix_cache   the prompt's cache is shared by all episodes and costs none of them anything

recompute >= session_cache >= prefix_cache, and the last two are equal without a prompt.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from gcd.core.errors import UserError
from gcd.core.failures import trained_row
from gcd.core.records import FULL_PROMPT, AgentRecord, TrainingRecord, Turn
from gcd.rows import Row

REGIMES = ("recompute", "session_cache", "prefix_cache")
RATIO_DIGITS = 4
TOKEN_DIGITS = 2
BYTES = {"float32": 4, "bfloat16": 2}  # of a value in the key-value cache, by `model.dtype`


class Architecture(BaseModel):
    """The sizes of a Llama-like decoder that its costs depend on."""

    model_config = ConfigDict(frozen=True, strict=True)

    layers: int
    hidden_size: int
    heads: int
    key_value_heads: int
    head_size: int
    intermediate_size: int
    vocabulary_size: int

    @property
    def linear_weights(self) -> int:
        """N: query and output, key and value, and the three of the gated feed-forward layer."""
        attention = 2 * self.heads * self.head_size + 2 * self.key_value_heads * self.head_size
        return self.layers * self.hidden_size * (attention + 3 * self.intermediate_size)

    @property
    def head_weights(self) -> int:
        """H: the language-model head."""
        return self.vocabulary_size * self.hidden_size

    @property
    def pair_flops(self) -> int:
        """4 L D: a query meets a key (2 L D) and weighs its value (2 L D)."""
        return 4 * self.layers * self.heads * self.head_size


class ModelRecord(BaseModel):
    """models/base/model.json: where the base model comes from and how large it is."""

    model_config = ConfigDict(frozen=True, strict=True)

    source: str
    architecture: Architecture
    parameters: int


def read_model(path: Path) -> ModelRecord:
    """Read model.json; raises UserError if it is missing or incomplete."""
    try:
        return ModelRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file. Run `dvc repro` to make it.") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"{path}: expected the source, architecture and parameters of the base model; "
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}. Delete it and run `dvc repro`."
        ) from error


def forward_flops(model: Architecture, new: int, cached: int, adapter: int) -> int:
    """FLOPs of one pass over `new` tokens after `cached` ones; logits at the last position."""
    return (
        2 * new * (model.linear_weights + adapter)
        + model.pair_flops * new * (cached + new)
        + 2 * model.head_weights
    )


def decode_flops(model: Architecture, reply: int, cached: int, adapter: int) -> int:
    """FLOPs of the passes of one token that follow the one that read the `cached` tokens.

    There are reply - 1 of them; each meets one key more than the one before.
    """
    passes = max(reply - 1, 0)
    growth = model.pair_flops * passes * (passes - 1) // 2
    return passes * forward_flops(model, 1, cached, adapter) + growth


def key_value_bytes(model: Architecture, tokens: int, dtype: str) -> int:
    """Bytes of the keys and values of `tokens` tokens in all layers, in `dtype`."""
    values = 2 * model.layers * model.key_value_heads * model.head_size
    return values * BYTES[dtype] * tokens


def episode_flops(
    model: Architecture, turns: list[Turn], prompt_tokens: int, adapter: int, regime: str
) -> int:
    """FLOPs of one episode in one of REGIMES; `adapter` counts weights that are not merged.

    A pass reads at least the token whose logits open the reply, also where a reply came back
    into the conversation shorter than it was generated (white space around it is stripped).
    """
    total = 0
    cached = prompt_tokens if regime == "prefix_cache" else 0
    for turn in turns:
        context = prompt_tokens + turn.context_tokens
        available = cached if turn.continues else min(cached, prompt_tokens)
        reused = 0 if regime == "recompute" else min(available, context - 1)
        total += forward_flops(model, context - reused, reused, adapter)
        total += decode_flops(model, turn.reply_tokens, context, adapter)
        cached = context + max(turn.reply_tokens - 1, 0)
    return total


def unmerged_weights(agent: AgentRecord) -> int:
    """A: the adapter weights that every token passes beside the base model's."""
    counts = {
        "base": 0,
        "merged adapter": 0,
        "unmerged adapter": agent.adapter_parameters,
        "trained prefix": 0,  # read from the cache, like a prompt
    }
    if agent.deployment not in counts:
        raise UserError(
            f"row {agent.row!r}: expected a deployment out of {sorted(counts)}, "
            f"got {agent.deployment!r}. Correct it where the method loads its agent."
        )
    return counts[agent.deployment]


def mean_flops(
    model: Architecture, episodes: list[list[Turn]], agent: AgentRecord
) -> dict[str, float]:
    """FLOPs per episode in each regime, if `agent` plays these turns with its own prompt."""
    adapter = unmerged_weights(agent)
    return {
        regime: sum(
            episode_flops(model, turns, agent.prompt_tokens, adapter, regime) for turns in episodes
        )
        / len(episodes)
        for regime in REGIMES
    }


def played_turns(row: Row) -> list[list[Turn]]:
    """The turns of each episode that had any: one that never started cost the agent nothing."""
    return [episode.turns for episode in row.episodes if episode.turns]


def read_training(models: Path, task: str, name: str, row: Row) -> TrainingRecord:
    """What `fit` says that the row's training took: zeros for a row without trained weights.

    It is in `models`/TASK/METHOD/ROW/training.json, or in the method's folder if that fills one
    row.

    Raises:
        UserError: the row has trained weights and there is no record, or a bad one.
    """
    folder = models / task / row.method
    paths = [folder / trained_row(name), folder]
    found = [path / "training.json" for path in paths if (path / "training.json").exists()]
    if not found and row.agent.adapter_parameters == 0:
        return TrainingRecord(**dict.fromkeys(TrainingRecord.model_fields, 0))
    if not found:
        raise UserError(
            f"{folder}: expected training.json, because row {name!r} has trained weights. "
            "Run `dvc repro`."
        )
    try:
        return TrainingRecord.model_validate_json(found[0].read_text(encoding="utf-8"))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"{found[0]}: expected one TrainingRecord as JSON; "
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}. Delete it and run `dvc repro`."
        ) from error


def episode_costs(
    model: Architecture, row: Row, teacher: Row, dtype: str
) -> dict[str, object] | None:
    """What an episode of one row costs; None if it or the prompted teacher played no turn.

    input_tokens are all tokens sent in all calls (prompt and conversation, each time they are
    sent), output_tokens all tokens generated: means over the `episodes` that had a turn, as are
    the FLOPs. kv_bytes_peak is the largest cache of any one episode, kv_bytes_prompt what the
    prompt takes of it. Relative FLOPs compare the row's own episodes with the teacher's;
    `on_teacher_episodes` prices the teacher's turns with this row's prompt and adapter, so that
    only those differ and not the behaviour.
    """
    episodes, teacher_episodes = played_turns(row), played_turns(teacher)
    if not episodes or not teacher_episodes:
        return None
    prompt = row.agent.prompt_tokens
    turns = [turn for played in episodes for turn in played]
    flops = mean_flops(model, episodes, row.agent)
    same_turns = mean_flops(model, teacher_episodes, row.agent)
    teacher_flops = mean_flops(model, teacher_episodes, teacher.agent)
    peak = max(prompt + turn.context_tokens + max(turn.reply_tokens - 1, 0) for turn in turns)
    inputs = sum(prompt + turn.context_tokens for turn in turns)
    outputs = sum(turn.reply_tokens for turn in turns)
    return {
        "episodes": len(episodes),
        "input_tokens": round(inputs / len(episodes), TOKEN_DIGITS),
        "output_tokens": round(outputs / len(episodes), TOKEN_DIGITS),
        "flops": {regime: round(flops[regime]) for regime in REGIMES},
        "flops_relative_to_full_prompt": {
            regime: round(flops[regime] / teacher_flops[regime], RATIO_DIGITS) for regime in REGIMES
        },
        "flops_relative_on_teacher_episodes": {
            regime: round(same_turns[regime] / teacher_flops[regime], RATIO_DIGITS)
            for regime in REGIMES
        },
        "kv_bytes_peak": key_value_bytes(model, peak, dtype),
        "kv_bytes_prompt": key_value_bytes(model, prompt, dtype),
    }


def cost_tasks(
    model: Architecture,
    tasks: dict[str, dict[str, Row]],
    models: Path,
    data: dict[str, int],
    dtype: str,
) -> dict[str, dict[str, dict[str, object]]]:
    """{task: {row: costs}} as in costs.json: of data, training, shipping, and of episodes if any.

    Args:
        model: the base model's sizes.
        tasks: the rows that played, by task.
        models: the folder that `fit` filled.
        data: FLOPs of each task's pseudo data, which every row with trained weights needs.
        dtype: of the key-value cache.
    """
    trained = {
        task: {name: read_training(models, task, name, row) for name, row in rows.items()}
        for task, rows in tasks.items()
    }
    return {
        task: {
            name: {
                "data_flops": data[task] if trained[task][name].flops else 0,
                "training": trained[task][name].model_dump(),
                "bytes_to_ship": row.agent.bytes_to_ship,
                "prompt_tokens": row.agent.prompt_tokens,
                **(episode_costs(model, row, rows[FULL_PROMPT], dtype) or {}),
            }
            for name, row in rows.items()
        }
        for task, rows in tasks.items()
    }
