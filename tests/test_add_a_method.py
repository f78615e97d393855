"""docs/add-a-method.md is true: its two blocks, put into a repository, give rows of the table."""

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gcd.core.chat import render
from gcd.core.params import check_section
from gcd.training.losses import Example
from tests import tiny
from tests.conftest import ROOT
from tests.miniature import make_repository, repro

NAME = "first_turns"
LINK = re.compile(r"\]\(\.\./([\w./]+)\)")


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / "docs/add-a-method.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def blocks(page: str) -> dict[str, str]:
    """{path: text} of the page's code blocks; their first line names the file."""
    return dict(re.findall(r"```(?:python|yaml)\n# (\S+).*?\n(.*?)```", page, re.DOTALL))


@pytest.fixture(scope="module")
def method(blocks: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The page's module, imported."""
    folder = tmp_path_factory.mktemp("package")
    (folder / f"{NAME}.py").write_text(blocks[f"gcd/methods/{NAME}.py"])
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(NAME)
    finally:
        sys.path.remove(str(folder))


def test_the_page_names_files_that_exist(page: str) -> None:
    links = LINK.findall(page)
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_its_key_fills_a_row_for_each_number(blocks: dict[str, str], method: Any) -> None:
    section = YAML(typ="safe").load(blocks["params.yaml"])[NAME]
    settings = check_section(f"methods.{NAME}", method.Settings, section)
    assert method.rows(settings) == ["first_turns_1", "first_turns_2"]


def test_turns_are_kept_with_their_end_tokens(tokenizer: Any, method: Any) -> None:
    """One of two turns, both, and more than there are; one alone is the conversation up to it."""
    turns = [tiny.user("Hi."), tiny.assistant(tiny.BASH)]
    turns += [tiny.user(tiny.OUTPUT), tiny.assistant(tiny.ANSWER)]
    rendered = render(tokenizer, turns, generation_header=False)
    example = Example(rendered.ids, rendered.supervised)
    labels = [place for place, flag in enumerate(rendered.supervised) if flag]
    first = method.keep_turns(example, 1)
    alone = render(tokenizer, turns[:2], generation_header=False)
    assert first.label_count == sum(alone.supervised)
    assert first.ids == alone.ids[: len(first.ids)]
    assert first.ids[-1] == tokenizer.eos_token_id
    both = method.keep_turns(example, 2)
    assert both.ids == example.ids[: labels[-1] + 1]
    assert both.label_count == example.label_count
    assert method.keep_turns(example, 3) == example
    nothing = Example([5, 6], [False, False])
    assert method.keep_turns(nothing, 1) == nothing


def ran(said: str) -> set[str]:
    return set(re.findall(r"Running stage '(.+)'", said))


@pytest.mark.slow
def test_one_file_and_one_key_give_rows_and_run_nothing_else(
    blocks: dict[str, str], tmp_path: Path, taught: Path
) -> None:
    """The method in a repository that is up to date; then a change of its one number."""
    folder = make_repository(tmp_path / "repository", taught)
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    params["methods"] = {"full_prompt": {}, "no_prompt": {}}
    yaml.dump(params, folder / "params.yaml")
    done = repro(folder)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    (folder / f"gcd/methods/{NAME}.py").write_text(blocks[f"gcd/methods/{NAME}.py"])
    cells = {
        f"{stage}@os_interaction-{NAME}" for stage in ("fit", "run_episodes", "probe_behaviour")
    }
    expected = {"check_params", *cells, "score", "measure_cost", "report"}
    for turns in ([1, 2], [3]):
        params["methods"] |= YAML().load(blocks["params.yaml"])
        params["methods"][NAME]["turns"] = turns
        yaml.dump(params, folder / "params.yaml")
        done = repro(folder)
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        assert ran(done.stdout) == expected
        scores = json.loads((folder / "reports/scores.json").read_text())["os_interaction"]
        rows = {f"first_turns_{number}" for number in turns}
        assert scores.keys() == {"full_prompt", "no_prompt", *rows}
        table = (folder / "reports/tables/os_interaction_results.md").read_text()
        assert all(f"| {row} |" in table for row in rows)
