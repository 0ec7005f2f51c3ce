"""Rows -> Examples, by what their columns mean (`columns`, `detect`, whose names are offered here too)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

from tunesmith.data.asked import (
    Row,
    Turns,
    asked_by_prompt,
    filled,
    optional,
    paragraphs,
    tools,
    value,
    with_system,
)
from tunesmith.data.columns import JUDGED, Mapping
from tunesmith.data.conversations import check_order, messages_of
from tunesmith.data.detect import detect
from tunesmith.data.judgements import to_judged
from tunesmith.data.sources import located
from tunesmith.data.steps import to_steps
from tunesmith.data.targets import (
    class_name,
    names_answer,
    number_answer,
    spans_answer,
    spans_of,
    spans_of_tags,
    words_of,
)
from tunesmith.errors import RowError
from tunesmith.types import Example, Message, RowRef

__all__ = ["Mapping", "detect", "is_usable", "to_example", "to_prompt"]


def to_example(
    mapping: Mapping, row: Row, ref: RowRef, instruction: str | None = None, notes: Counter[str] | None = None
) -> Example:
    """One row as an Example. notes: counts what was repaired (tags_repaired) or guessed (prompt_from_texts).

    Raises RowError with a stable reason: missing_field, not_a_string, not_json, empty_prompt, empty_answer,
    empty_text, two_systems, those of `targets`, for conversations those of `conversations.messages_of` and of
    `peer_formats`, and for judged rows those of `judgements` and `steps`.
    """
    try:
        if mapping.kind == "text":
            return Example(ref, text=filled(value(mapping, row, "text"), "text", "empty_text"))
        if mapping.kind == "stepwise":
            return to_steps(mapping, row, ref)
        if mapping.kind in JUDGED:
            return to_judged(mapping, row, ref, Counter() if notes is None else notes)
        asked = _asked(mapping, row, instruction)
        if mapping.kind == "asked":
            messages = with_system(mapping, row, asked)
            check_order(messages)
            return Example(ref, (*messages, *_reference(mapping, row)), tools(mapping, row))
        if mapping.kind in ("messages", "prompt"):
            answer = () if mapping.kind == "messages" else _completion(mapping, row)
            messages = with_system(mapping, row, (*asked, *answer))
            check_order(messages)
            _check_ends(messages)
            return Example(ref, messages, tools(mapping, row))
        if mapping.kind == "pairs":
            turns = (
                *asked,
                Message("assistant", filled(value(mapping, row, "positive"), "positive", "empty_text")),
            )
            return Example(ref, turns, negatives=_negatives(mapping, row))
        content, label = _ANSWER[mapping.kind](mapping, row, Counter() if notes is None else notes)
        answer_turn = Message("assistant", content, _sample_weight(mapping, row))
        messages = with_system(mapping, row, (*asked, answer_turn))
        return Example(ref, messages, label=label, pair=_pair(mapping, row))
    except RowError as error:
        raise located(error, ref) from None


_TEXTS = {"text": {"text"}, "prompt": {"prompt", "completion"}, "pairs": {"anchor", "positive"}}


def is_usable(mapping: Mapping, row: Row) -> bool:
    """Whether `to_example` surely makes an Example of it, told at a small part of the cost: the row has the texts that
    its kind needs, and no other part. False says nothing."""
    texts = _TEXTS.get(mapping.kind)
    if texts is None or mapping.json_fields or mapping.columns.keys() != texts:
        return False
    found = [row.get(column) for column in mapping.columns.values()]
    return all([isinstance(text, str) and text.strip() for text in found])


def to_prompt(mapping: Mapping, row: Row, ref: RowRef, instruction: str | None = None) -> Example:
    """What the row asks: the messages before its answer, as `to_example` makes them; an answer is not looked at.

    Raises RowError as `to_example` does, but for what concerns the answer.
    """
    try:
        asked = _asked(mapping, row, instruction)
        messages = with_system(mapping, row, _unanswered(asked) if mapping.kind == "messages" else asked)
        check_order(messages)
        return Example(ref, messages, tools(mapping, row), pair=_pair(mapping, row))
    except RowError as error:
        raise located(error, ref) from None


def _unanswered(messages: Turns) -> Turns:
    """Without the answer that a conversation ends on."""
    asked = messages[:-1] if messages[-1].role == "assistant" else messages
    if all(message.role != "user" for message in asked):
        raise RowError("no_user", "no user turn, so nothing is asked", field="messages")
    return asked


def _check_ends(messages: Turns) -> None:
    roles = [message.role for message in messages]
    if "assistant" not in roles:
        raise RowError("no_assistant", "no assistant turn, so there is nothing to learn")
    if roles[-1] != "assistant":
        fix = "end on the assistant's turn"
        raise RowError("trailing_turn", f"the last turn is the {roles[-1]}'s", fix=fix)
    if "user" not in roles[: roles.index("assistant")]:
        raise RowError("no_user", "the assistant speaks before any user")


# What a row asks ---------------------------------------------------------------------------------------


def _asked(mapping: Mapping, row: Row, instruction: str | None) -> Turns:
    """The turns before the answer, without a system column's; of a conversation all its turns."""
    if mapping.kind == "messages":
        return messages_of(value(mapping, row, "messages"), mapping.turns)
    if mapping.kind in ("prompt", "asked"):
        return asked_by_prompt(mapping, row, instruction)
    if mapping.kind == "pairs":
        return (Message("user", filled(value(mapping, row, "anchor"), "anchor", "empty_text")),)
    if "tokens" in mapping.columns:
        return (Message("user", words_of(value(mapping, row, "tokens"))[0]),)
    text = filled(value(mapping, row, "text"), "text", "empty_text")
    second = _pair(mapping, row)
    asked = text if instruction is None and second is None else paragraphs(instruction, text, second)
    return (Message("user", asked),)


