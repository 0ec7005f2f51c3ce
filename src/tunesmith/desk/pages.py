"""Pages of the desk: an inspection, and the card of a version, in the look of a run's report.

HTML and CSS alone. Every text is escaped by Jinja2's autoescape; the only markup let through is the SVG that
`evaluate.plots` draws, whose texts matplotlib escapes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader
from markupsafe import Markup

from tunesmith.desk.card import Examples, kept_words
from tunesmith.desk.screen import many, message_of, percent, storage, words_of_rule
from tunesmith.desk.steps import excerpt
from tunesmith.desk.suspects import REASONS
from tunesmith.evaluate import plots
from tunesmith.evaluate.report_html import environment

BARS = 24
"""Of one plot; what there is more of is the last one."""
ENOUGH = 50
"""Rows of which a picture of lengths says more than the table."""


def inspection_page(facts: Mapping[str, Any]) -> str:
    """One file, no script, nothing loaded from anywhere."""
    names = [Path(one["file"]).name for one in facts["files"]]
    headline, sentences = in_short(facts)
    page = page_environment().get_template("inspect.html.j2")
    return page.render(
        facts=facts,
        title=", ".join(names),
        version=version("tunesmith"),
        headline=headline,
        sentences=sentences,
        meanings=REASONS,
        tried=[step for step in facts["steps"] if not step["step"].startswith("dedup")],
        percent=percent,
        storage=storage,
        many=many,
        message_of=message_of,
        rules_of=_rules,
        lengths=_histograms(facts["tokens"]["histograms"]),
        labels=label_bars(facts["labels"]),
        numbers=number_histograms(facts["numbers"]),
        languages=[Bars.of("rows by language", facts["languages"]["all"])],
        repeats=[Bars("rows that repeat others", repeated)]
        if (repeated := _repeated(facts["steps"]))
        else [],
    )


def card_page(manifest: Mapping[str, Any], examples: Examples, name: str) -> str:
    """The card of a version. name: of its data set."""
    left = manifest["left"]
    steps = [
        step | {"examples": {r: [vars(e) for e in found[:1]] for r, found in examples[step["step"]].items()}}
        for step in manifest["steps"]
    ]
    page = page_environment().get_template("card.html.j2")
    return page.render(
        manifest=manifest,
        title=name,
        steps=steps,
        kept=kept_words(manifest["recipe"]),
        recipe=json.dumps(manifest["recipe"], ensure_ascii=False, indent=2),
        percent=percent,
        many=many,
        rules_of=_rules,
        lengths=_histograms(
            {f"{split} rows": one["histogram"] for split, one in left.items() if one["rows"] >= ENOUGH},
            "characters",
        ),
        bars=[
            Bars("rows by split", manifest["rows"]),
            *label_bars({"labels": {s: one["labels"] for s, one in left.items() if "labels" in one}}),
        ],
    )


def in_short(facts: Mapping[str, Any]) -> tuple[str, list[str]]:
    """What an inspection says first."""
    used, rows = sum(one["used"] for one in facts["files"]), sum(one["rows"] for one in facts["files"])
    unusable = facts["suspicious"]["reasons"].get("unusable", 0)
    repeated = sum(_repeated(facts["steps"]).values())
    headline = f"{used - unusable:,} of {rows:,} rows can be trained on"
    sentences = []
    if rows > used:
        sentences.append(f"{rows - used:,} could not be read.")
    if unusable:
        sentences.append(f"{unusable:,} would be refused by training.")
    sentences.append(f"{repeated:,} repeat others." if repeated else "None repeats another.")
    if conflicts := facts["conflicts"]["prompts"]:
        sentences.append(f"{many(conflicts, 'prompt')} with more than one answer.")
    sentences.append(f"{many(facts['suspicious']['rows'], 'row')} to look at, for one reason or another.")
    return headline, [" ".join(sentences)]


def _repeated(steps: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {
        words_of_rule(rule): count
        for step in steps
        if step["step"].startswith("dedup")
        for rule, count in step["dropped"].items()
    }


# Plots ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bars:
    """Counts, drawn by the template as bars. others: of what has no bar of its own, how many kinds there are and how
    many rows they have: together they would make all bars look short."""

    caption: str
    counts: Mapping[str, int]
    others: tuple[int, int] | None = None

    @classmethod
    def of(
        cls, caption: str, counts: Mapping[str, int], kinds: int | None = None, rows: int | None = None
    ) -> Bars:
        """Of the first of these. kinds and rows: of all, also those that `counts` left out."""
        kinds = len(counts) if kinds is None else kinds
        if kinds <= BARS:
            return cls(caption, dict(counts))
        first = dict(list(counts.items())[: BARS - 1])
        whole = sum(counts.values()) if rows is None else rows
        return cls(caption, first, (kinds - len(first), whole - sum(first.values())))

    @property
    def most(self) -> int:
        return max(self.counts.values(), default=1)


def label_bars(labels: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[Bars]:
    return [
        Bars.of(f"{column}, {split}", found["counts"], found["classes"], found["rows"])
        for column, splits in labels.items()
        for split, found in splits.items()
    ]


def _histograms(found: Mapping[str, Mapping[str, Sequence[int]]], unit: str = "tokens") -> list[Any]:
    """(caption, svg) of each; the name in the page's ids is its place."""
    out: list[tuple[str, Markup]] = []
    for name, one in found.items():
        if one["edges"][-1] > 2:
            title = f"rows by {unit} of {name}"
            svg = plots.histogram(f"length-{len(out)}", one["edges"], one["counts"], unit, title)
            out.append((name, Markup(svg)))
    return out


