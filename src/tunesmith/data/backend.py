"""Many texts through a fast tokenizer at once: its own threads share them out, and nothing waits for Python."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

from tunesmith.errors import RowError

BATCH = 1000
"""Rows that are tokenised together."""

T = TypeVar("T")
Text = str | tuple[str, str]
Asking = Generator[Text, Any, T]
"""Work that yields a text (or a pair) where it needs its encoding, is sent that, and returns its result."""


def encode_all(
    tokenizer: Any,
    texts: Sequence[Text],
    *,
    around: bool,
    typed: bool,
    max_length: int | None = None,
    places: bool = True,
) -> list[Any]:
    """The encodings (`tokenizers.Encoding`) that `tokenizer(text)` would give one by one; a tuple is a pair.

    Of equal texts (the end of a prompt, often) one is encoded, and they share its encoding.
    around: with the special tokens that the tokenizer puts around a text. typed: a special token in a text is what
    was typed, not the token. max_length: tokens; the longer text of a pair is cut first.
    places: with each token's characters (`offsets`), which takes a fifth of the time.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    if max_length is not None:
        side = tokenizer.truncation_side
        backend.enable_truncation(max_length, strategy="longest_first", direction=side)
    backend.encode_special_tokens = typed
    encode = backend.encode_batch if places else backend.encode_batch_fast
    unlike = list(dict.fromkeys(texts))
    made = dict(zip(unlike, encode(unlike, add_special_tokens=around), strict=True))
    return [made[text] for text in texts]


def in_lockstep(
    tasks: Sequence[Asking[T]], encode: Callable[[list[Any]], Sequence[Any]]
) -> list[T | RowError]:
    """Every task's result, or the RowError it ended with; what all of them ask at a time is encoded in one call."""
    results: dict[int, T | RowError] = {}
    answers: dict[int, Any] = dict.fromkeys(range(len(tasks)))
    while answers:
        asked: dict[int, Text] = {}
        for index, answer in answers.items():
            try:
                asked[index] = tasks[index].send(answer)
            except StopIteration as done:
                results[index] = done.value
            except RowError as error:
                results[index] = error
        answers = dict(zip(asked, encode(list(asked.values())) if asked else (), strict=True))
    return [results[index] for index in range(len(tasks))]


def one(results: Sequence[T | RowError]) -> T:
    """The only result; raises it where it is a RowError."""
    (result,) = results
    if isinstance(result, RowError):
        raise result
    return result
