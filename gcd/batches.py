"""How a batch is dealt out to processes, and cut into what memory holds."""

from gcd.losses import Example


def deal(sizes: list[int], processes: int) -> list[list[int]]:
    """Indices of `sizes` for every process: the largest first, to the one that has least so far.

    A process may get none. Each one's indices ascend: one process has all in order.
    """
    loads = [0] * processes
    dealt: list[list[int]] = [[] for _ in loads]
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        process = loads.index(min(loads))
        dealt[process].append(index)
        loads[process] += sizes[index]
    return [sorted(indices) for indices in dealt]


def micro_batches(examples: list[Example], tokens: int) -> list[list[Example]]:
    """`examples` in order, in groups of at most `tokens` tokens; a longer example stands alone."""
    groups: list[list[Example]] = []
    room = 0
    for example in examples:
        if len(example.ids) > room:
            groups.append([])
            room = tokens
        groups[-1].append(example)
        room -= len(example.ids)
    return groups
