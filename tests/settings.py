"""The settings of the repository's own params.yaml, for tests."""

from typing import Any

from ruamel.yaml import YAML

from gcd.core.interfaces import load_method, load_task
from gcd.core.params import SECTIONS, check_section
from tests.conftest import ROOT


def task_settings(name: str, **changes: Any) -> Any:
    """The settings of a task, with `changes`."""
    section = YAML(typ="safe").load(ROOT / "params.yaml")["tasks"][name]
    settings = check_section(f"tasks.{name}", load_task(name).Settings, section)
    return settings.model_copy(update=changes)


def method_settings(name: str) -> Any:
    """The settings of a method."""
    section = YAML(typ="safe").load(ROOT / "params.yaml")["methods"][name]
    return check_section(f"methods.{name}", load_method(name).Settings, section)


def sections(*names: str) -> dict[str, Any]:
    """Sections that several stages share, by name."""
    file = YAML(typ="safe").load(ROOT / "params.yaml")
    return {name: check_section(name, SECTIONS[name], file[name]) for name in names}
