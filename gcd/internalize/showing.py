"""How a measure is shown: its title, its unit, its interval."""

from gcd.report.tables import NOTHING, interval, percent

TITLES = {
    "kl": "KL to the teacher (nats)",
    "top1_agreement": "First choices (%)",
    "exact_agreement": "Same reply (%)",
    "semantic_agreement": "Cosine",
    "format_validity": "Format (%)",
    "length_ratio": "Length (×)",
    "perplexity_ratio": "Perplexity (×)",
    "leak_worst": "Leak, worst (%)",
}
PERCENT = {"top1_agreement", "exact_agreement", "format_validity", "leak_worst"}


def shown(measure: str, estimate: dict[str, float] | None) -> str:
    """A value, with its interval if it has one, in the unit of its title."""
    if estimate is None:
        return NOTHING
    if measure in PERCENT:
        return interval(estimate, 100) if "low" in estimate else percent(estimate["value"])
    value = f"{estimate['value']:.3f}"
    return f"{value} ({estimate['low']:.3f}-{estimate['high']:.3f})" if "low" in estimate else value


def threshold(measure: str, value: float) -> str:
    """A threshold in the same unit."""
    return f"{100 * value:g}" if measure in PERCENT else f"{value:g}"
