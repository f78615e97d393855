"""The committed report in a browser: it fits wide and narrow screens, and its links lead somewhere.

A copy of the page gets a script that measures it, which its policy is made to allow.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from lxml import html

from gcd.report.page import source_hash
from tests.chromium import dump_page
from tests.conftest import ROOT

REPORT = ROOT / "reports/report.html"
MEASURE = """
addEventListener("load", () => {
  const made = document.createElement("output");
  made.id = "measured";
  made.textContent = JSON.stringify({
    room: document.documentElement.clientWidth,
    needed: document.documentElement.scrollWidth,
    pictures: [...document.images].map((image) => image.complete && image.naturalWidth > 0),
    small: [...document.querySelectorAll("p, td, th, li")].filter(
      (part) => parseFloat(getComputedStyle(part).fontSize) < 12).length,
  });
  document.body.append(made);
});
"""


def measure(folder: Path, width: int) -> dict[str, Any]:
    page = REPORT.read_text(encoding="utf-8")
    allowed = f"default-src 'none'; script-src '{source_hash(MEASURE)}';"
    page = page.replace("default-src 'none';", allowed, 1)
    page = page.replace("</body>", f"<script>{MEASURE}</script></body>")
    (folder / "report.html").write_text(page, encoding="utf-8")
    dumped = dump_page((folder / "report.html").as_uri(), folder / "profile", width)
    found: dict[str, Any] = json.loads(html.fromstring(dumped).get_element_by_id("measured").text)
    return found


@pytest.mark.parametrize("width", [1280, 500])  # no window of Chromium is narrower than 500
def test_the_page_is_as_wide_as_the_screen(width: int, tmp_path: Path) -> None:
    """Wide tables scroll by themselves; pictures of the page are there; no text is tiny."""
    found = measure(tmp_path, width)
    assert found["room"] <= width
    assert found["needed"] == found["room"]
    assert len(found["pictures"]) >= 10
    assert all(found["pictures"])
    assert found["small"] == 0


def test_every_link_leads_somewhere_and_nothing_comes_from_a_network() -> None:
    page = html.fromstring(REPORT.read_text(encoding="utf-8"))
    ids = {element.get("id") for element in page.iter() if element.get("id")}
    for element, attribute, link, _ in page.iterlinks():
        if attribute == "src":
            assert link.startswith("data:"), link[:100]
        elif link.startswith("#"):
            assert link[1:] in ids, link
        elif not link.startswith("https://"):
            assert element.tag == "a"
            assert (REPORT.parent / link.split("#")[0]).exists(), link