def _pair(mapping: Mapping, row: Row) -> str | None:
    second = optional(mapping, row, "pair")
    return None if second is None or second == "" else filled(second, "pair", "empty_text")


def _negatives(mapping: Mapping, row: Row) -> tuple[str, ...]:
    found = optional(mapping, row, "negatives")
    if found is None or found == "":
        return ()
    values = found if isinstance(found, list) else [found]
    return tuple(filled(text, "negatives", "empty_text") for text in values)


# What it is answered with ------------------------------------------------------------------------------


def _completion(mapping: Mapping, row: Row) -> Turns:
    if mapping.json_fields:
        return (Message("assistant", _json_answer(mapping, row)),)
    completion = value(mapping, row, "completion")
    if isinstance(completion, dict | list):
        turns = completion if isinstance(completion, list) else [completion]
        return messages_of(turns, mapping.turns)
    return (Message("assistant", filled(completion, "completion", "empty_answer")),)


def _reference(mapping: Mapping, row: Row) -> Turns:
    """The answer that there is, or an empty one: the row asks, and ends where the assistant is to speak."""
    found = optional(mapping, row, "completion")
    return (Message("assistant", ""),) if found in (None, "") else _completion(mapping, row)


def _json_answer(mapping: Mapping, row: Row) -> str:
    """The answer columns as one JSON object, without those that are empty."""
    fields = {name: row[name] for name in mapping.json_fields if row.get(name) not in (None, "")}
    if not fields:
        raise RowError("empty_answer", f"none of {', '.join(mapping.json_fields)} has a value")
    try:
        return json.dumps(fields, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RowError("not_json", f"an answer column that JSON cannot hold ({error})") from None


Answer = tuple[str, str | None]  # the assistant's text, and the class where there is one


def _sample_weight(mapping: Mapping, row: Row) -> float | None:
    """How much the row counts in the loss, where a column says so."""
    found = optional(mapping, row, "sample_weight")
    if found is None or found == "":
        return None
    try:
        weight = (
            float(found) if isinstance(found, int | float | str) and not isinstance(found, bool) else -1.0
        )
    except ValueError:
        weight = -1.0
    if not 0 <= weight < float("inf"):
        raise RowError("bad_weight", f"weight {found!r}; a number of 0 or more", field="sample_weight")
    return weight


def _label(mapping: Mapping, row: Row, notes: Counter[str]) -> Answer:
    name = class_name(value(mapping, row, "label"))
    return name, name


def _labels(mapping: Mapping, row: Row, notes: Counter[str]) -> Answer:
    return names_answer(value(mapping, row, "labels")), None


def _number(mapping: Mapping, row: Row, notes: Counter[str]) -> Answer:
    return number_answer([(column, row.get(column)) for column in mapping.targets]), None


def _spans(mapping: Mapping, row: Row, notes: Counter[str]) -> Answer:
    if "tokens" not in mapping.columns:
        text = filled(value(mapping, row, "text"), "text", "empty_text")
        return spans_answer(spans_of(text, value(mapping, row, "spans"))), None
    _, places = words_of(value(mapping, row, "tokens"))
    spans, repaired = spans_of_tags(places, value(mapping, row, "tags"))
    if repaired:
        notes["tags_repaired"] += repaired
    return spans_answer(spans), None


_ANSWER: dict[str, Callable[[Mapping, Row, Counter[str]], Answer]] = {
    "label": _label,
    "labels": _labels,
    "number": _number,
    "tags": _spans,
}
