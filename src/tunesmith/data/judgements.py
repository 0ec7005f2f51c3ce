"""Judged rows -> Examples whose completions people compared, ranked, rated, or called good or bad.

| kind | completions, in this order | their scores |
|---|---|---|
| `preference` | the chosen one, the rejected one or ones | 1, 0 |
| `unpaired` | the answer | 1 good, 0 bad |
| `rating` | the answer | the number |
| `ranking` | as they are listed | the numbers, or the ranks with a minus: 1 is the best, equal ranks are ties |

A completion is exactly one assistant turn: a text, a message, a list of one message, or a whole conversation that ends
on it and otherwise is the prompt. The prompt has a column, or is what the answers begin with: the turns before the
last of conversations and of transcripts (`transcripts`), the words of plain texts (counted as prompt_from_texts).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunesmith.data.asked import Row, Turns, asked_by_prompt, filled, optional, tools, value, with_system
from tunesmith.data.columns import Mapping
from tunesmith.data.conversations import check_order, messages_of
from tunesmith.data.peer_formats import json_value
from tunesmith.data.sources import located
from tunesmith.data.targets import number
from tunesmith.data.transcripts import is_transcript, turns_of_transcript
from tunesmith.errors import RowError
from tunesmith.types import Completion, Example, Message, RowRef

GOOD = ("true", "yes", "good", "1")
BAD = ("false", "no", "bad", "0")
TEXT_KEYS = ("text", "completion", "response", "answer", "content", "step")
SCORE_KEYS = {
    "score": 1.0,
    "rating": 1.0,
    "rank": -1.0,
}  # of an object among completions: what its number counts


@dataclass(frozen=True)
class _Answer:
    """before: the turns of its own conversation; none where it stands alone. number: of its own, in a list."""

    message: Message
    before: Turns = ()
    number: float | None = None


def to_judged(mapping: Mapping, row: Row, ref: RowRef, notes: Counter[str]) -> Example:
    """One judged row. notes: counts prompt_from_texts.

    Raises RowError: missing_field, nothing_rejected, several_chosen, chosen_is_rejected, different_prompts,
    prompt_has_answer, no_prompt, no_user, not_one_turn, empty_answer, bad_number, negative_margin, bad_verdict,
    too_few_answers, lengths_differ, all_tied, conflicting_scores, bad_weight, and those of prompts and messages.
    """
    prompt, answers = _read(mapping, row, notes)
    scores = _scores(mapping, row, answers)
    _check(mapping.kind, [answer.message for answer in answers], scores)
    return _example(mapping, row, ref, prompt, answers, scores, _margin(mapping, row))


def to_scored(mapping: Mapping, row: Row, ref: RowRef) -> Example:
    """A row whose answers are to be scored (see `detect.detect_scored`): every completion has the score 0.

    Raises RowError as `to_judged` does, but for what concerns the judgement.
    """
    try:
        prompt, answers = _read(mapping, row, Counter())
        return _example(mapping, row, ref, prompt, answers, [0.0] * len(answers), None)
    except RowError as error:
        raise located(error, ref) from None


def _example(
    mapping: Mapping,
    row: Row,
    ref: RowRef,
    prompt: Turns,
    answers: Sequence[_Answer],
    scores: Sequence[float],
    margin: float | None,
) -> Example:
    prompt = with_system(mapping, row, prompt)
    if all(turn.role != "user" for turn in prompt):
        raise RowError("no_user", "no user turn before the answer, so nothing is asked")
    completions = tuple(
        Completion(answer.message, score) for answer, score in zip(answers, scores, strict=True)
    )
    for completion in completions:
        check_order((*prompt, completion.message))
        if completion.message.weight not in (None, 1.0):
            raise RowError(
                "bad_weight", "a judged answer with a weight of its own", fix="leave the weight out"
            )
    best = max(completions, key=lambda completion: completion.score)
    return Example(ref, (*prompt, best.message), tools(mapping, row), completions=completions, margin=margin)


# Answers and what they answer ----------------------------------------------------------------------------


def _read(mapping: Mapping, row: Row, notes: Counter[str]) -> tuple[Turns, list[_Answer]]:
    """The prompt, and the answers to it."""
    columns = mapping.columns
    answers: list[_Answer] = []
    given: Turns | None = None
    if "messages" in columns and not {"chosen", "completions"} & columns.keys():
        given, answers = _ended(mapping, row)
    elif "messages" in columns:
        given = messages_of(value(mapping, row, "messages"), mapping.turns)
    elif "prompt" in columns:
        given = prompt_of(mapping, row)
    if mapping.kind == "preference":
        answers += _compared(mapping, row, implicit=given is None)
    elif mapping.kind == "ranking":
        answers += _listed(mapping, row)
    elif "completion" in columns:
        answers += _answers(value(mapping, row, "completion"), mapping, "completion")
        if len(answers) != 1:
            raise _not_one_turn(f"{len(answers)} answers", columns["completion"])
    if given is None and not any(answer.before for answer in answers):
        return _from_texts(answers, notes)
    return _agreed(given, answers), answers


def _ended(mapping: Mapping, row: Row) -> tuple[Turns, list[_Answer]]:
    """A conversation that ends on what is judged."""
    *before, last = messages_of(value(mapping, row, "messages"), mapping.turns)
    if last.role != "assistant":
        raise _not_one_turn(f"the last turn is the {last.role}'s", mapping.columns["messages"])
    return tuple(before), [_Answer(last)]


def prompt_of(mapping: Mapping, row: Row) -> Turns:
    """The turns of the prompt column; a transcript that ends before an answer is a conversation."""
    prompt = value(mapping, row, "prompt")
    if isinstance(prompt, str) and is_transcript(prompt):
        *turns, last = turns_of_transcript(prompt)
        if last["role"] == "assistant" and not last["content"].strip():
            return messages_of(turns)
    return asked_by_prompt(mapping, row)


def _agreed(given: Turns | None, answers: Sequence[_Answer]) -> Turns:
    """The one prompt of answers that may have conversations of their own. Raises RowError (different_prompts)."""
    own = [answer.before for answer in answers if answer.before]
    if given is None and len(own) < len(answers):
        raise _different("a conversation beside an answer without one")
    for before in own[1:]:
        if before != own[0]:
            raise _different("what stands before the last assistant turn differs")
    if given is None:
        return own[0]
    # The conversations may have a system turn more, and the column the chosen answer too.
    whole = [own[0], own[0][1:]] if own and own[0][0].role == "system" else own[:1]
    asked = given[:-1] if own and given and given[-1].role == "assistant" else given
    if own and given not in whole and asked not in whole:
        raise _different("the prompt is not what stands before the last assistant turn")
    if not own and given and given[-1].role == "assistant":
        fix = "end the prompt on the user's turn"
        raise RowError("prompt_has_answer", "a prompt that ends on the assistant's turn", fix=fix)
    return own[0] if own else given


def _different(got: str) -> RowError:
    return RowError("different_prompts", got, fix="compare answers to the same prompt")


def _from_texts(answers: Sequence[_Answer], notes: Counter[str]) -> tuple[Turns, list[_Answer]]:
    """Plain texts without a prompt: what all begin with, up to the last white space in it, is asked."""
    texts = [answer.message.content for answer in answers]
    alike = zip(min(texts), max(texts), strict=False)  # of sorted texts the ends differ first
    begin = "".join(a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], alike))
    begin = begin[: max((at + 1 for at, letter in enumerate(begin) if letter.isspace()), default=0)]
    if not begin.strip() or any(answer.message.extra for answer in answers):
        fix = "give the prompt a column, or write data.columns.prompt=<column>"
        raise RowError("no_prompt", "no prompt, and answers that do not begin alike", fix=fix)
    notes["prompt_from_texts"] += 1
    rest = [filled(text[len(begin) :], "chosen or rejected", "empty_answer") for text in texts]
    return (Message("user", begin.strip()),), [_Answer(Message("assistant", text)) for text in rest]


def _compared(mapping: Mapping, row: Row, implicit: bool) -> list[_Answer]:
    """The chosen answer (unless a conversation ends on it), and the rejected ones."""
    chosen: list[_Answer] = []
    if "chosen" in mapping.columns:
        chosen = _answers(value(mapping, row, "chosen"), mapping, "chosen", implicit)
        if len(chosen) != 1:
            raise RowError("several_chosen", f"{len(chosen)} answers", field="chosen", fix="choose one")
    worse = optional(mapping, row, "rejected")
    if worse is None or worse == [] or (isinstance(worse, str) and not worse.strip()):
        raise RowError("nothing_rejected", "no answer in it", field=mapping.columns["rejected"])
    return chosen + _answers(worse, mapping, "rejected", implicit)


def _answers(found: object, mapping: Mapping, part: str, implicit: bool = False) -> list[_Answer]:
    """A text, a message, a conversation, or a list of such. implicit: a text may be a transcript."""
    field = mapping.columns[part]
    if isinstance(found, str) and implicit and is_transcript(found):
        return _conversations(turns_of_transcript(found), mapping, field)
    if isinstance(found, dict):
        return _conversations([found], mapping, field)
    if isinstance(found, list) and found and isinstance(found[0], dict):
        return _conversations(found, mapping, field)
    if isinstance(found, list):
        return [answer for item in found for answer in _answers(item, mapping, part, implicit)]
    return [_Answer(Message("assistant", filled(found, field, "empty_answer")))]


def _conversations(found: object, mapping: Mapping, field: str) -> list[_Answer]:
    """The answer that a conversation ends on; of nothing but assistant turns, each is an answer by itself."""
    turns = messages_of(found, mapping.turns)
    if all(turn.role == "assistant" for turn in turns):
        return [_Answer(turn) for turn in turns]
    if turns[-1].role != "assistant":
        raise _not_one_turn(f"the last turn is the {turns[-1].role}'s", field)
    if all(turn.role != "user" for turn in turns):
        raise _not_one_turn("several turns without a user's", field)
    return [_Answer(turns[-1], turns[:-1])]


def _not_one_turn(got: str, field: str) -> RowError:
    return RowError("not_one_turn", got, field=field, fix="an answer is one assistant turn")


def _listed(mapping: Mapping, row: Row) -> list[_Answer]:
    field = mapping.columns["completions"]
    answers = []
    for index, item in enumerate(list_of(value(mapping, row, "completions"), field)):
        where = f"{field}[{index}]"
        if isinstance(item, dict):
            answers.append(_object(item, mapping, where))
            continue
        found = _answers(item, mapping, "completions")
        if len(found) != 1:
            raise _not_one_turn(f"{len(found)} answers", where)
        answers += found
    return answers


def _object(item: dict[str, Any], mapping: Mapping, field: str) -> _Answer:
    """{text, score}, or a message with a score in it."""
    fields = {name: found for name, found in item.items() if name not in SCORE_KEYS}
    name = next((name for name in SCORE_KEYS if item.get(name) is not None), None)
    own = None if name is None else SCORE_KEYS[name] * _float(item[name], f"{field}.{name}")
    text = next((fields[name] for name in TEXT_KEYS if isinstance(fields.get(name), str)), None)
    if text is None or not fields.keys().isdisjoint({"role", "from", mapping.turns.keys.get("role")}):
        return replace(_conversations([fields], mapping, field)[0], number=own)
    return _Answer(Message("assistant", filled(text, field, "empty_answer")), number=own)


def list_of(found: object, field: str) -> list[Any]:
    """Raises RowError (not_a_list)."""
    if isinstance(found, str) and found.lstrip().startswith("["):  # as CSV holds it
        found = json_value(found, "not_a_list", field)
    if not isinstance(found, list):
        raise RowError("not_a_list", f"a {type(found).__name__}, not a list", field=field)
    return found


# What people said of them --------------------------------------------------------------------------------


def _scores(mapping: Mapping, row: Row, answers: Sequence[_Answer]) -> list[float]:
    if mapping.kind == "preference":
        return [1.0] + [0.0] * (len(answers) - 1)
    if mapping.kind == "unpaired":
        return [verdict(value(mapping, row, "label"), mapping.columns["label"])]
    if mapping.kind == "rating":
        return [_float(value(mapping, row, "rating"), mapping.columns["rating"])]
    for part, sign in (("ranks", -1.0), ("scores", 1.0)):
        if part not in mapping.columns:
            continue
        field = mapping.columns[part]
        found = list_of(value(mapping, row, part), field)
        if len(found) != len(answers):
            got = f"{len(found)} {part} of {len(answers)} completions"
            raise RowError("lengths_differ", got, field=field, fix="write one for each completion")
        return [sign * _float(one, f"{field}[{index}]") for index, one in enumerate(found)]
    numbers = [answer.number for answer in answers if answer.number is not None]
    if len(numbers) < len(answers):
        fix = f"write a {' or '.join(SCORE_KEYS)} in each, or a list of ranks or scores in a column"
        raise RowError("missing_field", "a completion without a score", field="completions", fix=fix)
    return numbers


def _check(kind: str, messages: Sequence[Message], scores: Sequence[float]) -> None:
    """Nothing that contradicts itself, or that says nothing."""
    said = [(message.content, message.extra) for message in messages]
    if kind == "preference" and said[0] in said[1:]:
        raise RowError("chosen_is_rejected", "the chosen answer is also rejected")
    if kind != "ranking":
        return
    if len(said) < 2:
        raise RowError("too_few_answers", f"{len(said)} completion(s)", fix="a ranking has at least two")
    if len(set(scores)) == 1:
        raise RowError(
            "all_tied", f"all {len(said)} completions have the same score", fix="nothing is compared"
        )
    for index, one in enumerate(said):
        first = said.index(one)
        if scores[first] != scores[index]:
            raise RowError(
                "conflicting_scores", f"completions {first} and {index} are equal, their scores not"
            )


def _margin(mapping: Mapping, row: Row) -> float | None:
    """The row's own, or the difference of the two scores; None where the row has none."""
    parts = [part for part in ("margin", "score_chosen", "score_rejected") if part in mapping.columns]
    found = [optional(mapping, row, part) for part in parts]
    if not parts or any(one is None or one == "" for one in found):
        return None
    numbers = [_float(one, mapping.columns[part]) for part, one in zip(parts, found, strict=True)]
    margin = numbers[0] if len(numbers) == 1 else numbers[0] - numbers[1]
    if margin < 0:
        field = " - ".join(mapping.columns[part] for part in parts)
        raise RowError("negative_margin", f"{margin:g}", field=field, fix="chosen is the better answer")
    return margin


def verdict(found: object, field: str) -> float:
    """1 for good, 0 for bad: true and false, 1 and 0, and the texts of GOOD and BAD in any case."""
    said = (
        str(int(found)) if isinstance(found, bool | float) and found in (0, 1) else str(found).strip().lower()
    )
    if isinstance(found, bool | int | float | str) and said in (*GOOD, *BAD):
        return float(said in GOOD)
    fix = f"write {', '.join(GOOD)} or {', '.join(BAD)}; rows of numbers are data.format=rating"
    raise RowError("bad_verdict", f"{str(found)[:40]!r} is no yes or no", field=field, fix=fix)


def _float(found: object, field: str) -> float:
    return float(number(found, field))
