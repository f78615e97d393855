"""Keys and values of a conversation, kept for its next turn.

What an agent reads in a turn usually begins with what it read and wrote in the turn before. The
token ids that the two have in common need not be read again: with long observations that is most
of the work of an episode.
"""

from dataclasses import dataclass

from torch import Tensor

Layers = list[tuple[Tensor, Tensor]]  # per layer: keys and values, each [key heads, n, head size]


@dataclass(frozen=True)
class Held:
    """What a conversation's turn left behind.

    `ids` were read, first the `context` many of the conversation, then those of the reply;
    `layers` are their keys and values.
    """

    ids: list[int]
    context: int
    layers: Layers


def common_length(first: list[int], second: list[int]) -> int:
    """How many ids two sequences have in common from the start."""
    for place, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return place
    return min(len(first), len(second))


class Sessions:
    """The conversations of the last call of `generate`, all behind the same prompt."""

    def __init__(self) -> None:
        self._held: list[Held] = []
        self._new: list[Held] = []

    def begin(self) -> None:
        """A new call: what the last one left can be used, what it found there is given up."""
        self._held, self._new = self._new, []

    def find(self, ids: list[int]) -> Layers | None:
        """Keys and values of as many of the first `ids` as are held; never of the last one.

        The last id has to be read, because its logits give the reply's first token. Only what
        continues a whole context counts: the few ids that all conversations begin with would save
        nothing, and make a reply's rounding depend on what was asked before.
        """
        for held in self._held:
            length = common_length(held.ids, ids[:-1])
            if length >= held.context:
                return [(keys[:, :length], values[:, :length]) for keys, values in held.layers]
        return None

    def hold(self, ids: list[int], context: int, layers: Layers) -> None:
        """Keep a conversation for the next call."""
        self._new.append(Held(ids, context, layers))
