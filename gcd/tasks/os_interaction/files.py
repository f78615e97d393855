"""AgentBench's own OS samples, out of its JSON files and the scripts they name.

Forms and defects are those of AgentBench v0.2 (src/server/tasks/os_interaction/task.py,
`_load_configs`); the extra keys of its successor's files are not looked at there either. A sample
that AgentBench could not load, or that this machine cannot play, is left out with the reason. One
that breaks only when it is played, as some do in AgentBench, is kept and breaks here too.
"""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from gcd.core.errors import UserError
from gcd.core.records import SkippedSample
from gcd.tasks.os_interaction.judging import NATIVE_CHECKS, Script
from gcd.tasks.os_interaction.needs import unmet_need


class Found(NamedTuple):
    """A sample that can be played: its scripts' code is in it."""

    name: str  # AgentBench's index
    family: str  # the name of its file
    source: dict[str, Any]


class UnplayableError(Exception):
    """Why a sample is left out."""


def read_files(
    data_path: Path, scripts_path: Path, *, in_sandbox: bool
) -> tuple[list[Found], list[SkippedSample]]:
    """All samples of a file, or of all *.json files below a folder in the order of their paths.

    Args:
        data_path: a file with one sample or a list of them, or a folder.
        scripts_path: a checkout of AgentBench or its data/os_interaction/scripts, for samples that
            name a script.
        in_sandbox: leave out what our sandbox cannot play.

    Raises:
        UserError: a path is missing, holds no samples, or is no JSON of the right form.
    """
    files = sorted(data_path.rglob("*.json")) if data_path.is_dir() else [data_path]
    if not files:
        raise UserError(f"{data_path}: expected AgentBench's OS samples; there is no *.json below.")
    folder = _scripts_folder(scripts_path)
    found: list[Found] = []
    skipped: list[SkippedSample] = []
    for file in files:
        family = _family(file, data_path)
        for number, source in enumerate(_read_json(file)):
            name = f"{family}-{number:05d}"
            try:
                resolved = _resolve(source, _Scripts(folder, file))
                need = unmet_need(resolved) if in_sandbox else None
                if need is not None:
                    raise UnplayableError(need)
                found.append(Found(name, family, resolved))
            except UnplayableError as error:
                skipped.append(SkippedSample(index=name, reason=f"{file.name}[{number}]: {error}"))
    return found, skipped


def _family(file: Path, data_path: Path) -> str:
    """AgentBench's index prefix of the file (configs/tasks/os.yaml), e.g. "std-004-N41".

    Files in no split of AgentBench's are named by their path.
    """
    if file.parent.name.isdigit():
        return f"std-{int(file.parent.name):03d}-{file.stem}"
    if file.name == "dev.json":
        return "dev-001-dev"
    parents = file.relative_to(data_path).parent.parts if data_path.is_dir() else ()
    return "-".join([*parents, file.stem])


