"""The page of transcripts in a browser: the address chooses what is shown, and nothing else runs.

Views are opened by their addresses. Where a reader would click, a copy of the page gets a second
script, which its policy is made to allow.
"""

import http.server
import json
import threading
from pathlib import Path
from urllib.parse import urlencode

import pytest
from lxml import html

from gcd.core.records import FULL_PROMPT, Action
from gcd.report.page import source_hash
from gcd.report.results import TaskResults
from gcd.report.transcript_page import page_data, render_page
from gcd.report.transcripts import printable
from tests.chromium import dump_page
from tests.test_report_text import HOSTILE
from tests.test_transcript_page import ANSWER, LS, episode, results, turn

PWN = "document.title='pwned'"
ATTACKS = [
    *filter(None, HOSTILE),
    f"</script><script>{PWN}</script>",
    f"<!--<script>{PWN}</script>",
    f'<img src=x onerror="{PWN}"><svg onload="{PWN}">',
    f"javascript:{PWN}",
    f'"><a id=pwned href="javascript:{PWN}">x</a>',
    "<style>*{display:none}</style><base href='//example.org/'>",
    f"${{{PWN}}}$script</pre></details></main>",
    "x" * 3000,
]
# Reads the samples and rows on the page, and waits for what a change of the address does.
READ = """
const samples = () => [...document.querySelectorAll(".sample h3")].map(
  (title) => title.textContent.split(" · ")[0]);
const rows = () => [...document.querySelectorAll("details[open] h4")].map((h) => h.textContent);
const changed = (act) => new Promise((done) => {
  addEventListener("hashchange", () => setTimeout(done), { once: true });
  act();
});
const report = (value) => {
  const made = document.createElement("output");
  made.id = "driven";
  made.textContent = JSON.stringify(value);
  document.body.append(made);
};
"""


def site() -> list[TaskResults]:
    """Two tasks: of `os` three rows and a failed one, of `shop` two."""
    right, wrong = [turn(LS, "Look", seen="ls"), turn(ANSWER, "Four")], [turn(ANSWER, "Is it 4?")]
    solved, failed = ("completed", 1.0, right), ("completed", 0.0, wrong)
    os = {
        FULL_PROMPT: [solved, solved, failed],
        "no_prompt": [("agent invalid action", 0.0, [turn(None, "Zebra")])] * 3,
        "gcd": [solved, failed, ("task limit reached", 0.0, [turn(LS), turn(LS)])],
    }
    shop = {
        FULL_PROMPT: [("completed", 0.5, wrong), ("agent context limit", 0.0, [])],
        "gcd": [("task error", 0.0, []), solved],
    }
    made = []
    for task, played, failures in (("os", os, {"icae": "The loss is nan."}), ("shop", shop, {})):
        episodes = {
            row: [
                episode(*one, index=f"{task}-{n}", row=row, task=task)
                for n, one in enumerate(of_row)
            ]
            for row, of_row in played.items()
        }
        made.append(results(task, episodes, failures))
    return made


def hostile(attacks: list[str]) -> list[TaskResults]:
    """One sample an attack, which is in all of its texts and names."""
    episodes = [
        episode(
            text,
            0.5,
            [turn(Action(kind=text, content=text), text, seen=text), turn(None, text)],
            index=f"{n}{text}",
            groups={text: text, "__proto__": text},
            problem=text,
            measures={text: 0.5},
            error=text,
        )
        for n, text in enumerate(attacks)
    ]
    return [results(attacks[0], {FULL_PROMPT: episodes}, {attacks[-1]: attacks[-1]})]


def write(folder: Path, made: list[TaskResults], driver: str = "") -> str:
    """Write the page, with a second script if there is a `driver`; returns its address."""
    page = render_page(page_data(made, 1000))
    if driver:
        script = READ + driver
        page = page.replace("script-src ", f"script-src '{source_hash(script)}' ", 1)
        page = page.replace("</body>", f"<script>{script}</script></body>")
    path = folder / "transcripts.html"
    path.write_text(page, encoding="utf-8")
    return path.as_uri()


def drive(folder: Path, made: list[TaskResults], driver: str, width: int = 1280):
    """What `driver` reports, and the page when it is done."""
    page = html.fromstring(dump_page(write(folder, made, driver), folder / "profile", width))
    return json.loads(page.get_element_by_id("driven").text), page


