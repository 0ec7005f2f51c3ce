"""What an inspection found, on one or two screens of a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap
from typing import Any

from tunesmith.desk.steps import excerpt
from tunesmith.desk.suspects import REASONS
from tunesmith.evaluate.report_html import duration, size

WIDTH = 110
MARGIN = 11
COLUMNS, CLASSES, RULES = 12, 8, 12


def as_text(facts: Mapping[str, Any]) -> str:
    lines: list[str] = []
    known: dict[str, str] = {}
    for one in facts["files"]:
        table = str([[c["column"], c["part"], *c["types"]] for c in one["columns"]])
        lines += _file(one, known.get(table))
        known.setdefault(table, one["file"])
    sections: list[tuple[str, Iterator[str]]] = [
        ("rows", iter([_counts(facts["rows"])])),
        ("tokens", _tokens(facts["tokens"])),
        ("languages", iter([_languages(facts["languages"])])),
        ("labels", _labels(facts["labels"])),
        ("numbers", _numbers(facts["numbers"])),
        ("repeats", _repeats(facts["steps"])),
        ("conflicts", _conflicts(facts["conflicts"])),
        *((step["step"], _step(step)) for step in facts["steps"] if not step["step"].startswith("dedup")),
        ("look at", _suspicious(facts["suspicious"])),
        ("cost", _cost(facts["cost"])),
        ("left out", (f"{n:,} {what}" for what, n in facts["left_out"].items())),
    ]
    for name, found in sections:
        said = [line[: WIDTH + 200] for line in found]
        if said:
            lines += ["", *_beside(name, said)]
    return "\n".join(lines)


def _beside(name: str, lines: Sequence[str]) -> list[str]:
    """The section's name in the margin of its first line; a longer one above."""
    if len(name) >= MARGIN:
        return [name, *(" " * MARGIN + line for line in lines)]
    return [name.ljust(MARGIN) + lines[0], *(" " * MARGIN + line for line in lines[1:])]


