"""What every task's section of params.yaml has; a task's own `Settings` add to it."""

from typing import Literal

from gcd.core.settings import Count, Positive, Section


class SplitSettings(Section):
    """How many samples, and the seed they are generated from."""

    count: Count
    seed: str


class ServerSettings(Section):
    """An AgentBench v0.2 controller, for `backend: agentbench`.

    `address` is like http://localhost:5000/api, `task` like os-std. The first `prompt_messages`
    messages of every conversation it sends are the benchmark's own prompt. Without a free worker
    it is asked again after `retry_seconds`, `retries` times. It ends a session that waits longer
    than `turn_seconds` for a reply; we wait as long for its answers.
    """

    address: str
    task: str
    prompt_messages: Count
    retry_seconds: Positive
    retries: Count
    turn_seconds: Positive


class SynthesisSettings(Section):
    """How much is synthesised for a task, and how long its texts may get.

    `inputs` are asked for, `per_request` of them in a reply of `input_tokens`; one longer than
    `input_characters` is rejected. Reasons are asked for the first `reasons` pairs. A conversation
    has at most `max_turns` agent turns and environment turns of `environment_tokens`.
    """

    inputs: Count
    per_request: Count
    input_tokens: Count
    input_characters: Count
    reasons: Count
    max_turns: Count
    environment_tokens: Count


class TrainingSettings(Section):
    """How long a task is trained on; `batch_size` counts conversations an optimizer step."""

    epochs: Count
    batch_size: Count


class TaskSettings(Section):
    """What every task has; a task's own Settings add to it.

    `prompt` names data/prompts/<prompt>.md. Test samples are generated, or come out of the
    benchmark's own files in `data_path` (then at most `test.count` of them). Development samples
    and demonstrations are always generated: training never sees the benchmark. `backend` is what
    plays the test samples: this program, or a server.
    """

    prompt: str
    max_turns: Count
    data: Literal["generated", "files"]
    data_path: str
    backend: Literal["embedded", "agentbench"]
    server: ServerSettings
    demonstrations: SplitSettings
    development: SplitSettings
    test: SplitSettings
    synthesis: SynthesisSettings
    training: TrainingSettings
