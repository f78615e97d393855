"""Self role-playing: ours against one conversation at a time with everything read anew each turn.

python -m benchmarks.synthesis

The environment's turns are greedy on both sides (its nucleus is a single token), so that both play
the same conversations; and they go on after an answer, so that they have all their turns unless a
turn is cut at its limit, which ends them on both sides. Pseudo inputs: the first of `dvc repro`.
"""

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from benchmarks.measure import alternate, compare_sides, run
from benchmarks.reference import load_plain, reply
from benchmarks.results import BenchmarkRecord, write_record
from benchmarks.settings import CommonSettings, SynthesisSettings, read_settings
from gcd.core import settings as product
from gcd.core import task_settings
from gcd.core.base_model import load_base
from gcd.core.errors import UserError
from gcd.core.interfaces import Task, load_task
from gcd.core.language_model import LanguageModel
from gcd.core.params import read_params
from gcd.core.records import Action, Conversation, Message, PairedOutput, read_records
from gcd.data import pseudo_folder, read_prompt
from gcd.synthesis.role_play import environment_prompt, make_pseudo_conversations, swap_roles

ONE_TOKEN = 1e-6  # a nucleus that small holds the most probable token alone


def unending(task: Task) -> Task:
    """`task` without an end: every reply is an action, and none is final."""
    action = Action(kind="any", content=None)
    return cast(
        Task,
        SimpleNamespace(
            WORDING=task.WORDING,
            first_message=task.first_message,
            parse_action=lambda reply: action,
            is_final=lambda action: False,
        ),
    )


def play_together(
    model: LanguageModel,
    prompt: Conversation,
    inputs: list[PairedOutput],
    task: Task,
    settings: SynthesisSettings,
    end_token: str,
) -> dict[int, Conversation]:
    """Our side: first turns as `make_paired_outputs` asks for them, the rest as the stage does."""
    opened = [
        [Message(role="user", content=task.first_message(item.pseudo_input))] for item in inputs
    ]
    first = model.generate(
        prompt, opened, max_new_tokens=settings.agent_tokens, progress="agent, turn 1"
    )
    pairs = [
        item.model_copy(update={"teacher_output": made.text})
        for item, made in zip(inputs, first, strict=True)
        if made and made.complete
    ]
    sampling = product.MakePseudoConversationsSettings(
        model="base",
        minimum=1,
        live_conversations=len(inputs),
        temperature=1.0,
        top_p=ONE_TOKEN,
        end_token=end_token,
    )
    # Only the last two count here: the others are those of the stages before.
    sizes = task_settings.SynthesisSettings(
        inputs=len(inputs),
        per_request=1,
        input_tokens=1,
        input_characters=1,
        reasons=1,
        max_turns=settings.turns,
        environment_tokens=settings.environment_tokens,
    )
    with tempfile.TemporaryDirectory() as work:
        made = make_pseudo_conversations(
            model, prompt, pairs, task, sampling, sizes, settings.agent_tokens, 0, Path(work)
        )
    return {conversation.index: conversation.messages for conversation in made.kept}


def play_alone(
    model: Any,
    tokenizer: Any,
    prompt: Conversation,
    item: PairedOutput,
    task: Task,
    settings: SynthesisSettings,
    end_token: str,
) -> Conversation:
    """The reference's: one conversation up to its last whole agent turn."""
    environment = environment_prompt(prompt, task, end_token)
    opening = task.WORDING.environment_opening
    messages = [Message(role="user", content=task.first_message(item.pseudo_input))]
    while True:
        request = [*prompt, *messages]
        [(text, complete)] = reply(model, tokenizer, [request], settings.agent_tokens)
        if not complete or not text:
            return messages[:-1]
        messages.append(Message(role="assistant", content=text))
        if len(messages) == 2 * settings.turns:
            return messages
        request = [*environment, *swap_roles(messages)]
        [(text, complete)] = reply(
            model, tokenizer, [request], settings.environment_tokens, opening
        )
        if end_token in text or not complete or not text:
            return messages
        messages.append(Message(role="user", content=text))


def main() -> BenchmarkRecord:
    common = read_settings("common", CommonSettings)
    settings = read_settings("synthesis", SynthesisSettings)
    params = read_params("model", "make_pseudo_conversations")
    path = pseudo_folder(common.task) / "paired_outputs.jsonl"
    inputs = read_records(path, PairedOutput)[: settings.conversations]
    if len(inputs) < settings.conversations:
        raise UserError(f"{path}: expected {settings.conversations} pairs, got {len(inputs)}.")
    task = unending(load_task(common.task))
    prompt = read_prompt(common.task)[1]
    end_token = params.make_pseudo_conversations.end_token
    base, tokenizer = load_base(params.model)
    plain = load_plain(params.model)
    share = settings.reference_share

    def ours(_: int, chosen: list[PairedOutput] = inputs) -> dict[int, Conversation]:
        model = LanguageModel(base, tokenizer, params.model, None)
        return play_together(model, prompt, chosen, task, settings, end_token)

    def reference(repeat: int) -> dict[int, Conversation]:
        return {
            item.index: play_alone(plain, tokenizer, prompt, item, task, settings, end_token)
            for item in inputs[repeat % share :: share]
        }

    def warm_up() -> None:
        ours(0, inputs[:1])
        play_alone(plain, tokenizer, prompt, inputs[0], task, settings, end_token)

    runs = alternate({"ours": ours, "reference": reference}, settings.repeats, [warm_up])
    played = runs["ours"][0].result
    alone = {index: text for one in runs["reference"] for index, text in one.result.items()}
    comparisons = compare_sides(
        runs,
        f"{settings.conversations} conversations x {settings.turns} turns",
        settings.at_least,
        reference_share=settings.reference_share,
    )
    facts = {
        "prompt_tokens": LanguageModel(base, tokenizer, params.model, None).count_prompt_tokens(
            prompt
        ),
        "agent_turns": sum(len(messages) // 2 for messages in played.values()),
        "conversations_compared": len(alone),
        "conversations_identical": sum(
            played.get(index, []) == messages for index, messages in alone.items()
        ),
    }
    used = common.model_dump() | settings.model_dump()
    return write_record("synthesis", comparisons, settings.repeats, used, facts)


if __name__ == "__main__":
    run(main)
