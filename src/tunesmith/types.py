"""The words every layer shares. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class RowRef:
    """Where a row came from: the file as the user named it, and its 1-based line (JSONL, CSV) or row (Parquet)."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Example:
    """One usable row: a conversation, or plain text for continued pre-training (then `messages` is empty).

    label: the class name, when the row is a classification by generation.
    """

    ref: RowRef
    messages: tuple[Message, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    label: str | None = None
    text: str | None = None

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


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of tokens in a tree of segments.

    ids: (n,) int64 token ids. weights: (n,) float32, the loss weight of predicting each token from
    what precedes it (0 = not supervised). parent: index of the segment it continues, -1 for a root.
    """

    ids: NDArray[np.int64]
    weights: NDArray[np.float32]
    parent: int = -1


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One training example as a tree of segments: a prompt (root) and its completions, or one segment.

    It is the packing unit and is never split. The first token of a root has no predecessor, so its
    weight is 0. `parent` of each segment is smaller than its own index.
    """

    ref: RowRef
    segments: tuple[Segment, ...]

    @property
    def num_tokens(self) -> int:
        return sum(len(s.ids) for s in self.segments)

    @property
    def num_supervised(self) -> int:
        return sum(int((s.weights > 0).sum()) for s in self.segments)


class EventSink(Protocol):
    """Takes every metric and message of a run; the run folder's events.jsonl, a progress bar, a database."""

    def __call__(self, kind: str, /, **fields: Any) -> None: ...


def silent(kind: str, /, **fields: Any) -> None:
    """An EventSink for when no one watches."""
