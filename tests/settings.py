"""The settings of the repository's own params.yaml, for tests."""

from typing import Any

from ruamel.yaml import YAML

from gcd.core.interfaces import load_task
from gcd.core.params import check_section
from tests.conftest import ROOT


def task_settings(name: str, **changes: Any) -> Any:
    """The settings of a task, with `changes`."""
    section = YAML(typ="safe").load(ROOT / "params.yaml")["tasks"][name]
    settings = check_section(f"tasks.{name}", load_task(name).Settings, section)
    return settings.model_copy(update=changes)
