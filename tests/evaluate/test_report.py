"""The report: safe, self-contained, the same facts in three files, silent about nothing that is missing."""

from __future__ import annotations

import json
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.evaluate.samples import ATTACK, LABELS, QUICK, answers, bare_report, full_report
from tunesmith.errors import DataError, RunError
from tunesmith.evaluate import report as build
from tunesmith.evaluate.card import model_card
from tunesmith.evaluate.report_html import (
    ABSENT,
    cell,
    code,
    confused_pairs,
    duration,
    fence,
    headline,
    interval_text,
    short,
    size,
    to_html,
    to_markdown,
    view,
)
from tunesmith.evaluate.report_model import Comparison, Confusion, Curves, Measured, Report, Sample, System
from tunesmith.scoring import Task, score

TASKS: list[Task] = ["label", "labels", "json", "text", "number", "spans", "judged", "steps"]
page_of = cache(lambda task: to_html(full_report(task)))
VOID = {"meta", "br", "wbr"}


class Page(HTMLParser):
    """Checks that tags nest, and collects tags, attributes, ids and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("task", TASKS)
def test_hostile_text_stays_text(task: Task) -> None:
    html = page_of(task)
    page = Page(html)
    assert not page.tags & {"script", "img", "iframe", "link", "object", "form", "base"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "<script" not in html
    assert page.text.count(ATTACK) > 20
    assert page.text.count("{{ 7*7 }}") == page.text.count("onerror=alert(1)")  # shown, not evaluated


@pytest.mark.parametrize("task", TASKS)
def test_the_page_loads_nothing_and_forbids_scripts(task: Task) -> None:
    page = Page(page_of(task))
    urls = [v for k, v in page.attributes if k in ("src", "href", "xlink:href", "action", "srcset") and v]
    assert urls
    assert all(url.startswith("#") for url in urls)
    policy = next(v for k, v in page.attributes if k == "content" and v and "default-src" in v)
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "http-equiv" in [name for name, _ in page.attributes]


def test_ids_are_unique_and_links_lead_somewhere() -> None:
    html = page_of("label")
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    used = re.findall(r'(?:href="#|url\(#)([^")]+)', html)
    assert used
    assert set(used) <= set(ids)


def test_the_same_report_gives_the_same_bytes() -> None:
    assert page_of("label") == to_html(full_report("label"))


@pytest.mark.parametrize("task", TASKS)
def test_three_files_with_the_same_facts(tmp_path: Path, task: Task) -> None:
    report = full_report(task)
    page = build.write_report(report, tmp_path / "report")
    assert page.name == "report.html"
    back = build.read_report(tmp_path / "report")
    assert json.loads(back.model_dump_json()) == json.loads(report.model_dump_json())
    html, markdown = Page(page.read_text()).text, (tmp_path / "report/report.md").read_text()
    for comparison in report.comparisons:
        assert comparison.words in html
        assert comparison.words in markdown


def test_metrics_json_is_strict_json(tmp_path: Path) -> None:
    build.write_report(full_report(), tmp_path)

    def refuse(name: str) -> None:
        raise AssertionError(name)

    json.loads((tmp_path / "metrics.json").read_text(), parse_constant=refuse)


def test_what_is_missing_is_said() -> None:
    report = bare_report()
    html, markdown = Page(to_html(report)).text, to_markdown(report)
    for part in ("systems", "classes", "flips", "examples", "suspects", "fit", "forgetting", "seeds"):
        assert ABSENT[part] in html
    assert headline(report).title == "Not proven"
    assert ABSENT["systems"] in markdown
    report = report.model_copy(update={"absent": {"systems": "The run was stopped before the test."}})
    assert "The run was stopped before the test." in Page(to_html(report)).text
    assert headline(report).sentences == ["The run was stopped before the test."]


def test_a_report_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no report"):
        build.read_report(tmp_path)
    (tmp_path / "metrics.json").write_text('{"version": 2}')
    with pytest.raises(RunError, match="not a report"):
        build.read_report(tmp_path)


def claim(name: str, base: str, value: float, tone: str) -> Comparison:
    difference = Measured(value=value, low=value - 0.05, high=value + 0.05, n=30)
    head = {"better": "better", "worse": "worse", "none": "no difference can be claimed"}[tone]
    return Comparison(
        metric=name, base=base, difference=difference, p=0.01, test="t", tone=tone, words=f"{head}: {value}"
    )  # type: ignore[arg-type]


def with_values(values: dict[str, float], claims: list[Comparison]) -> Report:
    systems = [System(name=k, metrics={"accuracy": Measured(value=v)}) for k, v in values.items()]
    return full_report(systems=systems, comparisons=claims, flips=None, forgetting=None)


def test_the_headline_names_the_strongest_of_the_others() -> None:
    values = {"base": 0.3, "majority": 0.4, "tfidf": 0.88, "tuned": 0.9}
    claims = [
        claim("macro_f1", "tfidf", 0.3, "better"),  # not the primary metric
        claim("accuracy", "base", 0.6, "better"),
        claim("accuracy", "majority", 0.5, "better"),
        claim("accuracy", "tfidf", 0.02, "none"),
    ]
    found = headline(with_values(values, claims))
    assert found.tone == "better"
    assert found.title == "Better than the base model: Accuracy 30.0 % → 90.0 %"
    assert found.sentences[1].startswith("But no difference from TF-IDF + logistic regression (88.0 %) can")


def test_the_headline_admits_defeat() -> None:
    values = {"base": 0.5, "tfidf": 0.8, "tuned": 0.4}
    claims = [claim("accuracy", "base", -0.1, "worse"), claim("accuracy", "tfidf", -0.4, "worse")]
    found = headline(with_values(values, claims))
    assert found.tone == "worse"
    assert found.title.startswith("Worse than the base model")
    assert "does better" in found.sentences[1]
    assert 'class="verdict worse"' in to_html(with_values(values, claims))


def test_many_labels_are_listed_as_pairs() -> None:
    size = 40
    counts = [[5 if i == j else 0 for j in range(size + 1)] for i in range(size)]
    counts[3][7], counts[2][size] = 4, 9
    table = Confusion(system="tuned", labels=[f"label{i}" for i in range(size)], counts=counts)
    assert confused_pairs(table) == [("label2", "no valid label", 9, 14), ("label3", "label7", 4, 9)]
    html = to_html(full_report(confusions=[table]))
    assert 'class="matrix"' not in html
    assert "label3 taken for label7: 4 of 9 rows" in html


def test_examples_are_chosen_by_score() -> None:
    references, base_answers, tuned_answers = answers("label")
    base, tuned = (score("label", references, a, LABELS) for a in (base_answers, tuned_answers))
    samples = [Sample(prompt=str(i), reference=r) for i, r in enumerate(references)]
    good, bad = build.pick_examples(tuned, samples, most=50)
    assert len(good) == 27
    assert {int(s.prompt) for s in bad} == {0, 10, 20}
    flips = build.flips_of(base, tuned, samples, most=4)
    assert (flips.fixed, flips.broken) == (24, 3)
    assert len(flips.fixed_examples) == 4
    assert [s.prompt for s in flips.broken_examples] == ["0", "10", "20"]
    with pytest.raises(DataError, match="1 samples for 30"):
        build.flips_of(base, tuned, samples[:1])


def test_free_text_good_answers_are_the_best_and_bad_ones_the_worst() -> None:
    tuned = score("text", ["a b c d"] * 4, ["a b c d", "a b", "x", "a b c"])
    samples = [Sample(prompt=str(i), reference="a b c d") for i in range(4)]
    good, bad = build.pick_examples(tuned, samples, most=2)
    assert [s.prompt for s in good] == ["0"]
    assert [s.prompt for s in bad] == ["2", "1"]
    nothing = score("text", ["a"] * 4, ["x"] * 4)
    assert build.pick_examples(nothing, samples)[0] == []


def test_systems_on_other_rows_are_not_compared() -> None:
    with pytest.raises(DataError, match="same rows"):
        build.compare(
            "base", score("text", ["a"], ["a"]), score("text", ["a", "b"], ["a", "b"]), settings=QUICK
        )


def test_markdown_tables_have_one_width() -> None:
    for task in TASKS:
        tables = re.findall(r"(?:^\|.*\n)+", to_markdown(full_report(task)), re.M)
        assert len(tables) >= 3
        for table in tables:
            widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
            assert len(widths) == 1


def test_text_cannot_break_out_of_markdown() -> None:
    assert cell("a|b\n<b> *c* [d](e) `f` _g_ snake_case p < 0.1") == (
        r"a\|b &lt;b> \*c\* \[d\](e) \`f\` \_g\_ snake_case p < 0.1"
    )
    assert cell("&lt;") == "&amp;lt;"
    assert fence("```\nx\n````").startswith("`````\n")
    assert code("a`b\nc") == "`a'b c`"


def test_units() -> None:
    assert [duration(s) for s in (8.06, 59.99, 725, 12_000)] == [
        "8.1 s",
        "60.0 s",
        "12 min 5 s",
        "3 h 20 min",
    ]
    assert [size(b) for b in (412 * 2**20, 3.2 * 2**30)] == ["412 MiB", "3.2 GiB"]
    assert short("a  b\nc" * 40, 10) == "a b ca b…"


def test_only_the_page_draws_the_plots(monkeypatch):
    drawn = []
    monkeypatch.setattr("tunesmith.evaluate.plots.figures", lambda report: drawn.append(report) or [])
    report = full_report("label")
    to_markdown(report)
    model_card(report)
    assert drawn == []
    to_html(report)
    assert len(drawn) == 1


def test_probabilities_are_shown_with_what_abstaining_buys() -> None:
    report = full_report("label")
    (found,) = report.calibrations
    assert sum(b.count for b in found.bins) == 30
    assert [t.coverage for t in found.thresholds] == sorted(
        (t.coverage for t in found.thresholds), reverse=True
    )
    html = page_of("label")
    assert "Can its probabilities be believed?" in html
    assert html.count('aria-label="accuracy against confidence"') == 1
    assert ABSENT["calibrations"] in Page(to_html(full_report("label", calibrations=[]))).text
    assert ABSENT["calibrations"] not in Page(page_of("text")).text
    for threshold in found.thresholds:
        assert f"| {threshold.threshold:g} |" in to_markdown(report)


def test_parts_of_answers_have_a_table_of_their_own() -> None:
    for task, heading in {
        "label": "By class (F1)",
        "labels": "By class (F1)",
        "spans": "By label (F1)",
        "json": "By field (accuracy)",
        "number": "By target (mean absolute error)",
    }.items():
        report = full_report(task)
        assert heading in page_of(task)
        assert ATTACK in [c.name for c in report.classes]
        assert report.classes == sorted(report.classes, key=lambda c: -c.support)
    spans = {c.name: c for c in full_report("spans").classes}
    assert spans["charge"].support == 40  # 30 of the second span, 10 of the first
    assert full_report("text").classes == []


def test_an_error_is_drawn_to_scale_and_less_is_better() -> None:
    values = {"base": 4.0, "mean": 2.0, "ridge": 1.0, "tuned": 0.5}
    systems = [
        System(name=k, metrics={"mae": Measured(value=v, low=v / 2, high=2 * v)}) for k, v in values.items()
    ]
    claims = [
        claim("mae", "base", -3.5, "better"),
        *(claim("mae", b, -1, "better") for b in ("mean", "ridge")),
    ]
    report = full_report("number", systems=systems, comparisons=claims)
    bars = view(report)["bars"]
    assert [bar.at(bar.measured.value) for bar in bars] == [50, 25, 12.5, 6.25]
    assert view(report)["scale"] == ["0", "4", "8"]
    found = headline(report)
    assert found.sentences[1].startswith(
        "It also beats the strongest of the others, TF-IDF + ridge regression"
    )
    assert "came nearer to the reference" in found.sentences[2]
    assert "Less is better." in to_html(report)


def test_an_unbounded_interval_is_shown_as_one() -> None:
    endless = Measured(value=0.0, low=0.0, high=float("inf"), n=3)
    assert interval_text("mae", endless) == "0 to ∞"
    report = full_report(
        "number", systems=[System(name=n, metrics={"mae": endless}) for n in ("base", "tuned")]
    )
    assert [bar.at(bar.measured.high) for bar in view(report)["bars"]] == [100, 100]


def test_what_people_judged_is_shown_beside_what_systems_made_of_it() -> None:
    html, markdown = page_of("judged"), to_markdown(full_report("judged"))
    text = Page(html).text
    tuned = full_report("judged").judgements[1]
    assert tuned.words[0].startswith("tuned agrees with people in 90.0 % of pairs")
    assert "tuned prefers the longer answer in " in tuned.words[1]
    for words in tuned.words:
        assert words in text
        assert cell(words) in markdown
        assert cell(words) in model_card(full_report("judged"))
    assert html.count('aria-label="base, tuned, people against characters by which one is longer"') == 1
    assert html.count('aria-label="accuracy against confidence"') == 1
    assert "share of right answers among pairs of like confidence" in text
    assert "| answer | people | base | tuned |" in markdown
    assert f"<td><pre>{ATTACK.split('<')[0]}" in html
    assert '<td class="num">–</td>' in html  # an answer that is no list of numbers
    assert "came nearer to what people said" in text
    assert full_report("text").judgements == []
    assert "Does it agree with people" not in page_of("text")


def test_a_warning_on_the_curves_is_shown() -> None:
    report = full_report(curves=Curves(warnings=["Chosen answers fell."]))
    assert '<p class="warning">Chosen answers fell.</p>' in to_html(report)
    assert "- Warning: Chosen answers fell." in to_markdown(report)
