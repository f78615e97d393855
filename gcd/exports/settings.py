"""gcd/exports/settings.yaml, typed, without defaults."""

from pathlib import Path
from typing import Literal

from ruamel.yaml import YAML

from gcd.core.params import check_section
from gcd.core.settings import Section

FILE = Path(__file__).with_name("settings.yaml")
Gguf = Literal["adapter", "merged"]  # what there may be a GGUF file of


class ConverterSettings(Section):
    """A source release of a Python package, its SHA-256, and where in it llama.cpp lies."""

    package: str
    version: str
    sha256: str
    folder: str


class PublicBase(Section):
    """The hub's name of a model, and its licence by SPDX's name."""

    id: str
    licence: str


class ExportSettings(Section):
    """`public_bases` by the package of the wheel that holds the model."""

    converter: ConverterSettings
    public_bases: dict[str, PublicBase]


def read_settings() -> ExportSettings:
    """The file's content; raises UserError naming a missing or mistyped key."""
    raw = YAML(typ="safe").load(FILE.read_text(encoding="utf-8"))
    settings: ExportSettings = check_section("", ExportSettings, raw, FILE)
    return settings
