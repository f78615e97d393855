"""OS interaction, as AgentBench v0.2 plays and judges it, in a sandbox instead of Docker.

An agent gets a problem and up to `max_turns` turns: it thinks, then runs bash commands, answers or
finishes. Protocol, parsing and judging follow src/server/tasks/os_interaction/task.py of AgentBench
v0.2; samples are in its JSON schema. Samples are generated (`gcd/os_generator.py`).

Where we differ: a command that runs too long is stopped, not left running (`gcd/sandbox.py`).
"""

import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from gcd.core.interfaces import Environment, Wording
from gcd.core.params import Count, Section
from gcd.core.records import Action, Conversation, Message, Record, read_records, write_records
from gcd.os_generator import generate
from gcd.sandbox import Sandbox, SandboxError, SandboxSettings

WORDING = Wording(
    problem="problems for a Linux machine",
    agent="an agent that operates a Linux machine through a bash shell",
    environment="the Linux operating system",
    environment_opening="The output of the OS",
)
_UNITS = {"B": 0, "BYTE": 0, "K": 1, "KB": 1, "M": 2, "MB": 2, "G": 3, "GB": 3, "T": 4, "TB": 4}
_UNITS |= {"P": 5, "PB": 5}


class SplitSettings(Section):
    """How many samples, and the seed they are generated from."""

    count: Count
    seed: str


class Settings(Section):
    """`prompt` names data/prompts/<prompt>.md; `output_characters` is where output is cut."""

    prompt: str
    max_turns: Count
    output_characters: Count
    demonstrations: SplitSettings
    development: SplitSettings
    test: SplitSettings
    sandbox: SandboxSettings


class Script(BaseModel):
    """Code to run, or (`file`) the name of one of AgentBench's check scripts."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    language: Literal["bash", "python"] = "bash"
    code: str | None = None
    file: str | None = None


class OsSample(Record):
    """One sample in AgentBench's schema (`source`), with the index it got here."""

    index: str
    source: dict[str, Any]

    @property
    def problem(self) -> str:
        """The problem's text."""
        return str(self.source["description"])

    @property
    def groups(self) -> dict[str, str]:
        """Tier and family, which generated samples carry as labels."""
        return dict(zip(("tier", "family"), self.source["labels"], strict=True))

    @property
    def evaluation(self) -> dict[str, Any]:
        """`match`, or `check` and `example`."""
        return dict(self.source["evaluation"])


def write_samples(settings: Settings, out: Path) -> None:
    """Write demonstrations.jsonl, development.jsonl and test.jsonl, without a common sample."""
    seen: set[str] = set()
    for name in ("test", "development", "demonstrations"):
        split: SplitSettings = getattr(settings, name)
        sources = generate(f"{split.seed}/{name}", split.count)
        fresh = [source for source in sources if source["description"] not in seen]
        seen |= {source["description"] for source in sources}
        samples = [
            OsSample(index=f"{name}-{number:03d}", source=source)
            for number, source in enumerate(fresh)
        ]
        write_records(out / f"{name}.jsonl", samples)


def read_samples(path: Path) -> list[OsSample]:
    """Raises UserError naming the first bad line."""
    return read_records(path, OsSample)


def first_message(problem: str) -> str:
    """The user turn that brings a problem."""
    return f"Problem: {problem}"


def parse_action(reply: str) -> Action | None:
    """The last valid `Act:` line decides (task.py, `extract_action`); None if there is none.

    bash takes all ```bash blocks of the whole reply, joined by an empty line.
    """
    for action in re.findall(r"Act:\s*(.+)", reply)[::-1]:
        if action.lower().startswith("bash"):
            blocks = re.findall(r"```bash\n(.*?)\n```", reply, re.DOTALL)
            return Action(kind="bash", content="\n\n".join(blocks))
        if action.lower().startswith("finish"):
            return Action(kind="finish", content=None)
        if action.lower().startswith("answer"):
            content = action[6:].strip()
            left, right = content.find("("), content.rfind(")")
            if left == -1 or right == -1:
                continue
            return Action(kind="answer", content=content[left + 1 : right])
    return None


def is_final(action: Action) -> bool:
    """answer and finish commit; bash does not."""
    return action.kind != "bash"


def show_output(text: str, limit: int) -> str:
    """What the agent reads: AgentBench cuts at `limit` (800) characters down to 20 fewer."""
    if not text:
        return "The output of the OS is empty."
    if len(text) > limit:
        text = text[: limit - 20] + "\n[truncated because the output is too long]"
    return f"The output of the OS:\n\n{text}"


def _size(text: str) -> int | None:
    found = re.fullmatch(r"\s*(\d+)\s*([A-Za-z]*)\s*", text)
    unit = _UNITS.get(found[2].upper() or "B") if found else None
    return None if found is None or unit is None else int(found[1]) * 1024**unit


