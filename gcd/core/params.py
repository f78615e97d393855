"""params.yaml: the one home of every number, read strictly.

A stage calls `read_params("seed", "train", f"methods.{method}")` with exactly the sections that
dvc.yaml lists for it and gets those and nothing else. A key that is unknown, missing or of the
wrong type is a `UserError` that names the key, the file and what is accepted.

The file is read with ruamel.yaml, the parser that DVC uses: PyYAML would read `1e-4` as text.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from gcd.core.errors import UserError
from gcd.core.interfaces import load_method, load_task

FILE = Path("params.yaml")

Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A section of params.yaml: every key required, no other key allowed, exact types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class WheelSource(Section):
    """A model file inside a Python wheel. Checksums are SHA-256."""

    package: str
    version: str
    sha256: str
    file: str
    file_sha256: str


class HubSource(Section):
    """A repository of the model hub; `revision` is a commit, a tag or a branch."""

    id: str
    revision: str


class PathSource(Section):
    """A local folder in transformers' format."""

    folder: str


class PrepareModelSettings(Section):
    """Where the base model comes from: `source` picks one of the three."""

    source: Literal["wheel", "hub", "path"]
    wheel: WheelSource
    hub: HubSource
    path: PathSource


class ModelSettings(Section):
    """How the base model is loaded, and how many tokens a batch of generation may hold."""

    quantization: Literal["none", "nf4"]
    dtype: Literal["float32", "bfloat16"]
    batch_tokens: Count


class TeacherSettings(Section):
    """How long an agent turn of the prompted teacher (and of the student) may get."""

    max_new_tokens: Count


class MakePseudoInputsSettings(Section):
    """How pseudo inputs are asked for.

    New ones are asked after `demonstrations` shown ones, in at most `max_requests` requests; fewer
    than `minimum` usable ones are an error.
    """

    minimum: Count
    max_requests: Count
    demonstrations: Count
    temperature: Positive
    top_p: Share


class MakePairedOutputsSettings(Section):
    """Fewer than `minimum` usable pairs are an error."""

    minimum: Count


class MakeReasonsSettings(Section):
    """Sampling of reasons; fewer than `minimum` usable ones are an error."""

    minimum: Count
    temperature: Positive
    top_p: Share
    max_new_tokens: Count


class MakePseudoConversationsSettings(Section):
    """Self role-playing: the environment is sampled, and ends the conversation by `end_token`."""

    minimum: Count
    temperature: Positive
    top_p: Share
    end_token: str


class LoraSettings(Section):
    """LoRA on all linear layers."""

    rank: Count
    alpha: Count
    dropout: Share


class TrainSettings(Section):
    """The one training loop; how long it runs on a task, the task says."""

    micro_batch_tokens: Count
    max_length: Count
    learning_rate: Positive
    warmup_share: Share
    weight_decay: Annotated[float, Field(ge=0)]
    gradient_clip: Positive
    checkpoint_every: Count
    lora: LoraSettings


class RecordTeacherStatesSettings(Section):
    """How many teacher-visited states every row answers."""

    max_states: Count


class RunEpisodesSettings(Section):
    """Length of an agent turn in tokens, and how many episodes are played at the same time."""

    max_new_tokens: Count
    live_environments: Count


class ScoreSettings(Section):
    """Level of the intervals, and resamples of the bootstrap."""

    confidence: Annotated[float, Field(gt=0, lt=1)]
    bootstrap_samples: Count


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
    data_path: str | None
    backend: Literal["embedded", "agentbench"]
    server: ServerSettings
    demonstrations: SplitSettings
    development: SplitSettings
    test: SplitSettings
    synthesis: SynthesisSettings
    training: TrainingSettings


SECTIONS: dict[str, type[Section] | type[int]] = {
    "seed": int,
    "prepare_model": PrepareModelSettings,
    "model": ModelSettings,
    "teacher": TeacherSettings,
    "make_pseudo_inputs": MakePseudoInputsSettings,
    "make_paired_outputs": MakePairedOutputsSettings,
    "make_reasons": MakeReasonsSettings,
    "make_pseudo_conversations": MakePseudoConversationsSettings,
    "train": TrainSettings,
    "record_teacher_states": RecordTeacherStatesSettings,
    "run_episodes": RunEpisodesSettings,
    "score": ScoreSettings,
}


