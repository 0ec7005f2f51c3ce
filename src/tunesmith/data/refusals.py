"""Rows that supervised learning cannot use as they are: what they are, and what to write to use them all the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tunesmith.data.columns import SYNONYMS, VERDICTS, header_hint, key, show
from tunesmith.data.columns import Mapping as Meaning
from tunesmith.errors import DataError

WORSE = SYNONYMS["rejected"]
SUPERVISED = "messages | prompt + completion | text + label | text"
BOTH = "to learn from the preferences write method.type=preference; supervised fine-tuning learns from one answer: "
VERDICTS_TOO = "to learn from the verdicts write method.type=unpaired; to learn from the good answers alone, "
JUDGED_ROWS = (
    "chosen + rejected | prompt + completion + label (true or false) | prompt + completion + rating | prompt + "
    "completions + ranks or scores | prompt + completions (steps) + labels; messages may stand for the prompt, or for "
    "prompt and completion"
)

Rows = Sequence[Mapping[str, Any]]


def refuse_preferences(rows: Rows, seen: list[str], file: str) -> None:
    """Raises DataError for rows with a better and a worse answer, or with an answer and a verdict on it."""
    names = {key(column): column for column in seen}
    if worse := [names[name] for name in WORSE if name in names]:
        raise DataError(
            f"{file}: these are preference rows: '{worse[0]}' holds the worse answer ({show(seen)})",
            "one answer a row: messages, prompt + completion, text + label, or text",
            BOTH + _good_answer(rows, names),
        )
    answered = _one_of("messages", names) or (_one_of("prompt", names) and _one_of("completion", names))
    for name in VERDICTS:
        if answered and name in names and _all_true_or_false(rows, names[name]):
            kind = "messages" if _one_of("messages", names) else "prompt"
            raise DataError(
                f"{file}: these are unpaired preference rows: '{names[name]}' says whether the answer is good",
                "rows whose answers are all to be learned",
                f"{VERDICTS_TOO}keep the rows where {names[name]} is true and write data.format={kind}",
            )


def refuse_described(what: str, meaning: Meaning) -> DataError:
    """The error for a description of judged rows where answers are learned as they are."""
    if meaning.kind == "preference":
        fix = (
            f"{BOTH}write ranking: false and columns.response: {meaning.columns['chosen']} in the description"
        )
    else:
        fix = f"{VERDICTS_TOO}keep the good rows and leave kto_tag out of the description"
    return DataError(f"{what} describes {meaning.kind} rows", "one answer a row", fix)


def _good_answer(rows: Rows, names: Mapping[str, str]) -> str:
    """What to write to learn from the better answers alone."""
    if "preferred_output" in names:
        prompt = names.get("input", "<column>")
        return f"write data.columns.prompt={prompt} data.columns.completion={names['preferred_output']}"
    messages, prompt = _one_of("messages", names), _one_of("prompt", names)
    if "chosen" not in names:
        return f"write data.format={'messages' if messages else 'prompt'}"
    chosen = names["chosen"]
    if messages and not prompt:
        return f"write data.columns.prompt={messages} data.columns.completion={chosen}"
    if prompt:
        return f"write data.columns.completion={chosen}"
    turns = any(isinstance(row.get(chosen), list) for row in rows)
    return f"write data.columns.{'messages' if turns else 'text'}={chosen}"


def _one_of(part: str, names: Mapping[str, str]) -> str:
    return next((names[name] for name in SYNONYMS[part] if name in names), "")


def _all_true_or_false(rows: Rows, column: str) -> bool:
    values = [row[column] for row in rows if row.get(column) not in (None, "")]
    return bool(values) and all(
        isinstance(value, bool) or (isinstance(value, str) and value.lower() in ("true", "false"))
        for value in values
    )


def no_fit(seen: list[str], file: str) -> DataError:
    """The error for columns that are of no kind of row."""
    names = {key(column): column for column in seen}
    for applies, what, expected, fix in _UNUSABLE:
        if applies(names):
            return DataError(f"{file}: {what} ({show(seen)})", expected, fix + header_hint(file))
    return DataError(
        f"{file}: the columns {show(seen)} are none that are known",
        SUPERVISED,
        "name them, for example data.columns.text=<column> data.columns.label=<column>" + header_hint(file),
    )


def no_judgements(seen: list[str], file: str) -> DataError:
    """The error for columns that are of no kind of judged row."""
    return DataError(
        f"{file}: no judged answers among the columns {show(seen)}",
        JUDGED_ROWS,
        "name them, for example data.columns.chosen=<column> data.columns.rejected=<column>"
        + header_hint(file),
    )


# When (of the columns' names) -> what the rows are, what was expected, what to do.
_UNUSABLE: tuple[tuple[Callable[[Mapping[str, str]], bool], str, str, str], ...] = (
    (
        lambda names: "segments" in names,
        "'segments' holds text with its template written into it (input_output rows)",
        "messages; the model's own chat template writes the marks between turns",
        "write each turn as a message, with weight 0 where it is not to be learned",
    ),
    (
        lambda names: "completions" in names and bool(names.keys() & {"ranks", "scores"}),
        "these are ranking rows: 'completions' holds answers that are ranked or scored",
        "one answer a row, in a completion column",
        "to learn from the ranking write method.type=ranking; else keep each row's best answer as its completion",
    ),
    (
        lambda names: "completions" in names and "labels" in names,
        "these are stepwise rows: 'completions' holds steps, 'labels' a verdict on each",
        "one answer a row, in a completion column",
        "to learn from the verdicts write method.type=stepwise; to learn the good answers, join their steps into a "
        "completion column",
    ),
    (
        lambda names: any(name in names for name in SYNONYMS["prompt"]),
        "these are prompt-only rows: there is no answer to learn",
        "a column called " + " or ".join(SYNONYMS["completion"]),
        "write data.columns.completion=<column>; to learn the prompts as text, data.columns.text=<column>",
    ),
)
