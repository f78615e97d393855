"""What is asked for, checked before anything runs: prompt, inputs, model, rows, name.

What needs the model's tokenizer comes once there is one (`check_against_model`): whether it has a
chat template that the prompt fits in, control tokens, and the prompt's length.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from gcd.core.chat import prompt_ids
from gcd.core.errors import UserError
from gcd.core.prompt import parse_prompt, read_prompt_text
from gcd.exports.settings import Gguf
from gcd.internalize.formats import Format, read_format
from gcd.internalize.settings import PromptSettings
from gcd.tasks.custom.inputs import read_lines

EXPORTS = Path("exports")
# Of an export, and of every trained row: an adapter in peft's format.
ADAPTER, WEIGHTS = "adapter", "adapter_model.safetensors"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")
_ALMOST_A_MARKER = re.compile(r"\s*<!--\s*(user|assistant|system)\s*-->\s*", re.IGNORECASE)
_MARKERS = ("<!-- user -->", "<!-- assistant -->")


@dataclass(frozen=True)
class Asked:
    """What the command line asks for, as far as it can be checked without the model.

    `prompt` is the prompt's text; `inputs` are the user's own; `previous` is the export of the
    version before, if one is updated, and `warm_start` whether training begins with its adapter;
    `merged` and `gguf` are what is written beside the adapter (`gcd.exports`).
    """

    name: str
    source: Path
    prompt: str
    inputs: list[str]
    format: Format | None
    model: str | None
    rows: list[str]
    previous: Path | None
    warm_start: bool
    merged: bool
    gguf: list[Gguf]


def default_name(prompt: Path) -> str:
    """examples/support/prompt.md and support.md are both `support`, as far as a name can be so."""
    stem = prompt.absolute().parent.name if prompt.stem == "prompt" else prompt.stem
    return re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).strip("-_")


def check_name(name: str) -> Path:
    """The folder of the export `name`; raises UserError on a bad name, or one that is taken."""
    if not _NAME.fullmatch(name):
        raise UserError(
            f"NAME: expected up to 41 of a-z, 0-9, _ and -, a letter or digit first; got {name!r}."
        )
    folder = EXPORTS / name
    if folder.exists():
        raise UserError(
            f"{folder}: exists, and nothing is overwritten. Choose another name (NAME={name}-2, "
            f"with PREVIOUS={name} if this updates it), or remove the folder."
        )
    return folder


def read_prompt_file(path: Path, settings: PromptSettings) -> str:
    """The prompt's text, without a byte order mark and with plain line ends.

    Raises:
        UserError: the file is missing, too large, empty, binary or not UTF-8, its turns do not
            alternate, or a line looks like the mark of a turn and is none.
    """
    if path.is_file() and path.stat().st_size > settings.max_bytes:
        raise UserError(
            f"{path}: {path.stat().st_size:,} bytes; a prompt has at most {settings.max_bytes:,} "
            "(internalize.yaml, `prompt.max_bytes`). Is it the right file?"
        )
    text = read_prompt_text(path).removeprefix("\ufeff").replace("\r\n", "\n").strip()
    if not text:
        raise UserError(f"{path}: empty; write the prompt to internalise into it.")
    for number, line in enumerate(text.split("\n"), start=1):
        if _ALMOST_A_MARKER.fullmatch(line) and line not in _MARKERS:
            raise UserError(
                f"{path}, line {number}: a turn is marked by a line that is exactly "
                f"`{_MARKERS[0]}` or `{_MARKERS[1]}`; got {line!r}. The system text has no mark."
            )
    parse_prompt(text, str(path))
    return text


def check_model(model: str | None) -> str | None:
    """MODEL as params.yaml takes it: an absolute folder, or owner/name@revision; None: its own.

    Raises:
        UserError: it is neither.
    """
    if model is None or re.fullmatch(r"[\w.-]+/[\w.-]+@[\w./-]+", model):
        return model
    folder = Path(model)
    if not (folder / "config.json").is_file():
        raise UserError(
            f"MODEL: expected a folder with a model in transformers' format, or "
            f"owner/name@revision of the model hub; got {model!r}, which is neither."
        )
    return str(folder.absolute())


def check_previous(previous: str | None, name: str) -> Path | None:
    """The export that is updated; raises UserError if it is none, or not of this program."""
    if previous is None:
        return None
    folder = EXPORTS / previous
    if previous == name or not (folder / "record.json").is_file():
        known = sorted(path.parent.name for path in EXPORTS.glob("*/record.json"))
        raise UserError(
            f"PREVIOUS: expected another export, with its record.json; got {previous!r}. There "
            f"are: {', '.join(known) or 'none'}."
        )
    return folder


def check_warm_start(previous: Path | None) -> None:
    """Raise UserError unless the version before has an adapter to begin with."""
    if previous is None or not (previous / ADAPTER / WEIGHTS).is_file():
        raise UserError(
            f"WARM_START: expected PREVIOUS, the name of an export with {ADAPTER}/{WEIGHTS}; "
            f"{'there is no PREVIOUS' if previous is None else f'{previous} has none'}."
        )


def check(
    prompt: Path,
    settings: PromptSettings,
    *,
    inputs: Path | None = None,
    format: Path | None = None,
    model: str | None = None,
    name: str | None = None,
    rows: list[str] | None = None,
    previous: str | None = None,
    warm_start: bool = False,
    merged: bool = False,
    gguf: list[Gguf] | None = None,
) -> Asked:
    """All that can be checked without the model.

    Raises:
        UserError: something is not as expected; the message says what, and what to do.
    """
    text = read_prompt_file(prompt, settings)
    chosen = name or default_name(prompt)
    check_name(chosen)
    earlier = check_previous(previous, chosen)
    if warm_start:
        check_warm_start(earlier)
    return Asked(
        name=chosen,
        source=prompt,
        prompt=text,
        inputs=read_lines(inputs) if inputs else [],
        format=read_format(format) if format else None,
        model=check_model(model),
        rows=rows or [],
        previous=earlier,
        warm_start=warm_start,
        merged=merged,
        gguf=gguf or [],
    )


def control_tokens(tokenizer: Any) -> list[str]:
    """The texts that a tokenizer takes for control tokens, longest first."""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return sorted({*tokenizer.all_special_tokens, *added}, key=lambda token: (-len(token), token))


def refuse_control_tokens(text: str, where: str, tokens: list[str]) -> None:
    """Raise UserError if `text` holds one; `where` names its file.

    This program reads them as plain text, wherever they stand. Other programs do not: where the
    prompt is served, one would end the system message, or open a turn.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        for token in tokens:
            if token in line:
                raise UserError(
                    f"{where}, line {number}: holds {token!r}, a control token of the model's chat "
                    "template. Write it in another way, or choose another model."
                )


