"""What was done to a data set, for people: on the terminal, and as its card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.desk.left import labels_line
from tunesmith.desk.passes import Example
from tunesmith.desk.steps import excerpt

Examples = Mapping[str, Mapping[str, Sequence[Example]]]
"""step -> rule -> rows that it acted on."""


def as_text(facts: Mapping[str, Any], examples: Examples) -> str:
    """One screen: files, steps with their rules and an example of each, and what is left."""
    lines = [facts["meaning"]]
    for file in facts["files"]:
        said = [(what, count) for kind in ("refused", "repaired") for what, count in file[kind].items()]
        refused = "".join(f"; {count:,} x {what}" for what, count in said)
        lines.append(
            f"{file['file']} ({file['split']}): {file['used']:,} of {file['rows']:,} rows read{refused}"
        )
    lines += facts.get("notes", [])
    for step in facts["steps"]:
        lines.append("")
        lines.append(
            f"{step['step']}: {step['in']:,} rows in, {step['out']:,} out, {step['rows_changed']:,} changed"
        )
        lines += [f"  {count:>9,} moved   to {split}" for split, count in step["moved"].items()]
        for what in ("changed", "added", "dropped"):
            for rule, count in step[what].items():
                lines.append(f"  {count:>9,} {what:7} {rule}")
                for shown in _shown(examples[step["step"]][rule][:1]):
                    lines += [f"            {line}" for line in shown.split("\n")]
    lines += ["", "rows: " + ", ".join(f"{split} {count:,}" for split, count in facts["rows"].items())]
    lines.append(f"version: {facts['version']}" if facts["version"] else "a trial: nothing was written")
    return "\n".join(lines)


def as_markdown(manifest: Mapping[str, Any], examples: Examples) -> str:
    """The card: where the rows are from, what was done to them and to how many, and what is left."""
    lines = ["# Data card", "", f"Made {manifest['made']} by tunesmith {manifest['tunesmith']}.", ""]
    lines += ["## Rows", "", "| split | rows | characters: mean | p50 | p90 | p99 | most | labels |"]
    lines += ["|---|---:|---:|---:|---:|---:|---:|---|"]
    lines += [_left(split, one) for split, one in manifest["left"].items()]
    lines += ["", f"What the columns mean: {_cell(manifest['meaning'])}", "", "## Sources", ""]
    lines += ["| file | split | rows | used | refused | repaired | SHA-256 |"]
    lines += ["|---|---|---:|---:|---|---|---|"]
    for one in manifest["sources"]:
        refused, repaired = (
            ", ".join(f"{count:,} {what}" for what, count in one[kind].items()) or "none"
            for kind in ("refused", "repaired")
        )
        where = f"{_cell(one['file'])} | {one['split']} | {one['rows']:,} | {one['used']:,}"
        lines.append(f"| {where} | {refused} | {repaired} | {one['sha256'][:16]} |")
    lines += [
        "",
        "## Steps",
        "",
        kept_words(manifest["recipe"]),
        "",
    ]
    notes = [f"- {_cell(note)}" for note in manifest.get("notes", [])]
    lines += [*notes, ""] if notes else []
    for step in manifest["steps"]:
        lines.append(f"### {step['step']}")
        moved = "".join(f", {count:,} moved to {split}" for split, count in step["moved"].items())
        lines += [
            "",
            f"{step['in']:,} rows in, {step['out']:,} out, {step['rows_changed']:,} changed{moved}.",
            "",
        ]
        rules = [
            (what, rule, count)
            for what in ("changed", "added", "dropped")
            for rule, count in step[what].items()
        ]
        if rules:
            lines += ["| rule | rows | | an example |", "|---|---:|---|---|"]
        for what, rule, count in rules:
            example = " → ".join(_shown(examples[step["step"]][rule][:1]))
            lines.append(f"| {rule} | {count:,} | {what} | {_cell(example)} |")
        lines.append("")
    lines += [
        "## Recipe",
        "",
        "```json",
        json.dumps(manifest["recipe"], ensure_ascii=False, indent=2),
        "```",
        "",
    ]
    return "\n".join(lines)


def kept_words(recipe: Mapping[str, Any]) -> str:
    """What the ledger holds."""
    scrub = recipe.get("scrub")
    said = "" if scrub is None or scrub["keep_originals"] else ", but with masks in place of personal data"
    return f"Every row that was changed or dropped stands in changes.jsonl as it was{said}."


def _left(split: str, one: Mapping[str, Any]) -> str:
    """What is left of a split, as a line of the table."""
    lengths = " | ".join(f"{one['characters'][name]:,}" for name in ("mean", "p50", "p90", "p99", "most"))
    labels = _cell(labels_line(one["labels"])) if "labels" in one else ""
    return f"| {split} | {one['rows']:,} | {lengths} | {labels} |"


def _shown(examples: Sequence[Example]) -> list[str]:
    """Of each its place and why, what was there, and what is there now."""
    out = []
    for one in examples:
        out.append(f"{one.place}: {one.message}" if one.message else one.place)
        out.append(excerpt([_words(value) for value in one.before.values()]))
        if one.after is not None and one.after != one.before:
            out.append(excerpt([_words(value) for value in one.after.values()]))
    return out


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cell(text: str) -> str:
    """Text in a table of Markdown: no markup of its own, on one line."""
    escaped = "".join(f"\\{c}" if c in r"\`*_{}[]<>()#+!|~" else c for c in text)
    return " ".join(escaped.split())