TASK_PARTS: dict[str, type[Section]] = {
    "synthesis": SynthesisSettings,
    "training": TrainingSettings,
}


class Params:
    """The sections that a stage asked for, as attributes; any other raises AttributeError.

    `tasks.<name>` arrives as `.task`, `methods.<name>` as `.method` (typed by the module's own
    Settings), `tasks.<name>.synthesis` and `tasks.<name>.training` as `.synthesis` and `.training`,
    and the bare name `methods` as the list of its keys.
    """

    seed: int
    prepare_model: PrepareModelSettings
    model: ModelSettings
    teacher: TeacherSettings
    make_pseudo_inputs: MakePseudoInputsSettings
    make_paired_outputs: MakePairedOutputsSettings
    make_reasons: MakeReasonsSettings
    make_pseudo_conversations: MakePseudoConversationsSettings
    train: TrainSettings
    record_teacher_states: RecordTeacherStatesSettings
    run_episodes: RunEpisodesSettings
    score: ScoreSettings
    task: Any
    synthesis: SynthesisSettings
    training: TrainingSettings
    method: Any
    methods: list[str]

    def __init__(self, values: dict[str, Any], raw: dict[str, Any]) -> None:
        self.__dict__.update(values)
        self._raw = raw

    def fingerprint(self) -> str:
        """SHA-256 of the sections as they stand in the file: equal settings, equal text."""
        return hashlib.sha256(json.dumps(self._raw, sort_keys=True).encode()).hexdigest()


def load_file(path: Path = FILE) -> dict[str, Any]:
    """The raw mapping; raises UserError if the file is missing, unreadable or has unknown keys."""
    try:
        raw = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file. Run from the repository's folder.") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    known = [*SECTIONS, "tasks", "methods"]
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected a mapping with the keys {', '.join(known)}.")
    for key in raw:
        if key not in known:
            raise UserError(f"{path}: unknown key `{key}`; accepted: {', '.join(known)}.")
    return raw


def _describe(name: str, model: type[BaseModel] | type[int], error: ValidationError) -> str:
    """The first problem that pydantic found, as one line."""
    first = error.errors()[0]
    keys = [str(part) for part in first["loc"]]
    full = ".".join([name, *keys])
    if first["type"] == "missing":
        return f"{FILE}: key `{full}` is missing."
    if first["type"] == "extra_forbidden":
        fields = model.model_fields if isinstance(model, type(BaseModel)) else {}
        for key in keys[:-1]:
            nested = fields[key].annotation
            fields = nested.model_fields if isinstance(nested, type(BaseModel)) else {}
        return f"{FILE}: unknown key `{full}`; accepted: {', '.join(fields)}."
    return f"{FILE}: key `{full}`: {first['msg']}; got {first['input']!r}."


def check_section(name: str, model: type[BaseModel] | type[int], raw: Any) -> Any:
    """`raw` as a `model`; raises UserError naming the key and the accepted values."""
    try:
        return TypeAdapter(model).validate_python(raw, strict=True)
    except ValidationError as error:
        raise UserError(_describe(name, model, error)) from error


def _find(file: dict[str, Any], section: str) -> Any:
    """What stands under a dotted key; raises UserError if nothing does."""
    found: Any = file
    for key in section.split("."):
        if not isinstance(found, dict) or key not in found:
            raise UserError(f"{FILE}: key `{section}` is missing.")
        found = found[key]
    return found


def read_params(*sections: str) -> Params:
    """Read and check the named sections of params.yaml.

    Args:
        sections: top-level keys, or `tasks.<name>`, `tasks.<name>.<part>`, `methods.<name>`, or
            `methods` for its keys.

    Raises:
        UserError: a key is unknown, missing or mistyped.
    """
    file = load_file()
    values: dict[str, Any] = {}
    raw: dict[str, Any] = {}
    for section in sections:
        group, name, part = [*section.split("."), "", ""][:3]
        raw[section] = _find(file, section)
        if section == "methods":
            values["methods"] = raw[section] = list(file["methods"])
        elif part:
            values[part] = check_section(section, TASK_PARTS[part], raw[section])
        elif group == "tasks":
            values["task"] = check_section(section, load_task(name).Settings, raw[section])
        elif group == "methods":
            values["method"] = check_section(section, load_method(name).Settings, raw[section])
        else:
            values[section] = check_section(section, SECTIONS[section], raw[section])
    return Params(values, raw)
