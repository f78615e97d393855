"""params.yaml: the one home of every number, read strictly.

A stage calls `read_params("seed", "train", f"methods.{method}")` with exactly the sections that
dvc.yaml lists for it and gets those and nothing else. A key that is unknown, missing or of the
wrong type is a `UserError` that names the key, the file and what is accepted.

The file is read with ruamel.yaml, the parser that DVC uses: PyYAML would read `1e-4` as text.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from gcd.core.errors import UserError
from gcd.core.interfaces import load_method, load_task
from gcd.core.settings import (
    GenerationServerSettings,
    GenerationSettings,
    MakePairedOutputsSettings,
    MakePseudoConversationsSettings,
    MakePseudoInputsSettings,
    MakeReasonsSettings,
    ModelSettings,
    PrepareModelSettings,
    ProbeBehaviourSettings,
    RecordBaseBehaviourSettings,
    RecordTeacherStatesSettings,
    ReportSettings,
    RunEpisodesSettings,
    ScoreSettings,
    Section,
    TeacherSettings,
    TrainSettings,
)
from gcd.core.task_settings import SynthesisSettings, TrainingSettings

FILE = Path("params.yaml")

SECTIONS: dict[str, type[Section] | type[int]] = {
    "seed": int,
    "prepare_model": PrepareModelSettings,
    "model": ModelSettings,
    "teacher": TeacherSettings,
    "generation": GenerationSettings,
    "generation_server": GenerationServerSettings,
    "make_pseudo_inputs": MakePseudoInputsSettings,
    "make_paired_outputs": MakePairedOutputsSettings,
    "make_reasons": MakeReasonsSettings,
    "make_pseudo_conversations": MakePseudoConversationsSettings,
    "train": TrainSettings,
    "record_teacher_states": RecordTeacherStatesSettings,
    "run_episodes": RunEpisodesSettings,
    "record_base_behaviour": RecordBaseBehaviourSettings,
    "probe_behaviour": ProbeBehaviourSettings,
    "score": ScoreSettings,
    "report": ReportSettings,
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
    generation: GenerationSettings
    generation_server: GenerationServerSettings
    make_pseudo_inputs: MakePseudoInputsSettings
    make_paired_outputs: MakePairedOutputsSettings
    make_reasons: MakeReasonsSettings
    make_pseudo_conversations: MakePseudoConversationsSettings
    train: TrainSettings
    record_teacher_states: RecordTeacherStatesSettings
    run_episodes: RunEpisodesSettings
    record_base_behaviour: RecordBaseBehaviourSettings
    probe_behaviour: ProbeBehaviourSettings
    score: ScoreSettings
    report: ReportSettings
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


def _describe(
    file: Path, name: str, model: type[BaseModel] | type[int], error: ValidationError
) -> str:
    """The first problem that pydantic found, as one line."""
    # Of a key that may be a number or a mapping, the branch that got further; pydantic names it.
    first = max(error.errors(), key=lambda found: len(found["loc"]))
    keys = [str(part) for part in first["loc"] if "constrained-" not in str(part)]
    full = ".".join(part for part in [name, *keys] if part)
    if first["type"] == "missing":
        return f"{file}: key `{full}` is missing."
    if first["type"] == "extra_forbidden":
        fields = model.model_fields if isinstance(model, type(BaseModel)) else {}
        for key in keys[:-1]:
            nested = fields[key].annotation
            fields = nested.model_fields if isinstance(nested, type(BaseModel)) else {}
        return f"{file}: unknown key `{full}`; accepted: {', '.join(fields)}."
    return f"{file}: key `{full}`: {first['msg']}; got {first['input']!r}."


def check_section(
    name: str, model: type[BaseModel] | type[int], raw: Any, file: Path = FILE
) -> Any:
    """`raw`, from `file`, as a `model`; raises UserError naming the key and what is accepted.

    `name` is the section's; empty for a whole file.
    """
    try:
        return TypeAdapter(model).validate_python(raw, strict=True)
    except ValidationError as error:
        raise UserError(_describe(file, name, model, error)) from error


def _find(file: dict[str, Any], section: str) -> Any:
    """What stands under a dotted key; raises UserError if nothing does."""
    found: Any = file
    for key in section.split("."):
        if not isinstance(found, dict) or key not in found:
            raise UserError(f"{FILE}: key `{section}` is missing.")
        found = found[key]
    return found


def read_params(*sections: str) -> Params:
    """Read and check the named sections of params.yaml; see `check_sections`."""
    return check_sections(load_file(), *sections)


def every_section(file: dict[str, Any]) -> list[str]:
    """The names of all sections of `file`, as `check_sections` takes them."""
    groups = [f"{group}.{name}" for group in ("tasks", "methods") for name in file.get(group) or {}]
    return [*SECTIONS, "methods", *groups]


def check_sections(file: dict[str, Any], *sections: str) -> Params:
    """The named sections of `file`, checked.

    Args:
        file: what stands in params.yaml.
        sections: top-level keys, or `tasks.<name>`, `tasks.<name>.<part>`, `methods.<name>`, or
            `methods` for its keys.

    Raises:
        UserError: a key is unknown, missing or mistyped.
    """
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
