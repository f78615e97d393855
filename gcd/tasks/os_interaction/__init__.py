"""OS interaction, as AgentBench v0.2 plays and judges it, in a sandbox instead of Docker.

An agent gets a problem and up to `max_turns` turns: it thinks, then runs bash commands, answers or
finishes. Protocol, parsing and judging follow src/server/tasks/os_interaction/task.py of AgentBench
v0.2; samples are in its JSON schema. They are generated (`generator.py`) or its own (`files.py`).

Where we differ: commands start in /root, not in / (as in AgentBench's next version; in / its
commands that search "here" would search /proc); a command that runs too long is stopped, not left
running (`sandbox.py`), a shell that has ended is replaced, and check scripts run after the agent's
processes are stopped, so that these cannot meddle with them.
"""

import logging
import re
from pathlib import Path
from typing import Any, Literal, Self

from gcd.core.errors import UserError
from gcd.core.interfaces import Environment, Wording
from gcd.core.records import (
    Action,
    Conversation,
    Message,
    Record,
    SkippedSample,
    read_records,
    write_records,
)
from gcd.core.settings import Count
from gcd.core.task_settings import SplitSettings, TaskSettings
from gcd.tasks.os_interaction.docker import DockerMachine, DockerSettings
from gcd.tasks.os_interaction.files import read_files
from gcd.tasks.os_interaction.generator import generate
from gcd.tasks.os_interaction.judging import (
    NATIVE_CHECKS,
    Script,
    code_of,
    matches,
    native_check,
    scripts,
)
from gcd.tasks.os_interaction.sandbox import Sandbox, SandboxError, SandboxSettings
from gcd.tasks.os_interaction.sandbox_command import announce

WORDING = Wording(
    problem="problems for a Linux machine",
    agent="an agent that operates a Linux machine through a bash shell",
    environment="the Linux operating system",
    environment_opening="The output of the OS",
)
SHELL_ENDED = "[the shell has ended; a new one was started in /root]\n"
_log = logging.getLogger(__name__)


class Settings(TaskSettings):
    """`output_characters` is where output is cut. `backend: docker` uses the benchmark's images.

    `data_path` is a file of AgentBench's, or a folder of them; `scripts_path` a checkout of it.
    Where that folder is missing, samples that name a script are skipped.
    """

    backend: Literal["embedded", "docker", "agentbench"]  # type: ignore[assignment]  # one more
    scripts_path: str
    output_characters: Count
    sandbox: SandboxSettings
    docker: DockerSettings


class OsSample(Record):
    """One sample in AgentBench's schema (`source`).

    `groups` is {"tier": …, "family": …} of a generated sample, {"family": …} of AgentBench's own.
    """

    index: str
    groups: dict[str, str]
    source: dict[str, Any]

    @property
    def problem(self) -> str:
        """The problem's text."""
        return str(self.source["description"])

    @property
    def evaluation(self) -> dict[str, Any]:
        """`match`, or `check` and `example`."""
        return dict(self.source["evaluation"])


def write_samples(settings: Settings, out: Path) -> list[SkippedSample]:
    """Write demonstrations.jsonl, development.jsonl and test.jsonl, without a common sample.

    Raises:
        UserError: `data_path` holds no sample that can be played, or no sandbox works here.
    """
    if settings.backend == "embedded":
        announce(settings.sandbox.disk_bytes, settings.sandbox.user_id)
    skipped: list[SkippedSample] = []
    if settings.data == "files":
        test, skipped = _benchmark_samples(settings)
    else:
        test = _generated_samples("test", settings.test, set())
    seen = {sample.problem for sample in test}
    write_records(out / "test.jsonl", test)
    for name in ("development", "demonstrations"):
        split: SplitSettings = getattr(settings, name)
        samples = _generated_samples(name, split, seen)
        seen |= {sample.problem for sample in samples}
        write_records(out / f"{name}.jsonl", samples)
    return skipped


def _generated_samples(name: str, split: SplitSettings, seen: set[str]) -> list[OsSample]:
    return [
        OsSample(
            index=f"{name}-{number:03d}",
            groups=dict(zip(("tier", "family"), source["labels"], strict=True)),
            source=source,
        )
        for number, source in enumerate(generate(f"{split.seed}/{name}", split.count, seen))
    ]


def _benchmark_samples(settings: Settings) -> tuple[list[OsSample], list[SkippedSample]]:
    """The first `test.count` of AgentBench's samples that can be played, and all that cannot."""
    scripts_path = Path(settings.scripts_path)
    found, skipped = read_files(
        Path(settings.data_path), scripts_path, in_sandbox=settings.backend == "embedded"
    )
    if not found:
        raise UserError(
            f"{settings.data_path}: none of the {len(skipped)} samples can be played; the first: "
            f"{skipped[0].reason if skipped else 'there is none'}."
        )
    samples = [
        OsSample(index=one.name, groups={"family": one.family}, source=one.source)
        for one in found[: settings.test.count]
    ]
    return samples, skipped


