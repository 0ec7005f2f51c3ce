"""Judged examples -> token rows for bidirectional reward models: prompt and completion as a pair of texts.

Each completion is a root by itself; of a stepwise row the answer up to the end of each step. All of a row's have the
same tokens of the prompt, also where it is cut, so that its second text begins at one place in all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.backend import Asking, encode_all, in_lockstep
from tunesmith.data.encode import HeadEncoder
from tunesmith.data.sources import located
from tunesmith.data.trees import Given, given_of, no_step_fits, without_last
from tunesmith.errors import ConfigError, RowError
from tunesmith.types import Example, Message, Segment, TokenRow

NAMES = {"user": "User", "assistant": "Assistant", "system": "System"}


class CompletionsEncoder(HeadEncoder):
    """`given` is that of `trees`."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer, "reward", ())

    def describe(self) -> str:
        ids = self.tokenizer("a", "b")["input_ids"]
        return f"prompt and answer go to the model as a pair, such as {self.tokenizer.decode(ids)!r}"

    def rows_of(
        self, examples: Sequence[Example], max_length: int | None = None
    ) -> list[TokenRow | RowError]:
        """Roots of at most `max_length` tokens: the prompt loses its start, down to one token, then completions their
        end; steps that do not fit are left out. RowError: not_only_text, too_long. Raises ConfigError where there is
        no room for a token of each."""
        return in_lockstep(
            [self._pairs(example, max_length) for example in examples],
            lambda texts: encode_all(self.tokenizer, texts, around=True, typed=True),
        )

    def _pairs(self, example: Example, max_length: int | None) -> Asking[TokenRow]:
        try:
            prompt = prompt_text(example)
            texts = [_text(completion.message) for completion in example.completions]
            texts = [text.rstrip() for text in accumulate(texts)] if example.stepwise else texts
        except RowError as error:
            raise located(error, example.ref) from None
        encoded = []
        for text in texts:
            encoded.append((yield prompt, text))
        longest = max_length or max(len(one.ids) for one in encoded)
        prompts = encoded[0].sequence_ids.count(0)
        around = encoded[0].sequence_ids.count(None)
        if longest < around + 2:
            raise ConfigError(
                f"data.max_length = {longest}", f"at least {around + 2} tokens for a pair of texts"
            )
        most = longest - around - 1  # tokens of a completion
        given: Given = given_of(example)
        if example.stepwise and (left_out := sum(one.sequence_ids.count(1) > most for one in encoded)):
            encoded, given = encoded[: len(encoded) - left_out], without_last(given, left_out)
            if not encoded:
                raise no_step_fits(example.ref, longest)
        answers = [min(one.sequence_ids.count(1), most) for one in encoded]
        room = min(prompts, longest - around - max(answers))  # tokens of the prompt
        roots = [_kept(one, prompts - room, count) for one, count in zip(encoded, answers, strict=True)]
        segments = tuple(Segment(ids, np.zeros(len(ids), np.float32)) for ids in roots)
        second = None
        if self._has_types and 1 in encoded[0].type_ids:
            second = encoded[0].type_ids.index(1) - (prompts - room)
        return TokenRow(example.ref, segments, second=second, alone=True, given=given)

    def size(self, row: TokenRow) -> int:
        return max(len(segment.ids) for segment in row.segments)


def _kept(encoded: Any, skip: int, count: int) -> NDArray[np.int64]:
    """Ids without the first `skip` of the prompt and all after the first `count` of the completion."""
    sequence = np.array([-1 if one is None else one for one in encoded.sequence_ids])
    first, second = sequence == 0, sequence == 1
    gone = (first & (np.cumsum(first) <= skip)) | (second & (np.cumsum(second) > count))
    ids: NDArray[np.int64] = np.array(encoded.ids, np.int64)[~gone]
    return ids


def prompt_text(example: Example) -> str:
    """The only turn's text; of several turns a line for each, with who speaks before it."""
    if example.tools:
        raise RowError("not_only_text", "tools", fix="an encoder reads the texts of a prompt and an answer")
    texts = [_text(turn) for turn in example.prompt]
    if len(texts) == 1:
        return texts[0]
    return "\n".join(f"{NAMES[turn.role]}: {text}" for turn, text in zip(example.prompt, texts, strict=True))


def _text(turn: Message) -> str:
    if turn.role not in NAMES or "tool_calls" in turn.extra:
        fix = "an encoder reads the texts of a prompt and an answer"
        raise RowError("not_only_text", "a tool's turn, or a call of one", fix=fix)
    return turn.content
