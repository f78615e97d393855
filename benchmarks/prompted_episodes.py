"""Prompted episodes: our agent against batched `generate` that reads the whole history each turn.

python -m benchmarks.prompted_episodes

Both agents play through `gcd.acting.rollout.play`, in an environment that answers at once with what
the real one answered in the recorded episodes of `full_prompt`: only the agents' time counts.
"""

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, cast

from benchmarks.measure import alternate, compare_sides, run
from benchmarks.reference import load_plain, reply
from benchmarks.results import BenchmarkRecord, write_record
from benchmarks.settings import CommonSettings, PromptedEpisodesSettings, read_settings
from gcd.acting.rollout import play
from gcd.agents import ChatAgent
from gcd.core.base_model import load_base
from gcd.core.errors import UserError
from gcd.core.interfaces import Reply, Task, load_task
from gcd.core.language_model import LanguageModel
from gcd.core.params import read_params
from gcd.core.records import FULL_PROMPT, Conversation, Episode, Message, Played, read_records
from gcd.data import read_prompt


class RecordedEnvironment:
    """Shows what it showed in a recorded episode, for as many turns as that had."""

    def __init__(self, episode: Episode, first_message: str) -> None:
        self._observations = [turn.observation for turn in episode.turns]
        self.messages: Conversation = [Message(role="user", content=first_message)]
        self.status = "running"
        self.score = 0.0
        self.measures: dict[str, float] = {}
        self.details: dict[str, str] = {}
        self.error: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing was started."""

    def step(self, reply: str) -> str | None:
        observation = self._observations.pop(0)
        if observation is None:
            self.status = "completed"
            return None
        self.messages = [
            *self.messages,
            Message(role="assistant", content=reply),
            Message(role="user", content=observation),
        ]
        return observation


def recorded(task: Task) -> Task:
    """`task`, its samples being recorded episodes."""
    return cast(
        Task,
        SimpleNamespace(
            parse_action=task.parse_action,
            start=lambda episode, settings: RecordedEnvironment(
                episode, task.first_message(episode.problem)
            ),
        ),
    )


class PlainAgent:
    """The reference: all running conversations in one padded batch, prompt and all, every turn."""

    deployment = "base"
    adapter_parameters = 0
    prompt_tokens = 0
    bytes_to_ship = 0

    def __init__(
        self, model: Any, tokenizer: Any, prompt: Conversation, max_new_tokens: int
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._max_new_tokens = max_new_tokens

    def reply(self, conversations: list[Conversation]) -> list[Reply | None]:
        return self.write(conversations, self._max_new_tokens)

    def write(self, conversations: list[Conversation], max_new_tokens: int) -> list[Reply | None]:
        asked = [[*self._prompt, *messages] for messages in conversations]
        made = reply(self._model, self._tokenizer, asked, max_new_tokens)
        return [Reply(text, 0, 0, complete) for text, complete in made]


def texts(played: list[Played]) -> list[list[str]]:
    """The replies of each episode."""
    return [[turn.reply for turn in one.episode.turns] for one in played]


def main() -> BenchmarkRecord:
    common = read_settings("common", CommonSettings)
    settings = read_settings("prompted_episodes", PromptedEpisodesSettings)
    params = read_params("model")
    path = Path("reports/episodes", common.task, FULL_PROMPT, FULL_PROMPT, "episodes.jsonl")
    episodes = [one for one in read_records(path, Episode) if one.turns][: settings.episodes]
    if len(episodes) < settings.episodes:
        raise UserError(f"{path}: expected {settings.episodes} episodes, got {len(episodes)}.")
    task = recorded(load_task(common.task))
    prompt = read_prompt(common.task)[1]
    base, tokenizer = load_base(params.model)
    plain = load_plain(params.model)

    def play_all(agent: Any, samples: list[Episode]) -> list[Played]:
        with tempfile.TemporaryDirectory() as work:
            played, _ = play(
                agent,
                task,
                None,
                samples,
                [],
                task_name=common.task,
                row=FULL_PROMPT,
                live=settings.episodes,
                work=Path(work),
            )
        return played

    def ours(_: int, samples: list[Episode] = episodes) -> list[Played]:
        agent = ChatAgent(
            LanguageModel(base, tokenizer, params.model, None),
            prompt,
            max_new_tokens=settings.max_new_tokens,
            deployment="base",
            adapter_parameters=0,
            bytes_to_ship=0,
        )
        return play_all(agent, samples)

    def reference(_: int, samples: list[Episode] = episodes) -> list[Played]:
        agent = PlainAgent(plain, tokenizer, prompt, settings.max_new_tokens)
        return play_all(agent, samples)

    def warm_up() -> None:
        ours(0, episodes[:1])
        reference(0, episodes[:1])

    runs = alternate({"ours": ours, "reference": reference}, settings.repeats, [warm_up])
    made, plainly = (texts(runs[side][0].result) for side in ("ours", "reference"))
    comparisons = compare_sides(runs, f"{settings.episodes} episodes", settings.at_least)
    facts = {
        "prompt_tokens": runs["ours"][0].result[0].episode.prompt_tokens,
        "turns": sum(map(len, made)),
        "episodes_identical": sum(one == other for one, other in zip(made, plainly, strict=True)),
    }
    used = common.model_dump() | settings.model_dump()
    return write_record("prompted_episodes", comparisons, settings.repeats, used, facts)


if __name__ == "__main__":
    run(main)