def _read_json(file: Path) -> list[Any]:
    """The file's samples; raises UserError."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file}: expected AgentBench's OS samples: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(f"{file}: not valid JSON: {error}.") from error
    if not isinstance(content, list | dict):
        raise UserError(f"{file}: expected a sample or a list; got {type(content).__name__}.")
    return content if isinstance(content, list) else [content]


def _scripts_folder(path: Path) -> Path | None:
    """The scripts in a checkout of AgentBench, or `path` itself; None if it does not exist."""
    inside = path / "data/os_interaction/scripts"
    folder = inside if inside.is_dir() else path
    return folder if folder.is_dir() else None


def _script(raw: Any) -> Script:
    """A text or a mapping, of which AgentBench reads these keys; raises ValidationError."""
    if isinstance(raw, str):
        return Script(code=raw)
    known = ("language", "file", "code")
    if isinstance(raw, dict):
        raw = {name: raw[name] for name in known if name in raw}
    return Script.model_validate(raw)


class _Scripts:
    """The scripts of one data file: AgentBench keeps those of data/1/*.json in scripts/1."""

    def __init__(self, folder: Path | None, file: Path) -> None:
        self._folder = folder
        self._names = (file.parent.name, file.stem, "")

    def with_code(self, raw: Any, key: str) -> Any:
        """`raw` with the code of a script that is a file, with `language` as it was."""
        try:
            script = _script(raw)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join([key, *map(str, first["loc"])])
            raise UnplayableError(
                f"key `{where}`: {first['msg']}; got {first['input']!r}"
            ) from error
        if script.file is None:
            if script.code is None:
                raise UnplayableError(f"key `{key}`: expected a script's `code` or `file`")
            return script.model_dump(exclude_none=True)
        return {"language": script.language, "file": script.file, "code": self._read(script, key)}

    def _read(self, script: Script, key: str) -> str:
        name = str(script.file)
        if self._folder is None:
            raise UnplayableError(f"key `{key}`: the script {name} is not here; set `scripts_path`")
        for place in self._names:
            path = Path(self._folder, place, name).resolve()
            if path.is_file() and path.is_relative_to(self._folder.resolve()):
                return path.read_text(encoding="utf-8")
        raise UnplayableError(f"key `{key}`: the script {name} is not in {self._folder}")


def _resolve(source: Any, files: _Scripts) -> dict[str, Any]:
    """The sample with all code in it; raises UnplayableError where AgentBench would not load it."""
    if not isinstance(source, dict):
        raise UnplayableError(f"expected a mapping; got {type(source).__name__}")
    if not isinstance(source.get("description"), str) or not source["description"]:
        raise UnplayableError("key `description`: expected the problem's text")
    resolved = dict(source)
    # Two samples of AgentBench have a list in `create`, in which its loader finds no `init`.
    create = source.get("create")
    if isinstance(create, dict) and create.get("image") is not None:
        raise UnplayableError(f"key `create.image`: the image {create['image']!r} is not here")
    if isinstance(create, dict) and create.get("init") is not None:
        resolved["create"] = {**create, "init": _each(create["init"], "create.init", files)}
    if source.get("start") is not None:
        resolved["start"] = files.with_code(source["start"], "start")
    resolved["evaluation"] = _evaluation(source.get("evaluation"), files)
    return resolved


def _each(raw: Any, key: str, files: _Scripts) -> Any:
    """One script or a list of them."""
    if not isinstance(raw, list):
        return files.with_code(raw, key)
    return [files.with_code(item, f"{key}.{place}") for place, item in enumerate(raw)]


def _evaluation(raw: Any, files: _Scripts) -> dict[str, Any]:
    """`match` decides where there are both; the example may then be missing or broken."""
    if not isinstance(raw, dict) or not ("match" in raw or "check" in raw):
        raise UnplayableError("key `evaluation`: expected `match` or `check`")
    if "match" in raw:
        _check_match(raw["match"])
        return raw
    checks = raw["check"] if isinstance(raw["check"], list) else [raw["check"]]
    if not checks:
        raise UnplayableError("key `evaluation.check`: expected a script, a list of them or null")
    resolved: list[Any] = []
    for place, check in enumerate(checks):
        key = f"evaluation.check.{place}"
        if check is None and raw.get("example") is None:
            raise UnplayableError(
                f"key `{key}`: null stands for `evaluation.example`, which is missing"
            )
        native = isinstance(check, dict) and _is_native(check)
        resolved.append(check if check is None or native else files.with_code(check, key))
    evaluation = {**raw, "check": resolved}
    if raw.get("example") is not None:
        evaluation["example"] = files.with_code(raw["example"], "evaluation.example")
    return evaluation


def _is_native(check: dict[str, Any]) -> bool:
    file = check.get("file")
    return isinstance(file, str) and Path(file).suffix == ".py" and Path(file).stem in NATIVE_CHECKS


def _check_match(match: Any) -> None:
    rule = {"answer": match} if isinstance(match, str) else match
    if not isinstance(rule, dict) or not isinstance(rule.get("regex", rule.get("answer")), str):
        raise UnplayableError(
            f"key `evaluation.match`: expected a text, or a mapping with `answer` or `regex`; "
            f"got {match!r}"
        )
    try:
        re.compile(rule.get("regex", ""))
    except re.error as error:
        raise UnplayableError(f"key `evaluation.match.regex`: {error}") from error
