"""Judged examples -> token rows for language models: the prompt once, and under it every completion.

The root is exactly the prompt that serving gives, without loss; each completion is a segment of its own with the ids of
its turn up to the end token, each with weight 1. `given` holds their `scores` (K,), and the `margin` (1,) of rows that
have one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.account import Account
from tunesmith.data.backend import Asking, in_lockstep
from tunesmith.data.render import Renderer
from tunesmith.data.sources import located
from tunesmith.data.tokens import OnLongRow, accounted, alone
from tunesmith.errors import RowError
from tunesmith.types import Example, Segment, TokenRow

Ids = Sequence[int] | NDArray[np.int64]


def trees_of(
    renderer: Renderer, examples: Sequence[Example], max_length: int | None = None
) -> list[TokenRow | RowError]:
    """One row for each example, or the RowError of one that cannot be rendered (see `Renderer.rows_of`). Of no path
    more than `max_length` tokens are kept, as `tokenise_trees` cuts them."""
    made = in_lockstep([_tree(renderer, example) for example in examples], renderer.ask)
    if max_length is None:
        return made
    return [row if isinstance(row, RowError) else _within(renderer, row, max_length)[0] for row in made]


def _tree(renderer: Renderer, example: Example) -> Asking[TokenRow]:
    try:
        prompt, answers = yield from renderer.answers(example)
    except RowError as error:
        raise located(error, example.ref) from None
    given = given_of(example) if example.completions else {}
    return TokenRow(example.ref, _segments(prompt, answers), given=given)


def _segments(prompt: Ids, answers: Sequence[Ids]) -> tuple[Segment, ...]:
    root = Segment(np.asarray(prompt, np.int64), np.zeros(len(prompt), np.float32))
    leaves = [Segment(np.asarray(ids, np.int64), np.ones(len(ids), np.float32), 0) for ids in answers]
    return (root, *leaves)


def given_of(example: Example) -> dict[str, NDArray[np.float64]]:
    """What an objective is told of the completions: scores (K,) and, where there is one, margin (1,)."""
    given = {"scores": np.array([completion.score for completion in example.completions], np.float64)}
    if example.margin is not None:
        given["margin"] = np.array([example.margin], np.float64)
    return given


def tokenise_trees(
    examples: Sequence[Example],
    renderer: Renderer,
    max_length: int,
    on_long_row: OnLongRow,
    account: Account,
) -> Sequence[TokenRow]:
    """Rows of whose paths, prompt and one completion, none has more than `max_length` tokens; see `accounted`.

    `cut` takes the start of the prompt (a begin token stays), and the end of completions that do not fit with one
    token of the prompt before them. The account's notes count prompt_cut, in rows, and answer_cut, in completions.
    """

    def fit(example: Example, made: list[TokenRow]) -> list[TokenRow]:
        if longest_path(made[0]) <= max_length:
            return made
        if on_long_row == "drop":
            return []
        row, cut = _within(renderer, made[0], max_length)
        account.notes.update(cut)
        return [row]

    return accounted(
        examples, lambda some: alone(trees_of(renderer, some)), fit, longest_path, max_length, account
    )


def longest_path(row: TokenRow) -> int:
    """Tokens from the root to the end of the longest completion, where there is one: what must fit the model's
    context."""
    root, *leaves = row.segments
    return len(root.ids) + max((len(leaf.ids) for leaf in leaves), default=0)


def _within(renderer: Renderer, row: TokenRow, max_length: int) -> tuple[TokenRow, Counter[str]]:
    """The row cut to paths of at most `max_length` tokens, and what was cut."""
    if longest_path(row) <= max_length:
        return row, Counter()
    cut: Counter[str] = Counter()
    prompt, *answers = (segment.ids for segment in row.segments)
    head = prompt[: int(len(prompt) > 1 and prompt[0] == renderer.tokenizer.bos_token_id)]
    most = max_length - len(head) - 1
    cut["answer_cut"] = sum(len(ids) > most for ids in answers)
    answers = [ids[:most] for ids in answers]
    room = max_length - max(map(len, answers), default=0)
    if len(prompt) > room:
        cut["prompt_cut"] = 1
        prompt = np.concatenate([head, prompt[len(prompt) - room + len(head) :]])
    return replace(row, segments=_segments(prompt, answers)), cut