def check_against_model(
    asked: Asked, tokenizer: Any, context: int, settings: PromptSettings
) -> int:
    """The tokens of the prompt, as every call with it carries them.

    Args:
        asked: what was asked for.
        tokenizer: the base model's.
        context: its length in tokens.
        settings: how much of it must be left.

    Raises:
        UserError: the model has no chat template, or one without the roles that the prompt has; the
            prompt or an input holds control tokens; or the prompt is too long.
    """
    if tokenizer.chat_template is None:
        raise UserError("The model has no chat template. Choose an instruction-tuned model.")
    tokens = control_tokens(tokenizer)
    refuse_control_tokens(asked.prompt, str(asked.source), tokens)
    for number, text in enumerate(asked.inputs, start=1):
        refuse_control_tokens(text, f"INPUTS, input {number}", tokens)
    try:
        count = len(prompt_ids(tokenizer, parse_prompt(asked.prompt, str(asked.source))))
    except TemplateError as error:
        raise UserError(
            f"The model's chat template refuses the prompt's roles: {error}. Choose a model whose "
            "template has system, user and assistant turns."
        ) from error
    if count + settings.context_room > context:
        raise UserError(
            f"{asked.source}: {count:,} tokens, and {settings.context_room:,} more are needed for "
            f"inputs, replies and reasons (internalize.yaml, `prompt.context_room`); the model's "
            f"context holds {context:,}. Shorten the prompt, or choose a MODEL with a longer one."
        )
    return count