def test_it_opens_from_disk_at_the_view_of_its_address(tmp_path: Path) -> None:
    chosen = urlencode([("task", "os"), ("row", "gcd"), ("row", "icae"), ("outcome", "wrong")])
    page = html.fromstring(dump_page(f"{write(tmp_path, site())}#{chosen}", tmp_path / "profile"))
    [sample] = page.find_class("sample")
    assert sample.find(".//h3").text_content() == "os-1 · easy"
    assert "0 of 1 rows succeed" in sample.find("summary").text_content()
    gcd, icae = sample.find_class("episode")
    told = " ".join(gcd.text_content().split())
    assert told.startswith("gcd✗ wrongThe result was judged wrong.score 0, status: completed")
    assert [box.text_content() for box in gcd.iter("pre")] == ["Is it 4?", "4"]
    assert "The loss is nan." in icae.text_content()
    assert page.get_element_by_id("found").text_content() == "1 of 5 samples."
    assert page.get_element_by_id("filters").get("hidden") is None


VIEWS = [
    # address, samples, rows of the first of them
    ("task=shop", ["shop-0", "shop-1"], [FULL_PROMPT, "gcd"]),
    ("row=gcd&row=no_prompt&task=os", ["os-0", "os-1", "os-2"], ["no_prompt", "gcd"]),
    ("outcome=success", ["os-0", "os-1", "shop-1"], None),
    ("outcome=success&row=gcd", ["os-0", "shop-1"], ["gcd"]),
    ("outcome=failed&row=gcd", ["os-1", "os-2", "shop-0"], ["gcd"]),
    ("outcome=partly_right", ["shop-0"], None),
    ("outcome=no_valid_action", ["os-0", "os-1", "os-2"], None),
    ("outcome=no_valid_action&row=gcd", [], []),
    ("outcome=out_of_turns", ["os-2"], None),
    ("outcome=context_limit", ["shop-1"], None),
    ("outcome=broken", ["shop-0"], None),
    ("outcome=differs", ["os-0", "os-1", "shop-1"], None),
    ("outcome=differs&row=gcd&row=full_prompt", ["os-1", "shop-1"], None),
    ("sample=os-2", ["os-2"], None),
    ("q=zebra", ["os-0", "os-1", "os-2"], None),  # in whatever case
    ("q=zebra&row=gcd", [], []),  # in shown rows only
    ("q=is+it+4%3F", ["os-1", "os-2", "shop-0"], None),  # as it stands: no pattern
    ("q=.*", [], []),
    ("q=shop-1", ["shop-1"], None),
    ("task=none&row=who", [], []),
]


def test_each_filter_works_through_the_address(tmp_path: Path) -> None:
    addresses = json.dumps([address for address, *_ in VIEWS])
    seen, page = drive(
        tmp_path,
        site(),
        f"""(async () => {{
          const seen = [];
          for (const address of {addresses}) {{
            await changed(() => {{ location.hash = address; }});
            seen.push([samples(), rows()]);
          }}
          report(seen);
        }})();""",
    )
    assert len(seen) == len(VIEWS)
    for (address, samples, rows), (seen_samples, seen_rows) in zip(VIEWS, seen, strict=True):
        assert (address, seen_samples) == (address, samples)
        # Samples that were open before stay so; each shows the same rows.
        assert rows is None or (address, seen_rows[: len(rows)]) == (address, rows)
    found = page.get_element_by_id("found").text_content()
    assert found == "0 of 5 samples. This page has no task none. This page has no row who."