def number_histograms(numbers: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """(caption, svg) of each column and split."""
    found = [
        (f"{column}, {split}", one) for column, splits in numbers.items() for split, one in splits.items()
    ]
    return [
        (
            name,
            linear(
                f"number-{at}", one["histogram"]["edges"], one["histogram"]["counts"], name, f"rows by {name}"
            ),
        )
        for at, (name, one) in enumerate(found)
    ]


def linear(name: str, edges: Sequence[float], counts: Sequence[int], along: str, title: str) -> Markup:
    return Markup(plots.histogram(name, edges, counts, along, title, ratios=False))


# Texts ---------------------------------------------------------------------------------------------------


def _rules(step: Mapping[str, Any]) -> list[tuple[str, str, int, dict[str, Any] | None]]:
    """(dropped, changed or added, rule, rows, an example as text) of each rule that acted."""
    return [
        (what, rule, count, _example(step["examples"].get(rule, ())))
        for what in ("dropped", "changed", "added")
        for rule, count in step[what].items()
    ]


def _example(examples: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    if not examples:
        return None
    one = examples[0]
    after = None if one["after"] is None or one["after"] == one["before"] else _said(one["after"])
    return {"place": one["place"], "message": one["message"], "before": _said(one["before"]), "after": after}


def _said(values: Mapping[str, Any]) -> str:
    texts = (v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values.values())
    return excerpt(texts, 240)


@cache
def page_environment() -> Environment:
    """The report's, with this folder's templates before its own."""
    of_reports = environment(True)
    assert of_reports.loader is not None
    own = ChoiceLoader([PackageLoader("tunesmith.desk", "templates"), of_reports.loader])
    return of_reports.overlay(loader=own, finalize=visible)


ALLOWED = "\n\t\u200c\u200d\u202f"
"""Line ends and tabs; joiners, by which some scripts and emoji are written; the thin space of numbers."""


def visible(value: Any) -> Any:
    """Text whose marks of direction and control characters can be seen, so that they turn nothing around."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    shown = (c if c.isprintable() or c in ALLOWED else f"\\u{ord(c):04x}" for c in value)
    return "".join(shown)
