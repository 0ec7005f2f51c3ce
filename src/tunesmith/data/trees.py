"""Judged examples -> token rows for language models: the prompt once, and under it every completion.

The root is exactly the prompt that serving gives, without loss; each completion is a segment of its own with the ids of
its turn up to the end token, each with weight 1. `given` holds their `scores` (K,), and the `margin` (1,) of rows that
have one.

Of stepwise rows each step is the child of the one before, so that its last state has seen the prompt and all steps up
to it; only the last token of a step that has a label has weight 1. `given` holds `left_out` (1,), how many steps at the
answer's end did not fit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.account import Account
from tunesmith.data.ahead import accounted
from tunesmith.data.backend import Asking, in_lockstep
from tunesmith.data.making import Making, OnLongRow, alone
from tunesmith.data.render import Renderer
from tunesmith.data.sources import located
from tunesmith.errors import RowError
from tunesmith.types import Example, RowRef, Segment, TokenRow

Ids = Sequence[int] | NDArray[np.int64]
Given = Mapping[str, NDArray[np.floating[Any]]]
LEFT_OUT = "left_out"


def trees_of(
    renderer: Renderer, examples: Sequence[Example], max_length: int | None = None
) -> list[TokenRow | RowError]:
    """One row for each example, or the RowError of one that cannot be rendered (see `Renderer.rows_of`), or of whose
    steps not even the first fits (too_long). Of no path more than `max_length` tokens are kept, as `tokenise_trees`
    cuts them."""
    made = in_lockstep([_tree(renderer, example) for example in examples], renderer.ask)
    if max_length is None:
        return made
    return [row if isinstance(row, RowError) else _kept(renderer, row, max_length) for row in made]


def _kept(renderer: Renderer, row: TokenRow, max_length: int) -> TokenRow | RowError:
    found, _ = _within(renderer, row, max_length)
    return found or no_step_fits(row.ref, max_length)


def no_step_fits(ref: RowRef, max_length: int) -> RowError:
    """The error for a row of whose steps not even the first fits."""
    got = f"the first step does not fit {max_length} tokens"
    return located(RowError("too_long", got, fix="write shorter steps"), ref)


def _tree(renderer: Renderer, example: Example) -> Asking[TokenRow]:
    try:
        prompt, answers = yield from (renderer.steps if example.stepwise else renderer.answers)(example)
    except RowError as error:
        raise located(error, example.ref) from None
    given = given_of(example) if example.completions else {}
    return TokenRow(example.ref, _segments(prompt, answers, given), given=given)


def _segments(prompt: Ids, answers: Sequence[Ids], given: Given) -> tuple[Segment, ...]:
    root = Segment(np.asarray(prompt, np.int64), np.zeros(len(prompt), np.float32))
    if LEFT_OUT not in given:
        leaves = [Segment(np.asarray(ids, np.int64), np.ones(len(ids), np.float32), 0) for ids in answers]
        return (root, *leaves)
    steps = []
    for parent, (ids, label) in enumerate(zip(answers, given["scores"], strict=True)):
        weights = np.zeros(len(ids), np.float32)
        weights[-1] = float(np.isfinite(label))
        steps.append(Segment(np.asarray(ids, np.int64), weights, parent))
    return (root, *steps)


def given_of(example: Example) -> dict[str, NDArray[np.float64]]:
    """What an objective is told of the completions: scores (K,) and, where there is one, margin (1,)."""
    given = {"scores": np.array([completion.score for completion in example.completions], np.float64)}
    if example.margin is not None:
        given["margin"] = np.array([example.margin], np.float64)
    if example.stepwise:
        given[LEFT_OUT] = np.zeros(1)
    return given


def without_last(given: Given, count: int) -> Given:
    """What is given of a stepwise row whose last `count` steps are left out."""
    kept = len(given["scores"]) - count
    return {**given, "scores": given["scores"][:kept], LEFT_OUT: given[LEFT_OUT] + count}


def tokenise_trees(
    examples: Sequence[Example],
    renderer: Renderer,
    max_length: int,
    on_long_row: OnLongRow,
    account: Account,
) -> Sequence[TokenRow]:
    """Rows of whose paths, prompt and one completion (or all steps), none has more than `max_length` tokens; see
    `accounted`.

    `cut` takes the start of the prompt (a begin token stays), and the end of completions that do not fit with one
    token of the prompt before them; of steps those at the end, each whole. A row is dropped where no step with a label
    is left. The account's notes count prompt_cut, in rows, answer_cut, in completions, and steps_left_out.
    """

    def fit(example: Example, made: list[TokenRow], notes: Counter[str]) -> list[TokenRow]:
        if longest_path(made[0]) <= max_length:
            return made
        if on_long_row == "drop":
            return []
        row, cut = _within(renderer, made[0], max_length)
        if row is None or (example.stepwise and not row.num_supervised):
            return []
        notes.update(cut)
        return [row]

    making = Making(lambda some: alone(trees_of(renderer, some)), fit, longest_path, max_length)
    return accounted(examples, making, account)


def longest_path(row: TokenRow) -> int:
    """Tokens from the root to the end of the longest completion, or of the last step: what must fit the model's
    context."""
    ends: list[int] = []
    for segment in row.segments:
        ends.append(len(segment.ids) + (ends[segment.parent] if segment.parent >= 0 else 0))
    return max(ends)


def _within(renderer: Renderer, row: TokenRow, max_length: int) -> tuple[TokenRow | None, Counter[str]]:
    """The row cut to paths of at most `max_length` tokens, and what was cut; None where no step fits."""
    if longest_path(row) <= max_length:
        return row, Counter()
    cut: Counter[str] = Counter()
    prompt, *answers = (segment.ids for segment in row.segments)
    head = prompt[: int(len(prompt) > 1 and prompt[0] == renderer.tokenizer.bos_token_id)]
    most = max_length - len(head) - 1
    given: Given = row.given
    if LEFT_OUT in given:
        ends = np.cumsum([len(ids) for ids in answers])
        cut["steps_left_out"] = int((ends > most).sum())
        answers = answers[: len(answers) - cut["steps_left_out"]]
        if not answers:
            return None, cut
        given = without_last(given, cut["steps_left_out"])
        longest = int(ends[len(answers) - 1])
    else:
        cut["answer_cut"] = sum(len(ids) > most for ids in answers)
        answers = [ids[:most] for ids in answers]
        longest = max(map(len, answers), default=0)
    room = max_length - longest
    if len(prompt) > room:
        cut["prompt_cut"] = 1
        prompt = np.concatenate([head, prompt[len(prompt) - room + len(head) :]])
    return replace(row, segments=_segments(prompt, answers, given), given=given), cut
