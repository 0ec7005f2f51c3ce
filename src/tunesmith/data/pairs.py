"""Examples -> token rows for encoder-decoder models: the question is the source, the answer the target.

There is no chat template: both sides are encoded as the tokenizer does it, and `data.instruction` (such as T5's
"summarize: ") stands before the source. Text never becomes a control token.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunesmith.data.account import Account
from tunesmith.data.ahead import accounted
from tunesmith.data.backend import Asking, in_lockstep, one
from tunesmith.data.making import Making, OnLongRow, alone
from tunesmith.errors import ModelError, RowError
from tunesmith.types import Example, Message, Segment, TokenRow


@dataclass
class PairEncoder:
    """tokenizer: with an end token, which ends every target. context: most tokens of either side."""

    tokenizer: Any
    context: int

    def __post_init__(self) -> None:
        if self.tokenizer.eos_token_id is None:
            raise ModelError(
                "the tokenizer has no end token", "one: targets end with it", "choose another model"
            )

    @property
    def end_ids(self) -> list[int]:
        return [int(self.tokenizer.eos_token_id)]

    @property
    def template_hash(self) -> str:
        probe = [self.tokenizer("a")["input_ids"], self.tokenizer(text_target="a")["input_ids"]]
        return hashlib.sha256(json.dumps(probe).encode()).hexdigest()

    def describe(self) -> str:
        return "the question goes to the encoder as it is, the answer to the decoder"

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> list[int]:
        """The source. Raises RowError for what is no single question."""
        return one(in_lockstep([self._source(messages, tools)], self._sources))

    def _source(self, messages: Sequence[Message], tools: Sequence[Any]) -> Asking[list[int]]:
        turns = [m for m in messages if m.role != "system"]
        if len(turns) != 1 or turns[0].role != "user" or tools:
            raise RowError(
                "not_one_question",
                f"{len(turns)} turns",
                fix="an encoder-decoder model takes one question a row",
            )
        text = "\n\n".join(m.content for m in messages)
        ids: list[int] = yield text
        return ids

    def rows_of(self, examples: Sequence[Example]) -> list[TokenRow | RowError]:
        """A row for each, or the RowError of what is no single question."""
        sources = in_lockstep([self._source(e.prompt, e.tools) for e in examples], self._sources)
        targets = self.tokenizer(
            text_target=[e.answer for e in examples], split_special_tokens=True, verbose=False
        )["input_ids"]
        return [
            source if isinstance(source, RowError) else self._row(example, source, target)
            for example, source, target in zip(examples, sources, targets, strict=True)
        ]

    def _row(self, example: Example, source: list[int], target: list[int]) -> TokenRow:
        if target[-1] != self.end_ids[0]:
            target.append(self.end_ids[0])
        return _row(example, source, target)

    def _sources(self, texts: list[str]) -> list[list[int]]:
        found: list[list[int]] = self.tokenizer(texts, split_special_tokens=True, verbose=False)["input_ids"]
        return found


def encode_pairs(
    examples: Sequence[Example],
    encoder: PairEncoder,
    max_length: int,
    on_long_row: OnLongRow,
    account: Account,
) -> Sequence[TokenRow]:
    """Rows whose sides have at most `max_length` tokens each; `cut` shortens sources and targets at their end, before
    the end token (of a target it is then missing). The account's notes count prompt_cut and answer_cut."""

    def fit(example: Example, made: list[TokenRow], notes: Counter[str]) -> list[TokenRow]:
        if _longest_side(made[0]) <= max_length:
            return made
        if on_long_row == "drop":
            return []
        source, target = (s.ids.tolist() for s in made[0].segments)
        if len(source) > max_length:
            notes["prompt_cut"] += 1
            source = [*source[: max_length - 1], source[-1]]
        if len(target) > max_length:
            notes["answer_cut"] += 1
            target = target[:max_length]
        return [_row(example, source, target)]

    making = Making(lambda some: alone(encoder.rows_of(some)), fit, _longest_side, max_length)
    return accounted(examples, making, account)


def _longest_side(row: TokenRow) -> int:
    return max(len(segment.ids) for segment in row.segments)


def _row(example: Example, source: list[int], target: list[int]) -> TokenRow:
    root = Segment(np.array(source, np.int64), np.zeros(len(source), np.float32))
    leaf = Segment(np.array(target, np.int64), np.ones(len(target), np.float32), 0)
    return TokenRow(example.ref, (root, leaf), alone=True)
