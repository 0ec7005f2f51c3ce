"""The card of a version: the same facts in Markdown and on a page, and nothing of a row is markup there."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from tests.desk.test_inspect import EVIL, Tags
from tests.desk.test_make import ALL, TICKETS, desk_of, quiet

from tunesmith.data.shares import Sharing
from tunesmith.desk.make import make
from tunesmith.desk.pages import BARS, Bars


def folder_of(tmp_path: Path, rows: list[dict[str, Any]], **steps: Any) -> Path:
    made = make(desk_of(tmp_path, rows, **steps), quiet, sharing=Sharing(1))
    assert made.version is not None
    return made.version.folder


def test_what_is_left_is_counted_as_it_was_written(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, TICKETS, **ALL)
    left = json.loads((folder / "manifest.json").read_text())["left"]
    for split, facts in left.items():
        rows = [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]
        characters = [len(row["text"]) for row in rows]
        assert facts["rows"] == len(rows)
        assert facts["characters"]["all"] == sum(characters)
        assert facts["characters"]["p50"] == np.percentile(characters, 50, method="higher")
        assert facts["labels"]["counts"] == dict(sorted(Counter(row["label"] for row in rows).items()))


def test_the_page_and_markdown_say_the_same(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [*TICKETS * 4, {"text": " ", "label": "billing"}], clean={})
    page, text = (folder / "card.html").read_text(), (folder / "card.md").read_text()
    manifest = json.loads((folder / "manifest.json").read_text())
    for said in (manifest["sources"][0]["sha256"][:16], "empty_text", "text = text, label = label"):
        assert said in page
        assert said.replace("_", "\\_") in text or said in text
    assert "<svg" in page
    assert "card.html" in manifest["files"]


def test_an_example_of_several_lines_stands_under_its_rule(tmp_path: Path) -> None:
    rows = [*TICKETS, {"text": "It broke.\nSent from my phone", "label": "hardware"}]
    text = make(desk_of(tmp_path, rows, clean={}), quiet, sharing=Sharing(1)).as_text()
    assert "\n            It broke.\n            Sent from my phone\n            It broke.\n" in text


def test_bars_are_as_long_as_the_commonest_however_many_others_there_are() -> None:
    bars = Bars.of("labels", {f"l{at:03}": 100 - at for at in range(40)}, kinds=90, rows=5_000)
    assert (len(bars.counts), bars.most) == (BARS - 1, 100)
    assert bars.others == (90 - len(bars.counts), 5_000 - sum(bars.counts.values()))
    assert Bars.of("labels", {"a": 1}).others is None


def test_one_class_has_no_entropy(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [{**row, "label": "a"} for row in TICKETS], clean={})
    assert "entropy 0.00 bits" in (folder / "card.html").read_text()


def test_markup_in_rows_stays_text(tmp_path: Path) -> None:
    rows = [{**row, "label": row["label"] + EVIL} for row in TICKETS]
    folder = folder_of(tmp_path, [*rows, {"text": f"<b>{EVIL}</b>  {EVIL}", "label": EVIL}], clean={})
    seen = Tags()
    seen.feed((folder / "card.html").read_text())
    assert not {"script", "img"} & seen.tags.keys()
    text = (folder / "card.md").read_text()
    assert "script" in text
    assert re.search(r"(?<!\\)<\w", text) is None  # a backslash before it makes it a letter
