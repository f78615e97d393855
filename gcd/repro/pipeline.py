"""What DVC knows about the pipeline: its stages, what each waits for, and what has changed."""

from collections.abc import Iterable
from dataclasses import dataclass

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro

from gcd.core.errors import UserError
from gcd.repro.schedule import Upstream


@dataclass(frozen=True)
class Pipeline:
    """`upstream`: for each stage those it waits for, in the order in which `dvc repro` runs them.

    `changed`: the stages that `dvc status` names, and all that come after them.
    """

    upstream: Upstream
    changed: set[str]

    def only(self, stages: set[str]) -> "Pipeline":
        """The pipeline without all other stages."""
        upstream = {
            stage: earlier & stages for stage, earlier in self.upstream.items() if stage in stages
        }
        return Pipeline(upstream, self.changed & stages)


def read_pipeline() -> Pipeline:
    """Read dvc.yaml, dvc.lock and the state of the files.

    Raises:
        UserError: DVC cannot read them.
    """
    try:
        with Repo() as repo:
            graph = get_active_graph(repo.index.graph)
            order = plan_repro(graph, collect_stages(repo, ["dvc.yaml"]))
            names = {stage: stage.addressing for stage in order}
            upstream = {
                names[stage]: {names[earlier] for earlier in graph.successors(stage)}
                for stage in order
            }
            touched = repo.status().keys() & upstream.keys()
            changed: set[str] = set()
            for stage in order:  # those that it waits for come before it
                if names[stage] in touched or upstream[names[stage]] & changed:
                    changed.add(names[stage])
    except DvcException as error:
        raise UserError(f"DVC: {' '.join(str(error).split())}") from error
    return Pipeline(upstream, changed)


def needed_by(stages: list[str], upstream: Upstream) -> set[str]:
    """`stages` and all that they wait for, directly or not.

    Raises:
        UserError: one of `stages` is not in the pipeline.
    """
    found: set[str] = set()
    waiting = list(stages)
    while waiting:
        stage = waiting.pop()
        if stage not in upstream:
            raise UserError(f"--stages: no stage `{stage}`; `dvc stage list` names them.")
        if stage not in found:
            found.add(stage)
            waiting += upstream[stage]
    return found


def cells_of(tasks: list[str], known: Iterable[str], stages: Iterable[str]) -> set[str]:
    """The cells of `tasks`, and all that belong to no task.

    Args:
        tasks, known: keys under `tasks:` in params.yaml, the wanted ones and all.
        stages: DVC's names: `score`, `fit@os_interaction-gcd` (the task comes first).

    Raises:
        UserError: one of `tasks` is not known.
    """
    for task in tasks:
        if task not in known:
            raise UserError(f"--tasks: no task `{task}`; params.yaml has: {', '.join(known)}.")
    others = set(known) - set(tasks)
    return {stage for stage in stages if stage.partition("@")[2].split("-")[0] not in others}
