"""The report as a page: nothing from the network, nothing runs, nothing is lost."""

import base64
import hashlib
import re
from pathlib import Path

import pytest

from gcd.core.errors import UserError
from gcd.report.page import render_page
from gcd.report.tables import markdown
from tests.test_report_text import HOSTILE

SVG = '<svg xmlns="http://www.w3.org/2000/svg"/>'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/one.svg").write_text(SVG)
    return tmp_path


def test_a_figure_is_inside_the_page(folder: Path):
    page = render_page("# Title\n\n![What it shows](figures/one.svg)\n", folder)
    [address] = re.findall(r'<img src="data:image/svg\+xml;base64,([^"]+)" alt="What it', page)
    assert base64.b64decode(address).decode() == SVG


@pytest.mark.parametrize("source", ["figures/two.svg", "https://example.org/one.svg", "one.png"])
def test_any_other_picture_is_refused(folder: Path, source: str):
    with pytest.raises(UserError, match="expected a figure that `report` drew"):
        render_page(f"# Title\n\n![x]({source})\n", folder)


def test_the_policy_allows_the_style_and_no_script(folder: Path):
    page = render_page("# Title\n\ntext\n", folder)
    [style] = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page
    assert "script" not in page.replace("description", "")
    assert " style=" not in page


def test_html_in_the_report_is_text(folder: Path):
    page = render_page("# T\n\n<img src=x onerror=alert(1)>\n\n" + "\n\n".join(HOSTILE), folder)
    body = page[page.index("<main>") :]
    assert "<img src=x" not in body
    assert "&lt;img src=x onerror=alert(1)&gt;" in body
    assert "<script" not in body


def test_sections_are_listed_and_linked(folder: Path):
    page = render_page("# T\n\n## One: a_b\n\n## Two\n\n### Not this\n\n## Two\n", folder)
    assert re.findall(r'<li><a href="#([^"]+)">([^<]+)</a></li>', page) == [
        ("one-a_b", "One: a_b"),
        ("two", "Two"),
        ("two-1", "Two"),
    ]
    assert page.count('id="two"') == page.count('id="two-1"') == 1


def test_cells_keep_their_side_and_bold(folder: Path):
    import pandas as pd

    frame = pd.DataFrame([{"Row": "gcd", "Score": "**1**", "Why": "x" * 80}])
    page = render_page("# T\n\n" + markdown(frame, {("gcd", "Score")}) + "\n", folder)
    assert '<td class="number"><strong>**1**</strong></td>' in page
    assert f'<td class="number long">{"x" * 80}</td>' in page