def read_samples(path: Path) -> list[OsSample]:
    """Raises UserError naming the first bad line."""
    return read_records(path, OsSample)


def is_problem(text: str) -> bool:
    """Any line may be one."""
    return bool(text)


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


def _machine(sample: OsSample, settings: Settings) -> Sandbox | DockerMachine:
    """Where the sample's commands run. AgentBench v0.2 reads `image`, never `local`."""
    if settings.backend != "docker":
        return Sandbox(settings.sandbox)
    create = sample.source.get("create")
    image = create.get("image") if isinstance(create, dict) else None
    return DockerMachine(image or settings.docker.image, settings.docker, settings.sandbox)


class OsEnvironment:
    """One sample being played; satisfies `interfaces.Environment`."""

    def __init__(self, sample: OsSample, settings: Settings) -> None:
        self._sample = sample
        self._settings = settings
        self._sandbox = _machine(sample, settings)
        self._turns = 0
        self.messages: Conversation = [Message(role="user", content=first_message(sample.problem))]
        self.status = "running"
        self.score = 0.0
        self.measures: dict[str, float] = {}
        # A server plays none of ours: what comes here with its backend is played embedded.
        backend = "docker" if settings.backend == "docker" else "embedded"
        self.details = {"backend": backend, "sandbox": self._sandbox.kind}
        self.error: str | None = None

    def __enter__(self) -> Self:
        """Start the machine and build the fixture; a failing init script is status "unknown"."""
        self._sandbox.__enter__()
        create = self._sample.source.get("create")
        try:
            # Two samples of AgentBench have a list here, which its loader ignores.
            for script in scripts(create.get("init") if isinstance(create, dict) else None):
                code, text = self._run_script(script, [])
                if code != 0:
                    self._end("unknown", error=f"init failed ({code}): {text[:200]}")
                    return self
            for script in scripts(self._sample.source.get("start")):
                self._sandbox.run(code_of(script))
        except Exception as error:  # one bad sample must not end the run; it is reported
            self._break("unknown", error)
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
        except Exception as error:  # one bad sample must not end the run; it is reported
            self._break("task error", error)
        return None

    def _act(self, command: str, reply: str) -> str | None:
        """Run `command`; the last turn's output is not shown, as nobody could act on it."""
        output = self._sandbox.run(command)
        ended = output.exit_code is None and not output.timed_out
        if self._turns == self._settings.max_turns:
            self._end("task limit reached")
            return None
        text = output.text + (SHELL_ENDED if ended else "")
        observation = show_output(text, self._settings.output_characters)
        self.messages = [
            *self.messages,
            Message(role="assistant", content=reply),
            Message(role="user", content=observation),
        ]
        return observation

    def _end(self, status: str, score: float = 0.0, error: str | None = None) -> None:
        self.status, self.score, self.error = status, score, error

    def _break(self, status: str, error: Exception) -> None:
        """End with score 0 and say why; a fault that is not the sandbox's is also logged whole."""
        if not isinstance(error, SandboxError | UserError):
            _log.error("sample %s", self._sample.index, exc_info=error)
        self._end(status, error=f"{type(error).__name__}: {error}")

    def _run_script(self, script: Script, arguments: list[str]) -> tuple[int | None, str]:
        output = self._sandbox.run_script(code_of(script), arguments, script.language)
        return output.exit_code, output.text

    def _judge(self, answer: str | None) -> bool:
        """Whether the episode passed. `answer` is None after finish.

        With `match`, the stripped answer must equal it (or contain its regular expression). With
        `check`, each script gets the answer and the outputs of those before it; all must exit 0.
        """
        evaluation = self._sample.evaluation
        if "match" in evaluation:
            return matches(answer, evaluation["match"])
        given = [str(answer)]
        self._sandbox.stop_agent()
        checks = evaluation["check"]
        for check in checks if isinstance(checks, list) else [checks]:
            script = scripts(evaluation["example"] if check is None else check)[0]
            name = Path(script.file or "").stem
            if script.code is None and name in NATIVE_CHECKS:
                if len(given) < 2 or not native_check(name, given[0], given[1]):
                    return False
                given.append("")  # they print nothing
                continue
            code, text = self._run_script(script, given)
            if code != 0:
                return False
            given.append(text)
        return True


def start(sample: OsSample, settings: Settings) -> Environment:
    """The sample's environment, to be entered as a context manager."""
    return OsEnvironment(sample, settings)
