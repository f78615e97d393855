"""Exports as strangers use them: the README's programs in fresh processes, llama.cpp's server.

What they answer greedily is compared with the repository's own agent, token by token.
"""

import os
import re
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import pytest
from openai import OpenAI

from gcd.core.errors import UserError
from gcd.exports.converter import convert_model, fetch_converter
from gcd.exports.settings import read_settings
from gcd.exports.writing import write_exports
from tests import exported
from tests.conftest import ROOT
from tests.exported import ASKED, METHOD, TASK
from tests.llama_server import serving


@pytest.fixture(scope="module")
def converters() -> Path:
    """llama.cpp's, kept in the repository's folder of unfinished work."""
    with chdir(ROOT):
        try:
            return fetch_converter(read_settings().converter).resolve()
        except UserError as error:
            pytest.skip(str(error))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported.make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def expected(home: Path, tmp_path: Path) -> list[str]:
    """The agent's answers to ASKED."""
    with chdir(home):
        return exported.replies(tmp_path)


def programs(card: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card.read_text(), re.DOTALL)


def test_the_readme_s_programs_answer_as_the_row_does(home: Path, expected: list[str]) -> None:
    """Adapter and merged model, in one fresh process that knows nothing of this repository."""
    with chdir(home):
        write_exports(
            TASK,
            METHOD,
            Path("exports/talk"),
            at=Path("exports/talk"),
            merged=True,
            gguf=[],
            again="again",
            replace=False,
        )
    folder = home / "exports/talk"
    adapted, merged = programs(folder / "README.md")
    program = f"{adapted}\nprint('=====')\n{merged}"
    environment = {key: text for key, text in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert [text.strip() for text in done.stdout.split("=====")] == [expected[0]] * 2


def answers(address: str, name: str) -> list[str | None]:
    """What OpenAI's client gets for each of ASKED, greedily."""
    client = OpenAI(base_url=address, api_key="none")
    return [
        client.chat.completions.create(
            model=name,
            messages=[{"role": "user", "content": text}],
            temperature=0,
            max_tokens=40,
        )
        .choices[0]
        .message.content
        for text in ASKED
    ]


@pytest.fixture
def served(home: Path, converters: Path, monkeypatch) -> Path:
    """An export with both GGUF files."""
    monkeypatch.setattr("gcd.exports.writing.fetch_converter", lambda settings: converters)
    with chdir(home):
        to = Path("exports/g")
        write_exports(
            TASK,
            METHOD,
            to,
            at=to,
            merged=False,
            gguf=["merged", "adapter"],
            again="again",
            replace=True,
        )
    return home / "exports/g"


@pytest.mark.slow  # 77 MB are downloaded, and pip makes a build environment
def test_llama_cpp_serves_the_merged_model(served: Path, expected: list[str]) -> None:
    assert not (served / "merged").exists()  # only on the way to the file
    with serving(served / "merged.gguf") as address:
        assert answers(address, "smollm2") == expected


@pytest.mark.slow
def test_llama_cpp_serves_the_adapter(
    home: Path, served: Path, expected: list[str], converters: Path
) -> None:
    """Beside the base model, which alone says something else."""
    base = home / "base.gguf"
    convert_model(converters, home / "models/base", "base", "float32", base)
    with serving(base, adapter=served / "adapter.gguf") as address:
        assert answers(address, "smollm2") == expected
    with serving(base) as address:
        assert not set(answers(address, "smollm2")) & set(expected)
