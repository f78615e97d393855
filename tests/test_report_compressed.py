"""What is left of a compressed prompt, as the report says it."""

import json
from dataclasses import replace
from pathlib import Path

from gcd.report.compressed import render
from tests.test_reporting import make_results

RATES = {
    "rows": {
        "cut": {
            "asked": 0.5,
            "content_tokens": 1234,
            "realised": 0.474,
            "realised_with_template": 0.5,
        }
    }
}
PHASES = {
    "untrained": {"nats_per_token": 1.25, "right_tokens": 0.5},
    "pretraining": {"nats_per_token": 0.125, "right_tokens": 0.75},
    "instruction": {"nats_per_token": 0.5, "right_tokens": 0.625},
}


def test_rates_and_reconstruction_stand_with_their_rows(tmp_path: Path) -> None:
    here = make_results(["ls"])
    records = {row: replace(here.records["gcd"], method=f"{row}s") for row in ("cut", "slot")}
    here = replace(here, rows=list(records), records=records)
    assert render([here], tmp_path) == ""
    for name, content in (("cuts/rates", RATES), ("slots/slot/reconstruction", PHASES)):
        path = tmp_path / "os" / f"{name}.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(content), encoding="utf-8")
    text = render([here], tmp_path)
    assert "| os, cut | 1,234 | 50.0 | 47.4 | 50.0 |" in text
    assert "| os, slot | 1.250 | 50.0 | 0.125 | 75.0 | 0.500 | 62.5 |" in text
    only = render([replace(here, records={"slot": records["slot"]}, rows=["slot"])], tmp_path)
    assert "cut" not in only
    assert "os, slot" in only
