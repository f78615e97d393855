"""internalize.yaml, typed and read strictly."""

from pathlib import Path
from typing import Annotated

from pydantic import Field
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from gcd.core.errors import UserError
from gcd.core.params import check_section
from gcd.core.settings import Count, Name, Section, Share

FILE = Path("internalize.yaml")
Ratio = Annotated[float, Field(ge=1)]


class PromptSettings(Section):
    """How large a prompt may be, and how many tokens of the context it must leave."""

    max_bytes: Count
    context_room: Count


class HeldOutSettings(Section):
    """`count` inputs are asked for, from a stream of `seed`; fewer than `minimum` are an error."""

    count: Count
    minimum: Count
    seed: int


class PriceSettings(Section):
    """Of a million tokens that are read, and of as many that are written."""

    input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]


class TrafficSettings(Section):
    """What the prompt is used for: sessions a day, of so many turns each."""

    sessions_per_day: Count
    turns: Count
    price_per_million: PriceSettings


class AtLeast(Section):
    """Thresholds of a share: the higher the better."""

    keep: Share
    care: Share


class AtMost(Section):
    """Thresholds of a number that is 0 at best."""

    keep: Annotated[float, Field(ge=0)]
    care: Annotated[float, Field(ge=0)]


class AtMostRatio(Section):
    """Thresholds of a ratio that is 1 at best."""

    keep: Ratio
    care: Ratio


class VerdictSettings(Section):
    """The row that is judged, and two thresholds for each measure (`gcd.internalize.verdict`)."""

    student: Name
    kl: AtMost
    top1_agreement: AtLeast
    semantic_agreement: AtLeast
    format_validity: AtLeast
    length_ratio: AtMostRatio
    perplexity_ratio: AtMostRatio
    leak_worst: AtMost


class ReportSettings(Section):
    """How many examples are shown."""

    examples: Count


class Settings(Section):
    """internalize.yaml."""

    prompt: PromptSettings
    held_out: HeldOutSettings
    embedding_model: Name | None
    traffic: TrafficSettings
    verdict: VerdictSettings
    report: ReportSettings


def read_settings(path: Path = FILE) -> Settings:
    """Read internalize.yaml.

    Raises:
        UserError: it is missing or no YAML; a key is unknown, missing or mistyped; `care` asks for
            more than `keep`; or more held-out inputs are needed than asked for.
    """
    try:
        raw = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file. Run from the repository's folder.") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    settings: Settings = check_section("", Settings, raw, path)
    for name in VerdictSettings.model_fields:
        one = getattr(settings.verdict, name)
        if isinstance(one, str):
            continue
        stricter = one.keep >= one.care if isinstance(one, AtLeast) else one.keep <= one.care
        if not stricter:
            raise UserError(
                f"{path}: key `verdict.{name}`: expected `keep` to ask for at least as much as "
                f"`care`, got {one.keep} and {one.care}."
            )
    if settings.held_out.minimum > settings.held_out.count:
        raise UserError(
            f"{path}: key `held_out.minimum`: expected at most `held_out.count`, "
            f"{settings.held_out.count}; got {settings.held_out.minimum}."
        )
    return settings
