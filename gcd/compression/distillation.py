"""Compressions to learn from: a text with its unimportant words deleted (LLMLingua-2, section 3.1).

Written by the base model, which is asked to delete words and nothing else, or by a rule: function
words go, and all but the first of equal marks in a row. The paper asks GPT-4.
"""

from gcd.compression.annotation import split_pieces
from gcd.core.interfaces import TextGenerator
from gcd.core.records import Conversation, Message

INSTRUCTION = (
    "Shorten the text that the user sends. Delete words that its meaning does not need, as many as "
    "you can. Write the words that are left as they are and in their order. Do not add, replace or "
    "explain anything. Reply with the shortened text only."
)
# What is asked for, shown twice: a small model answers the text otherwise.
SHOWN = (
    (
        "The train to Hamburg will leave from platform 4, and it is going to arrive there at 9:15.",
        "train Hamburg leave platform 4, arrive 9:15.",
    ),
    (
        "If you would like to see what is in the file, then you can use: cat notes.txt",
        "see in file, use: cat notes.txt",
    ),
)

# English words that carry grammar more than meaning. No negations: "not" turns a sentence round.
_FUNCTION_WORDS = """
    a an the this that these those there here
    i me my mine we us our you your yours he him his she her hers it its they them their
    am is are was were be been being do does did doing have has had having
    will would shall should can could may might must
    and or but so if then than as because while though although
    of in on at to from for by with about into onto over under between through during
    who whom whose which what when where why how
    very really quite rather just also too only even still already again
    please well now actually basically simply
    such some any each every both all more most much many other another own same
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())


def delete_by_rule(text: str) -> str:
    """The pieces of `text` but function words and repeated marks, one space between them."""
    kept: list[str] = []
    before = ""
    for piece in split_pieces(text):
        repeated = not piece.text.isalnum() and piece.text == before
        if piece.text.casefold() not in FUNCTION_WORDS and not repeated:
            kept.append(piece.text)
        before = piece.text
    return " ".join(kept)


def delete_by_model(
    texts: list[str], generator: TextGenerator, max_new_tokens: int
) -> list[str | None]:
    """What the model leaves of each text, greedily; None where it does not end in time."""
    prompt: Conversation = [Message(role="system", content=INSTRUCTION)]
    for text, shortened in SHOWN:
        prompt.append(Message(role="user", content=text))
        prompt.append(Message(role="assistant", content=shortened))
    replies = generator.generate(
        prompt,
        [[Message(role="user", content=text)] for text in texts],
        max_new_tokens=max_new_tokens,
        progress="compressions",
    )
    return [reply.text if reply and reply.complete else None for reply in replies]
