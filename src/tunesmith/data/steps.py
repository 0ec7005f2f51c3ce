"""Stepwise rows -> Examples whose completions are the steps of one answer, with what people said of each.

A step is a text, a message of the assistant's, or an object of a text and its label. A label is a verdict (true, false,
and the words that `judgements` knows), a number from 0 (wrong) to 1 (right), or null where nobody said. Between steps
stands what the file has there, else a line end: each step holds what follows it, so that together they are the answer,
and a step ends where the next begins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tunesmith.data.asked import Row, Turns, filled, tools, value, with_system
from tunesmith.data.columns import Mapping
from tunesmith.data.conversations import check_order, messages_of
from tunesmith.data.judgements import BAD, GOOD, TEXT_KEYS, list_of, prompt_of, verdict
from tunesmith.data.sources import located
from tunesmith.data.targets import number
from tunesmith.errors import RowError
from tunesmith.types import Completion, Example, Message, RowRef

BETWEEN = "\n"
"""After a step that does not end on white space."""


def to_steps(mapping: Mapping, row: Row, ref: RowRef) -> Example:
    """One row of steps and their labels.

    Raises RowError: missing_field, not_a_list, no_steps, empty_step, not_a_string, lengths_differ, bad_label,
    no_labels, prompt_has_answer, no_user, and those of prompts and messages.
    """
    steps, own = _steps(mapping, row)
    field = mapping.columns.get("labels", mapping.columns["completions"])
    labels = list_of(value(mapping, row, "labels"), field) if "labels" in mapping.columns else own
    if len(labels) != len(steps):
        got = f"{len(labels)} labels of {len(steps)} steps"
        raise RowError("lengths_differ", got, field=field, fix="write one for each step, or null")
    found = [_label(label, f"{field}[{index}]") for index, label in enumerate(labels)]
    if all(math.isnan(label) for label in found):
        raise RowError("no_labels", f"none of {len(steps)} steps has a label", field=field)
    return _example(mapping, row, ref, steps, found)


def to_unlabelled(mapping: Mapping, row: Row, ref: RowRef) -> Example:
    """A row whose steps are to be scored (see `detect.detect_scored`): labels are not read.

    Raises RowError as `to_steps` does, but for what concerns labels.
    """
    try:
        steps, _ = _steps(mapping, row)
        return _example(mapping, row, ref, steps, [math.nan] * len(steps))
    except RowError as error:
        raise located(error, ref) from None


def steps_of(texts: Sequence[str]) -> tuple[str, ...]:
    """Each step with what stands between it and the next; the first does not begin with white space."""
    return tuple(text if text[-1].isspace() else text + BETWEEN for text in (texts[0].lstrip(), *texts[1:]))


def lines_of(answer: str) -> tuple[str, ...]:
    """The steps of an answer that has no marks between them: its lines that say something, each with what stands
    between it and the next. None of an answer that says nothing."""
    found: list[str] = []
    for line in answer.lstrip().splitlines(keepends=True):
        if line.strip():
            found.append(line)
        else:
            found[-1] += line
    return steps_of(found) if found else ()


def _example(
    mapping: Mapping, row: Row, ref: RowRef, steps: Sequence[str], labels: Sequence[float]
) -> Example:
    prompt = with_system(mapping, row, _asked(mapping, row))
    if prompt[-1].role == "assistant":
        fix = "end the prompt on the user's turn"
        raise RowError("prompt_has_answer", "a prompt that ends on the assistant's turn", fix=fix)
    if all(turn.role != "user" for turn in prompt):
        raise RowError("no_user", "no user turn before the answer, so nothing is asked")
    texts = steps_of(steps)
    turns = (*prompt, Message("assistant", "".join(texts).rstrip()))
    check_order(turns)
    completions = tuple(
        Completion(Message("assistant", text), label) for text, label in zip(texts, labels, strict=True)
    )
    return Example(ref, turns, tools(mapping, row), completions=completions, stepwise=True)


def _asked(mapping: Mapping, row: Row) -> Turns:
    if "messages" in mapping.columns:
        return messages_of(value(mapping, row, "messages"), mapping.turns)
    return prompt_of(mapping, row)


def _steps(mapping: Mapping, row: Row) -> tuple[list[str], list[object]]:
    """The texts, and what each item of the list says of itself."""
    field = mapping.columns["completions"]
    texts, labels = list[str](), list[object]()
    for index, item in enumerate(list_of(value(mapping, row, "completions"), field)):
        where, text = f"{field}[{index}]", item
        if isinstance(item, dict):
            text = next((item[name] for name in TEXT_KEYS if name in item), None)
        texts.append(filled(text, where, "empty_step"))
        labels.append(item.get("label") if isinstance(item, dict) else None)
    if not texts:
        raise RowError("no_steps", "an empty list", field=field, fix="leave out rows without an answer")
    return texts, labels


def _label(found: object, field: str) -> float:
    """NaN for null."""
    if found is None:
        return math.nan
    word = isinstance(found, bool) or str(found).strip().lower() in (*GOOD, *BAD)
    try:
        label = verdict(found, field) if word else float(number(found, field))
    except RowError:
        label = math.inf
    if not 0 <= label <= 1:
        fix = "write true or false, a number from 0 to 1, or null where nobody said"
        raise RowError("bad_label", f"{str(found)[:40]!r} is no verdict on a step", field=field, fix=fix)
    return label
