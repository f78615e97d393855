"""What a method brings to the training loop: examples, their weights and losses; and batches."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from gcd.core.sessions import common_length
from gcd.training.losses import Example, LossSums, read_ids


@dataclass(frozen=True)
class Visit:
    """An example that was drawn: its place among the term's examples, and a random stream."""

    example: Example
    place: int
    stream: str


def as_they_are(visits: list[Visit]) -> list[Example]:
    """The `Term.visit` of examples that are the same in every epoch."""
    return [visit.example for visit in visits]


@dataclass(frozen=True)
class Term:
    """Examples, and one or more losses on them that one reading gives.

    Attributes:
        weights: of each loss in the sum, by its column in loss.csv; the first names the random
            stream. One of weight 0 is shown only; where all are 0 the term is not computed.
        examples: what batches are drawn from, each once an epoch.
        truncated: how many examples were cut at a length limit (reported, not used).
        batch_size: examples of a batch.
        every: a batch joins every so many optimizer steps, from the first on.
        loss_sums: the losses summed over the supervised tokens of a batch, in `weights`' order.
        visit: a drawn batch as it is trained on this time.
        measures: more columns of loss.csv, of the whole batch as it is trained on.
    """

    weights: dict[str, float]
    examples: list[Example]
    truncated: int
    batch_size: int
    every: int
    loss_sums: LossSums
    visit: Callable[[list[Visit]], list[Example]] = as_they_are
    measures: dict[str, Callable[[list[Example]], float]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return next(iter(self.weights))

    @property
    def counts(self) -> bool:
        """Whether it contributes to the loss."""
        return any(weight > 0 for weight in self.weights.values())

    def draw(self, step: int, seed: int) -> list[Example]:
        """The examples of optimizer step `step`: a fresh seeded order every pass over the data."""
        visits = []
        batch = step // self.every
        for place in range(batch * self.batch_size, (batch + 1) * self.batch_size):
            epoch, position = divmod(place, len(self.examples))
            order = list(range(len(self.examples)))
            random.Random(f"{seed}/{self.name}/{epoch}").shuffle(order)
            example = order[position]
            stream = f"{seed}/{self.name}/{epoch}/{example}"
            visits.append(Visit(self.examples[example], example, stream))
        return self.visit(visits)


def row_tokens(group: list[list[int]]) -> int:
    """What a row of these ids reads: their common start once (`losses.pack`)."""
    shared = min(common_length(group[0], ids) for ids in group)
    return shared + sum(len(ids) - shared for ids in group)


def micro_batches(examples: list[Example], tokens: int) -> list[list[Example]]:
    """`examples` in groups whose rows have at most `tokens` tokens; a longer one stands alone.

    Neighbours by sorted ids are joined, those with the longest common start first, unless the row
    would be too long, or longer than both apart: where one that begins otherwise would make the
    others read their common start, a prompt perhaps, once each.
    """
    ordered = sorted(examples, key=lambda example: example.ids)
    groups = [[(read_ids(example), example)] for example in ordered]

    def start(place: int) -> int:
        """Tokens that the group at `place` and its neighbour have in common; -1 if apart."""
        one, other = ([ids for ids, _ in groups[place + step]] for step in (0, 1))
        joined = row_tokens(one + other)
        if joined > min(tokens, row_tokens(one) + row_tokens(other)):
            return -1
        return common_length(one[0], other[-1])

    while len(groups) > 1:
        best = max(range(len(groups) - 1), key=start)
        if start(best) < 0:
            break
        groups[best : best + 2] = [groups[best] + groups[best + 1]]
    return [[example for _, example in group] for group in groups]


@dataclass(frozen=True)
class MicroBatch:
    """What a process computes at once; `counts` is false for one that only keeps in step."""

    term: Term
    examples: list[Example]
    counts: bool
