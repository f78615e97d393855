"""Text on its way into a sandbox's bash and out of it."""

import re

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[@-Z\\-_])|\r")


def clean(data: bytes) -> str:
    """What a terminal would show: without escape sequences, carriage returns and zero bytes."""
    return _ESCAPES.sub("", data.decode("utf-8", errors="replace")).replace("\0", "")


def quote(text: str) -> str:
    """A shell word on one line that bash reads as `text` without starting a program."""
    for character, escaped in (("\\", r"\\"), ("'", r"\'"), ("\n", r"\n"), ("\0", "")):
        text = text.replace(character, escaped)
    return f"$'{text}'"
