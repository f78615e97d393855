"""Self role-playing: the model is the agent and, with the roles swapped, its environment.

As agent it reads the prompt; as environment it reads a request to act as one, and the conversation
with `user` and `assistant` exchanged, beginning with the prompt's own demonstration turns (paper,
section 3.2; our wording). All conversations of a turn are generated together.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gcd.core.decoding import Sampling
from gcd.core.interfaces import Reply, Task, TextGenerator
from gcd.core.records import Conversation, Message, PairedOutput, PseudoConversation
from gcd.core.sessions import Sessions
from gcd.core.settings import MakePseudoConversationsSettings
from gcd.core.task_settings import SynthesisSettings
from gcd.synthesis.steps import ENVIRONMENT_REQUEST, Synthesis


@dataclass
class Dialogue:
    """A conversation in the making. `end` is "" while it runs; `fault` says what broke it off."""

    index: int
    messages: Conversation
    end: str = ""
    fault: str = ""

    @property
    def running(self) -> bool:
        return not self.end and not self.fault


def swap_roles(messages: Conversation) -> Conversation:
    """The same turns seen from the other side; system messages are dropped."""
    other = {"user": "assistant", "assistant": "user"}
    return [
        Message.model_validate({"role": other[message.role], "content": message.content})
        for message in messages
        if message.role != "system"
    ]


def environment_prompt(prompt: Conversation, task: Task, end_token: str) -> Conversation:
    """What the model reads as environment: its part, and the demonstrations from its side."""
    request = ENVIRONMENT_REQUEST.format(
        environment=task.WORDING.environment, agent=task.WORDING.agent, end_token=end_token
    )
    return [Message(role="system", content=request), *swap_roles(prompt)]


def _agent_turn(dialogue: Dialogue, reply: Reply | None, task: Task) -> None:
    """Append the agent's reply, or mark the dialogue as faulty or ended."""
    if reply is None:
        dialogue.fault = "longer than the context"
        return
    action = task.parse_action(reply.text)
    if not reply.text:
        dialogue.fault = "empty agent turn"
    elif not reply.complete:
        dialogue.fault = "agent turn too long"
    elif action is None:
        dialogue.fault = "agent turn without a valid action"
    else:
        dialogue.messages.append(Message(role="assistant", content=reply.text))
        if task.is_final(action):
            dialogue.end = "committed"


def _environment_turn(dialogue: Dialogue, reply: Reply | None, end_token: str) -> None:
    """Append the environment's reply, or mark the dialogue as faulty or ended."""
    if reply is None:
        dialogue.fault = "longer than the context"
    elif end_token in reply.text:
        dialogue.end = "environment"
    elif not reply.complete:
        dialogue.fault = "environment turn too long"
    elif not reply.text:
        dialogue.fault = "empty environment turn"
    else:
        dialogue.messages.append(Message(role="user", content=reply.text))


def make_pseudo_conversations(
    model: TextGenerator,
    prompt: Conversation,
    pairs: list[PairedOutput],
    task: Task,
    settings: MakePseudoConversationsSettings,
    sizes: SynthesisSettings,
    agent_max_new_tokens: int,
    seed: int,
    work: Path,
) -> Synthesis[PseudoConversation]:
    """Continue every teacher output into a conversation of at most `max_turns` agent turns.

    The teacher output of a pair is the agent's first turn: same prompt, same input, greedy. The
    environment is sampled: greedily, a small model shows one demonstration's output every time.

    `live_conversations` are played at the same time. Each such group is kept in `work` when it is
    done, and a killed run continues after the last one.
    """
    environment = environment_prompt(prompt, task, settings.end_token)
    result: Synthesis[PseudoConversation] = Synthesis()
    for start in range(0, len(pairs), settings.live_conversations):
        kept, counts = work / f"conversations-{start}.jsonl", work / f"conversations-{start}.json"
        if not kept.exists():
            dialogues = []
            for pair in pairs[start : start + settings.live_conversations]:
                opened = Message(role="user", content=task.first_message(pair.pseudo_input))
                dialogue = Dialogue(pair.index, [opened])
                _agent_turn(dialogue, Reply(pair.teacher_output, 0, 0, complete=True), task)
                dialogues.append(dialogue)
            # Each side keeps the keys and values of its last turn.
            show = partial(
                model.generate,
                environment,
                max_new_tokens=sizes.environment_tokens,
                sessions=Sessions(),
            )
            act = partial(
                model.generate, prompt, max_new_tokens=agent_max_new_tokens, sessions=Sessions()
            )
            _play(dialogues, show, act, task, settings, sizes.max_turns, seed + start)
            _collect(dialogues).write(kept, counts)
        result.add(kept, counts, PseudoConversation)
    return result


def _play(
    dialogues: list[Dialogue],
    show: Callable[..., list[Reply | None]],
    act: Callable[..., list[Reply | None]],
    task: Task,
    settings: MakePseudoConversationsSettings,
    max_turns: int,
    seed: int,
) -> None:
    """Turn by turn to the end of all: what the environment shows, how the agent acts.

    Args:
        show, act: `TextGenerator.generate` of either side.
    """
    for turn in range(2, max_turns + 1):
        running = [dialogue for dialogue in dialogues if dialogue.running]
        if not running:
            break
        replies = show(
            [swap_roles(dialogue.messages) for dialogue in running],
            sampling=Sampling(settings.temperature, settings.top_p, f"{seed}/environment/{turn}"),
            openings=[task.WORDING.environment_opening] * len(running),
            progress=f"environment, turn {turn - 1}",
        )
        for dialogue, reply in zip(running, replies, strict=True):
            _environment_turn(dialogue, reply, settings.end_token)
        running = [dialogue for dialogue in running if dialogue.running]
        replies = act([dialogue.messages for dialogue in running], progress=f"agent, turn {turn}")
        for dialogue, reply in zip(running, replies, strict=True):
            _agent_turn(dialogue, reply, task)


def _collect(dialogues: list[Dialogue]) -> Synthesis[PseudoConversation]:
    """The conversations, each up to its last good agent turn, and how many turns were faulty.

    What came before a faulty turn is as good as ever: the simulated environment breaks a third of
    the conversations off (38 of 120 with the default model), and dropping those would lose a third
    of the data.
    """
    result: Synthesis[PseudoConversation] = Synthesis()
    for dialogue in dialogues:
        if dialogue.fault:
            result.rejected[dialogue.fault] += 1
        messages = dialogue.messages[: len(dialogue.messages) // 2 * 2]
        if messages:
            end = dialogue.end or ("faulty turn" if dialogue.fault else "turn limit")
            result.kept.append(PseudoConversation(index=dialogue.index, messages=messages, end=end))
    return result
