"""From a conversation to token ids and loss mask. Nothing else touches a chat template.

The template is rendered once with placeholders for the contents, split there into frames (headers,
end-of-turn tokens), and frames and contents are tokenised apart. So a content can never forge a
turn (control tokens in it are read as plain text), and what a student is trained on is exactly
what it is asked at inference: frame ids, then content ids.
"""

from dataclasses import dataclass
from typing import Any

from gcd.core.errors import UserError
from gcd.core.records import Conversation, Message

# Private-use characters that no text contains; rendered around a message's number.
_OPEN, _CLOSE = "\ue000", "\ue001"


@dataclass(frozen=True)
class Rendered:
    """A tokenised conversation.

    Attributes:
        ids: token ids.
        supervised: same length; True on contents of assistant turns and their end-of-turn token.
        content_ends: for each message, the position in `ids` just after its content.
    """

    ids: list[int]
    supervised: list[bool]
    content_ends: list[int]


def stop_ids(tokenizer: Any) -> set[int]:
    """The ids that end an assistant turn."""
    return {tokenizer.eos_token_id}


def _frames(tokenizer: Any, messages: Conversation, generation_header: bool) -> list[str]:
    """The template's text before, between and after the contents: one more than messages."""
    if tokenizer.chat_template is None:
        raise UserError("The model has no chat template. Choose an instruction-tuned model.")
    marks = [f"{_OPEN}{index}{_CLOSE}" for index in range(len(messages))]
    text = tokenizer.apply_chat_template(
        [
            {"role": message.role, "content": mark}
            for message, mark in zip(messages, marks, strict=True)
        ],
        tokenize=False,
        add_generation_prompt=generation_header,
    )
    frames = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found:
            raise UserError("The model's chat template drops or reorders turns; choose another.")
        frames.append(before)
    return [*frames, text]


def render(tokenizer: Any, messages: Conversation, *, generation_header: bool) -> Rendered:
    """Tokenise `messages`.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        messages: at least one; no content may be empty.
        generation_header: append the header that opens an assistant turn.

    Raises:
        UserError: an empty turn, or a chat template that cannot be used.
    """
    for message in messages:
        if not message.content.strip():
            raise UserError(f"A {message.role} turn is empty; every turn needs a text.")
    frames = _frames(tokenizer, messages, generation_header)
    ids: list[int] = []
    supervised: list[bool] = []
    content_ends = []
    after_assistant = False
    for index, frame in enumerate(frames):
        frame_ids = tokenizer.encode(frame, add_special_tokens=False)
        if after_assistant and (not frame_ids or frame_ids[0] not in stop_ids(tokenizer)):
            raise UserError("The chat template does not end assistant turns with the end token.")
        ids += frame_ids
        supervised += [after_assistant and place == 0 for place in range(len(frame_ids))]
        if index < len(messages):
            content_ids = encode_text(tokenizer, messages[index].content)
            after_assistant = messages[index].role == "assistant"
            ids += content_ids
            supervised += [after_assistant] * len(content_ids)
            content_ends.append(len(ids))
    return Rendered(ids, supervised, content_ends)


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Token ids of plain text: a control token written in it is not interpreted."""
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return list(ids)


def render_request(
    tokenizer: Any, prompt: Conversation, messages: Conversation, opening: str
) -> tuple[list[int], list[int]]:
    """Ids of what a model reads before it replies: those of the prompt, and the rest.

    Args:
        prompt: what every request begins with (may be empty).
        messages: the conversation after it.
        opening: text that the reply is made to begin with ("" for none).
    """
    rendered = render(tokenizer, [*prompt, *messages], generation_header=True)
    cut = rendered.content_ends[len(prompt) - 1] if prompt else 0
    ids = rendered.ids + (encode_text(tokenizer, opening) if opening else [])
    return ids[:cut], ids[cut:]


def prompt_ids(tokenizer: Any, prompt: Conversation) -> list[int]:
    """Ids that every request with `prompt` begins with; none for an empty one."""
    return render_request(tokenizer, prompt, [Message(role="user", content="?")], "")[0]


def header_ids(tokenizer: Any, prompt: Conversation) -> list[int]:
    """Ids that stand before the first content of `prompt` (at least one message)."""
    rendered = render(tokenizer, prompt, generation_header=True)
    content = encode_text(tokenizer, prompt[0].content)
    return rendered.ids[: rendered.content_ends[0] - len(content)]
