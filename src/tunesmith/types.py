"""The words every layer shares. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform

    T = TypeVar("T")

    @dataclass_transform(frozen_default=True, field_specifiers=(field,))
    def record(cls: type[T]) -> type[T]:
        """A frozen data class, for the type checker. At run time nothing keeps its fields from being set: a frozen one
        takes three times as long to make, and of rows there are millions."""
        return cls

else:
    record = dataclass(slots=True, unsafe_hash=True)


@record
class RowRef:
    """Where a row came from: the file as the user named it, and its 1-based line (JSONL, CSV) or row (Parquet)."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@record
class Message:
    """One turn of a conversation.

    weight: how much the turn's tokens count in the loss when the turn is the assistant's; None means 1.
    extra: what else the chat template may read (tool_calls, tool_call_id, name, reasoning_content ...).
    """

    role: str
    content: str
    weight: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def for_template(self) -> dict[str, Any]:
        return {"role": self.role, "content": self.content, **self.extra}


@record
class Completion:
    """One answer to a row's prompt, and what people said of it. message: an assistant's turn. score: higher is better,
    equal scores are ties; its unit is the rows' own (1 and 0 for chosen and rejected, good and bad).

    Or one step of a stepwise row's only answer, with what stands between it and the next; score is then how right it
    is, from 0 to 1, NaN where nobody said."""

    message: Message
    score: float


@record
class Example:
    """One usable row: a conversation, or plain text for continued pre-training (then `messages` is empty).

    label: the class name, when the row is a classification into one class. pair: the second text of a pair, which
    the user's turn holds too, after the first (see `texts`). negatives: texts that the answer is to be nearer than,
    where texts are embedded. completions: every answer to the prompt of a row that people judged, in the order of the
    file; `messages` is then the prompt and the best of them (the first of the highest score). margin: by how much the
    chosen one of a pair is better, where the row says so. stepwise: the completions are the steps of one answer, each
    of which continues the one before; `messages` is then the prompt and that answer.
    """

    ref: RowRef
    messages: tuple[Message, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    label: str | None = None
    text: str | None = None
    pair: str | None = None
    negatives: tuple[str, ...] = ()
    completions: tuple[Completion, ...] = ()
    margin: float | None = None
    stepwise: bool = False

    @property
    def texts(self) -> tuple[str, ...]:
        """What a head reads: the last user turn's text (or the plain text), and the second of a pair by itself."""
        content = next((m.content for m in reversed(self.prompt) if m.role == "user"), self.text or "")
        return (content,) if self.pair is None else (content.removesuffix(f"\n\n{self.pair}"), self.pair)

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The messages before the last assistant turn: what prediction is given."""
        return self.messages[: self._answer_index()]

    @property
    def answer(self) -> str:
        """The last assistant turn's content: what prediction is compared with."""
        index = self._answer_index()
        return self.messages[index].content if index < len(self.messages) else ""

    def _answer_index(self) -> int:
        for index in range(len(self.messages) - 1, -1, -1):
            if self.messages[index].role == "assistant":
                return index
        return len(self.messages)


IGNORED = -100
"""The class of a row, or the tag of a token, of which a head's loss knows nothing; such a token has no output."""
SAMPLE_WEIGHT = "sample_weight"
"""Of `TokenRow.given`: (1,) how much a row of a class counts in the loss; 1 where it is not there."""
UNSEEN = -101
"""The tag of a token of a span whose label no training row has: the head says a tag, its loss passes over it."""


@record
class Segment:
    """A run of tokens in a tree of segments.

    ids: (n,) int64 token ids. weights: (n,) float32, the loss weight of predicting each token from
    what precedes it (0 = not supervised). parent: index of the segment it continues, -1 for a root.
    """

    ids: NDArray[np.int64]
    weights: NDArray[np.float32]
    parent: int = -1


@record
class TokenRow:
    """One training example as a tree of segments: a prompt (root) and its completions, a prompt and the steps of an
    answer, each the child of the one before, one segment, or for embeddings a root for each text (anchor, positive,
    negatives).

    It is the packing unit and is never split. The first token of a root has no predecessor, so its
    weight is 0. `parent` of each segment is smaller than its own index.

    target: for a head, in place of weights, on a row of one segment: (1,) int64 class, (C,) float32 share of each
    class, (D,) float32 numbers, or (n,) int64 tag of each token, -100 where there is none. second: where in each
    segment the second text of a pair begins, for models that tell the two apart by token types. alone: its beginning
    is not shared with other rows' (a bidirectional model sees the rest of the row from there). given: numbers by name
    that come with the row for its objective, such as the `scores` (K,) of its `completions`.
    """

    ref: RowRef
    segments: tuple[Segment, ...]
    target: NDArray[np.int64] | NDArray[np.float32] | None = None
    second: int | None = None
    alone: bool = False
    given: Mapping[str, NDArray[np.floating[Any]]] = field(default_factory=dict)

    @property
    def completions(self) -> list[int]:
        """(K,) the segments that are answers, or steps: all but roots that others continue."""
        above = {segment.parent for segment in self.segments}
        return [i for i, segment in enumerate(self.segments) if segment.parent >= 0 or i not in above]

    @property
    def num_tokens(self) -> int:
        return sum(len(s.ids) for s in self.segments)

    @property
    def num_supervised(self) -> int:
        return sum(int(np.count_nonzero(s.weights > 0)) for s in self.segments)


class EventSink(Protocol):
    """Takes every metric and message of a run; the run folder's events.jsonl, a progress bar, a database."""

    def __call__(self, kind: str, /, **fields: Any) -> None: ...


def silent(kind: str, /, **fields: Any) -> None:
    """An EventSink for when no one watches."""