def aligned(table: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Cells under each other, two blanks apart; right: columns of numbers."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def percent(share: float) -> str:
    return f"{100 * share:.1f} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def storage(num_bytes: int) -> str:
    """'412 bytes', '120 kB', '3.2 MB'."""
    if num_bytes < 1000:
        return f"{num_bytes} bytes"
    return f"{num_bytes / 1e3:.0f} kB" if num_bytes < 1e6 else f"{num_bytes / 1e6:,.1f} MB"


def many(count: int, what: str) -> str:
    """'1 row', '2,000 rows'."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"


def _file(one: Mapping[str, Any], like: str | None) -> list[str]:
    """like: the file before it whose columns are the same."""
    read = f"{one['used']:,} of {one['rows']:,} rows read"
    lines = [f"{one['file']} ({one['split']})"]
    lines.append(f"  {one['format']}, {one['encoding']}, {storage(one['bytes'])}; {read}")
    lines.append(f"  {one['meaning']}")
    lines += _columns(one) if like is None else [f"  columns as in {like}"]
    lines += [f"  repaired: {count:,} x {what}" for what, count in one["repaired"].items()]
    for reason, refused in one["refused"].items():
        first = refused["first"]
        said = excerpt([message_of(one["file"], first)], 90)
        lines.append(f"  refused: {refused['rows']:,} x {reason}, first on line {first['line']}: {said}")
    return lines


def message_of(file: str, first: Mapping[str, Any]) -> str:
    """What was found on a line, without the place where it was."""
    return str(first["message"]).removeprefix(f"{file}:{first['line']}: ").strip()


def _columns(one: Mapping[str, Any]) -> list[str]:
    table = [["column", "part", "types", "empty", "the first"]]
    for column in one["columns"][:COLUMNS]:
        cells = [column["column"][:24], column["part"] or "-", ", ".join(column["types"]) or "-"]
        table.append([*cells, percent(column["share_of_nulls"]), excerpt([column["example"]], 50)])
    lines = ["    " + line for line in aligned(table, right=(3,))]
    if len(one["columns"]) > COLUMNS:
        lines.append(f"    and {len(one['columns']) - COLUMNS:,} columns more")
    lines.append(f"  otherwise: {one['otherwise'].split(' (')[0]}, or data.format=KIND")
    return lines


def _tokens(tokens: Mapping[str, Any]) -> Iterator[str]:
    of = f" of a sample of {tokens['counted']:,} rows" if tokens["counted"] < tokens["rows"] else ""
    yield f"as counted for {tokens['as']}{of}; context {tokens['context']:,}"
    table = [["split", "", "mean", "p50", "p90", "p99", "most", "all"]]
    for split, parts in tokens["splits"].items():
        for place, (name, found) in enumerate(parts.items()):
            numbers = [
                f"{found['mean']:,.1f}",
                *(f"{found[k]:,}" for k in ("p50", "p90", "p99", "most", "all")),
            ]
            table.append([split if place == 0 else "", name, *numbers])
    yield from aligned(table, right=range(2, 8))
    if tokens["longest"]:
        yield "longest"
    for one in tokens["longest"][:3]:
        yield f"  {one['tokens']:>6,}  {one['place']}: {excerpt([_line(one['text'])], 70)}"
    if tokens["too_long"]:
        yield f"{many(tokens['too_long'], 'row')} longer than the context: training drops or cuts such rows"


def _line(text: str) -> str:
    return " ".join(text.split())


def _short(label: str) -> str:
    return excerpt([_line(label)], 36)


def _languages(found: Mapping[str, Any]) -> str:
    total = found["looked_at"]
    shares = [f"{name} {percent(n / total)}" for name, n in list(found["all"].items())[:8]]
    more = len(found["all"]) - 8
    said = ", ".join(shares) + (f", {more} more" if more > 0 else "")
    return f"{said} (py3langid, {total:,} of {found['of']:,} rows)"


def _labels(labels: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for column, splits in labels.items():
        for split, found in splits.items():
            classes = "class" if found["classes"] == 1 else "classes"
            yield (
                f"{column}, {split}: {found['classes']:,} {classes}, entropy {found['entropy']:.2f} bits "
                f"({percent(found['evenness'])} of even), the commonest {found['imbalance']:,.1f} x the rarest"
            )
            counts = [f"{_short(label)} {n:,}" for label, n in list(found["counts"].items())[:CLASSES]]
            more = found["classes"] - len(counts)
            said = ", ".join(counts) + (f", {more:,} more" if more else "")
            yield from wrap(said, WIDTH - MARGIN, initial_indent="  ", subsequent_indent="  ")
            if found["rare"]:
                rarest = ", ".join(map(_short, found["rarest"][:4]))
                yield f"  {found['rare']:,} of fewer than 10 rows: {rarest}{', …' if found['rare'] > 4 else ''}"


def _numbers(numbers: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for column, splits in numbers.items():
        for split, one in splits.items():
            quantiles = " ".join(f"{one[name]:.4g}" for name in ("least", "p25", "p50", "p75", "most"))
            yield (
                f"{column}, {split}: mean {one['mean']:.4g}, standard deviation {one['deviation']:.4g}, "
                f"least, quartiles, most {quantiles} ({one['rows']:,} rows, {one['distinct']:,} different)"
            )


def _repeats(steps: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for step in steps:
        if step["step"].startswith("dedup"):
            for rule, count in step["dropped"].items():
                yield f"{count:>7,}  {words_of_rule(rule)}{_example(step, rule)}"
            if not step["dropped"]:
                yield f"{'none':>7}  of {step['in']:,} rows ({step['step']})"


def words_of_rule(rule: str) -> str:
    """'near_in_test' -> 'near, in test'."""
    return rule.replace("_in_", ", of a row in ")


def _example(step: Mapping[str, Any], rule: str) -> str:
    """Where, and what was found there; else what was there, and what is there now."""
    examples = step["examples"].get(rule, ())
    if not examples:
        return ""
    one = examples[0]
    return f": {one['place']} {one['message'] or ' -> '.join(_both(one))}"


def _both(one: Mapping[str, Any]) -> list[str]:
    columns = (one["before"], one["after"] or {})
    said = (
        [v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in c.values()] for c in columns
    )
    return list(dict.fromkeys(excerpt(texts, 48).replace("\n", "⏎") for texts in said if texts))


def _conflicts(found: Mapping[str, Any]) -> Iterator[str]:
    if not found["prompts"]:
        yield "none: no prompt stands twice with different answers"
        return
    across = found["prompts_across_splits"]
    yield f"{many(found['prompts'], 'prompt')} with several answers, in {found['rows']:,} rows" + (
        f"; {across:,} of them across splits" if across else ""
    )
    for one in found["examples"][:2]:
        yield f"  {excerpt([_line(one['prompt'])], 90)}"
        for answer in one["answers"]:
            yield f"    {answer['place']} ({answer['split']}): {excerpt([_line(answer['answer'])], 80)}"


def _step(step: Mapping[str, Any]) -> Iterator[str]:
    """What a step would do, a line a rule."""
    found = [(what, rule, n) for what in ("dropped", "changed", "added") for rule, n in step[what].items()]
    for what, rule, count in found[:RULES]:
        yield f"{count:>7,}  would be {what}: {rule}{_example(step, rule)[:120]}"
    for split, count in step["moved"].items():
        yield f"{count:>7,}  would go to {split}"
    if not found and not step["moved"]:
        yield f"{'none':>7}  of {step['in']:,} rows would be touched"


def _suspicious(found: Mapping[str, Any]) -> Iterator[str]:
    if not found["rows"]:
        yield "no row stands out"
        return
    yield f"{many(found['rows'], 'row')} stand{'s' if found['rows'] == 1 else ''} out"
    for reason, count in found["reasons"].items():
        yield f"{count:>7,}  {reason}: {REASONS[reason]}"
    for one in found["worst"][:6]:
        reasons = "; ".join(f"{reason} ({message})" for reason, message in one["reasons"].items())
        yield f"  {one['place']}: {excerpt([_line(reasons)], 90)}"


def _cost(cost: Mapping[str, Any] | None) -> Iterator[str]:
    if cost is None:
        return
    yield f"{cost['rows']:,} rows and {cost['tokens_per_epoch']:,} tokens an epoch"
    if "not_known" in cost:
        yield f"not known: {_line(cost['not_known'])}"
        return
    yield (
        f"{cost['model']} ({cost['parameters'] / 1e6:,.1f} M parameters), {cost['method']}, {cost['tuning']}: "
        f"{cost['epochs']:g} epochs, {cost['steps']:,} steps of {cost['batch_size']} rows"
    )
    yield (
        f"about {duration(cost['train_seconds'])} at {cost['tokens_per_second']:,.0f} tokens a second, "
        f"{size(cost['peak_memory_bytes'])} of memory ({size(cost['available_memory_bytes'])} free)"
    )
    yield f"rests on {cost['rests_on']}"