def test_a_reader_clicks_and_types(tmp_path: Path) -> None:
    seen, page = drive(
        tmp_path,
        site(),
        """(async () => {
          const seen = [];
          const use = async (act) => {
            await changed(act);
            seen.push([location.hash, samples()]);
          };
          const fill = (id, value) => {
            const field = document.getElementById(id);
            field.value = value;
            field.dispatchEvent(new Event("input", { bubbles: true }));
          };
          await use(() => document.querySelector("input[value=gcd]").click());
          await use(() => fill("outcome", "failed"));
          await use(() => fill("task", "os"));
          await use(() => fill("query", "4?"));
          await use(() => document.querySelector("details a").click());
          await use(() => document.querySelector("#found + a").click());
          document.querySelectorAll("summary")[4].click();
          await new Promise((done) => setTimeout(done, 100));
          report([seen, document.querySelectorAll("details")[4].querySelectorAll("h4").length]);
        })();""",
    )
    steps, rows_of_the_last = seen
    assert steps == [
        ["#row=gcd", ["os-0", "os-1", "os-2", "shop-0", "shop-1"]],
        ["#row=gcd&outcome=failed", ["os-1", "os-2", "shop-0"]],
        ["#task=os&row=gcd&outcome=failed", ["os-1", "os-2"]],
        ["#task=os&row=gcd&outcome=failed&q=4%3F", ["os-1"]],
        ["#task=os&row=gcd&outcome=failed&sample=os-1&q=4%3F", ["os-1"]],
        ["", ["os-0", "os-1", "os-2", "shop-0", "shop-1"]],
    ]
    assert rows_of_the_last == 2
    assert not page.xpath("//input[@checked]")


OPEN_ALL = """(async () => {
  await changed(() => { location.hash = new URLSearchParams({ q: QUERY }); });
  await changed(() => { location.hash = ""; });
  for (const details of document.querySelectorAll("details")) details.open = true;
  await new Promise((done) => setTimeout(done, 500));
  report([document.title, document.documentElement.scrollWidth - innerWidth]);
})();"""


def test_a_malicious_transcript_executes_nothing_and_stays_in_its_box(tmp_path: Path) -> None:
    calm = ["c" * len(text) for text in ATTACKS]  # as long, so that as much is cut
    pages = []
    for name, attacks in (("attacked", ATTACKS), ("calm", calm)):
        (tmp_path / name).mkdir()
        driver = OPEN_ALL.replace("QUERY", json.dumps(f"<img src=x onerror={PWN}>"))
        (title, overflow), page = drive(tmp_path / name, hostile(attacks), driver, width=390)
        assert title == "Transcripts"
        assert overflow <= 0  # a phone need not scroll the page sideways
        pages.append(page)
    attacked = pages[0]
    # The same elements with the same attributes' names, whatever the texts are.
    shape = [[(one.tag, sorted(one.attrib)) for one in page.iter()] for page in pages]
    assert shape[0] == shape[1]
    assert {href[0] for href in attacked.xpath("//a/@href")} == {"#", "r"}
    boxes = [box.text_content() for box in attacked.iter("pre")]
    for text in ATTACKS:
        shown = printable(text[:1000].replace("\r\n", "\n"))
        assert boxes.count(shown) >= 6  # problem, error, action, observation and two replies


@pytest.mark.parametrize(("with_policy", "title"), [(False, "pwned"), (True, "Transcripts")])
def test_the_policy_stops_what_would_run_otherwise(tmp_path: Path, with_policy, title) -> None:
    """The second line of defence alone, and proof that an attack would be seen."""
    page = render_page(page_data(site(), 1000))
    page = page.replace("<header>", f'<header><img src=x onerror="{PWN}">', 1)
    if not with_policy:
        page = page.replace("Content-Security-Policy", "x", 1)
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    dumped = dump_page((tmp_path / "page.html").as_uri(), tmp_path / "profile")
    assert html.fromstring(dumped).findtext(".//title") == title


@pytest.mark.parametrize("with_policy", [True, False])
def test_nothing_is_fetched(tmp_path: Path, with_policy) -> None:
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments) -> None:
            super().__init__(*arguments, directory=str(tmp_path))

        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_) -> None:
            pass

    attacks = ["<img src=/a>", "<link rel=stylesheet href=/b>", "<iframe src=/c></iframe>"]
    write(tmp_path, hostile(attacks), OPEN_ALL.replace("QUERY", '"x"'))
    page = tmp_path / "transcripts.html"
    if not with_policy:  # the same with an image of its own: a request would be seen
        text = page.read_text(encoding="utf-8").replace("Content-Security-Policy", "x", 1)
        page.write_text(text.replace("<header>", "<header><img src=/seen>"), encoding="utf-8")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/transcripts.html"
        dump_page(address, tmp_path / "profile")
        server.shutdown()
    assert asked[0] == "/transcripts.html"
    assert asked[1:] == [] if with_policy else "/seen" in asked