def native_check(name: str, answer: str, expected: str) -> bool:
    """AgentBench's own check scripts (scripts/*/check/*.py), without a Python in the sandbox."""
    plain = [text.replace("\r\n", "\n").strip() for text in (answer, expected)]
    if name == "integer-match":
        try:
            return int(answer) == int(expected)
        except ValueError:
            return False
    if name == "size-match":
        return _size(answer) is not None and _size(answer) == _size(expected)
    if name == "containing":
        return plain[1] in plain[0]
    if name == "in":
        return plain[0] in plain[1]
    return plain[0] == plain[1]


NATIVE_CHECKS = ("integer-match", "string-match", "size-match", "containing", "in")


class OsEnvironment:
    """One sample being played; satisfies `interfaces.Environment`."""

    def __init__(self, sample: OsSample, settings: Settings) -> None:
        self._sample = sample
        self._settings = settings
        self._sandbox = Sandbox(settings.sandbox)
        self._turns = 0
        self.messages: Conversation = [Message(role="user", content=first_message(sample.problem))]
        self.status = "running"
        self.score = 0.0
        self.error: str | None = None

    def __enter__(self) -> Self:
        """Start the machine and build the fixture; a failing init script is status "unknown"."""
        self._sandbox.__enter__()
        try:
            for script in _scripts(self._sample.source.get("create", {}).get("init")):
                output = self._run_script(script, [])
                if output[0] != 0:
                    self._end("unknown", error=f"init failed ({output[0]}): {output[1][:200]}")
                    return self
            for script in _scripts(self._sample.source.get("start")):
                self._sandbox.run(script.code or "")
        except SandboxError as error:
            self._end("unknown", error=str(error))
        return self

    def __exit__(self, *exception: object) -> None:
        """End the machine and everything in it."""
        self._sandbox.__exit__()

    def step(self, reply: str) -> str | None:
        """Run, answer or finish; returns the observation, None when the episode is over."""
        self._turns += 1
        action = parse_action(reply)
        try:
            if action is None:
                self._end("agent invalid action")
            elif is_final(action):
                self._end("completed", score=float(self._judge(action.content)))
            else:
                return self._act(action.content or "", reply)
        except SandboxError as error:
            self._end("task error", error=str(error))
        return None

    def _act(self, command: str, reply: str) -> str | None:
        """Run `command`; the last turn's output is not shown, as nobody could act on it."""
        output = self._sandbox.run(command)
        if self._turns == self._settings.max_turns:
            self._end("task limit reached")
            return None
        observation = show_output(output.text, self._settings.output_characters)
        self.messages = [
            *self.messages,
            Message(role="assistant", content=reply),
            Message(role="user", content=observation),
        ]
        return observation

    def _end(self, status: str, score: float = 0.0, error: str | None = None) -> None:
        self.status, self.score, self.error = status, score, error

    def _run_script(self, script: Script, arguments: list[str]) -> tuple[int | None, str]:
        output = self._sandbox.run_script(script.code or "", arguments, script.language)
        return output.exit_code, output.text

    def _judge(self, answer: str | None) -> bool:
        """Whether the episode passed. `answer` is None after finish.

        With `match`, the stripped answer must equal it (or contain its regular expression). With
        `check`, each script gets the answer and the outputs of those before it; all must exit 0.
        """
        evaluation = self._sample.evaluation
        if "match" in evaluation:
            return _matches(answer, evaluation["match"])
        given = [str(answer)]
        checks = evaluation["check"]
        for check in checks if isinstance(checks, list) else [checks]:
            script = _scripts(evaluation["example"] if check is None else check)[0]
            name = Path(script.file or "").stem
            if name in NATIVE_CHECKS:
                if not native_check(name, given[0], given[-1]):
                    return False
                continue
            code, text = self._run_script(script, given)
            if code != 0:
                return False
            given.append(text)
        return True


def _matches(answer: str | None, match: Any) -> bool:
    if answer is None:
        return False
    rule = {"answer": match} if isinstance(match, str) else match
    if rule.get("strip", True):
        answer = answer.strip()
    if "regex" in rule:
        return re.search(rule["regex"], answer) is not None
    return bool(answer == rule["answer"])


def _scripts(raw: Any) -> list[Script]:
    """AgentBench writes a script as text, as a mapping, or as a list of either."""
    if raw is None:
        return []
    if isinstance(raw, list):
        return [script for item in raw for script in _scripts(item)]
    return [Script(code=raw) if isinstance(raw, str) else Script.model_validate(raw)]


def start(sample: OsSample, settings: Settings) -> Environment:
    """The sample's environment, to be entered as a context manager."""
    return OsEnvironment(sample, settings)
