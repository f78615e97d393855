"""Mind2Web's step metrics as AgentBench v0.2 computes them (task.py, `metric`, `calculate_f1`)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Prediction:
    """The chosen element's `backend_node_id`, and `OPERATION value`."""

    element: str
    operation: str


@dataclass(frozen=True)
class Target:
    """Every element that is right (positives among the ten best ranked), and `OPERATION value`."""

    elements: list[str]
    operation: str


@dataclass(frozen=True)
class StepScore:
    """Each in [0, 1]; `success` is 1 where the element is right and `action_f1` is 1."""

    element_accuracy: float
    action_f1: float
    success: float


def action_f1(predicted: str, wanted: str) -> float:
    """F1 of the two SETS of blank-separated words, case-sensitive; 1 if both are empty."""
    given, right = set(predicted.split()), set(wanted.split())
    if not given and not right:
        return 1.0
    common = len(given & right)
    if not common:
        return 0.0
    precision, recall = common / len(given), common / len(right)
    return 2 * precision * recall / (precision + recall)


def score_step(prediction: Prediction | None, target: Target | None) -> StepScore:
    """All 0 without a prediction, or without a target (no positive among the ten best ranked)."""
    if prediction is None or target is None:
        return StepScore(0.0, 0.0, 0.0)
    right = prediction.element in target.elements
    f1 = action_f1(prediction.operation, target.operation)
    return StepScore(float(right), f1, float(right and f1 >= 1))


def overall(steps: list[StepScore]) -> dict[str, float]:
    """The benchmark's three percentages over all steps, under its own names."""
    return {
        "element_acc": sum(step.element_accuracy for step in steps) / len(steps) * 100,
        "action_f1": sum(step.action_f1 for step in steps) / len(steps) * 100,
        "step_sr": sum(step.success for step in steps) / len(steps) * 100,
    }
