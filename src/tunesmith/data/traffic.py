"""Our own log of traffic: what a model was asked and what it answered, a line of JSON each, to be read again as rows.

| the model | a line, beside `id`, `created` (seconds since 1970), `source` (file and line), `model` and `weights` |
|---|---|
| writes | `request` and `response`, as OpenAI's interface has them: a log of chats (`chat_logs`) |
| has a head | `text` (and `pair`), what the head says under the name of its part, `confidence` |

Lines are only ever added, whole and synced, by any number of processes at once. A line that a dying process left
unfinished is ended by the next that opens the file, and reading names it as one that cannot be read. Logs hold what
people wrote: a new one may be read by its owner alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tunesmith.errors import ConfigError
from tunesmith.types import Example


class TrafficLog:
    """A file of JSON Lines that is added to. Raises ConfigError for a name that would not be read as such."""

    def __init__(self, path: Path) -> None:
        if path.suffix != ".jsonl":
            got = f"a log of traffic called {path.name}"
            raise ConfigError(got, "a name that ends in .jsonl, so that its rows are read as such")
        try:
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}", "a file that can be added to") from error

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """All of them, or, where the process dies meanwhile, the first of them."""
        data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            size = os.fstat(self._file).st_size
            if size and os.pread(self._file, 1, size - 1) != b"\n":
                data = b"\n" + data
            while data:
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def __enter__(self) -> TrafficLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        os.close(self._file)


@dataclass(frozen=True)
class Answering:
    """Who answers. name: as the model was called. weights: a hash of them, which tells versions of it apart."""

    name: str
    weights: str

    def written(self, example: Example, answer: str, *, whole: bool, limit: int) -> dict[str, Any]:
        """A chat completion with its request. whole: it ended by itself; else at `limit` tokens, or the context's."""
        row = self._row(example)
        request: dict[str, Any] = {
            "model": self.name,
            "messages": [message.for_template() for message in example.prompt],
            "max_completion_tokens": limit,
        }
        if example.tools:
            request["tools"] = list(example.tools)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": answer},
            "finish_reason": "stop" if whole else "length",
        }
        response = {
            "id": row["id"],
            "object": "chat.completion",
            "created": row["created"],
            "model": self.name,
            "choices": [choice],
        }
        return {**row, "request": request, "response": response}

    def judged(
        self, example: Example, said: Mapping[str, Any], confidence: float | None = None
    ) -> dict[str, Any]:
        """What a head says of a text, or of a pair. said: by part, as training rows have it (`columns`)."""
        texts = dict(zip(("text", "pair"), example.texts, strict=False))
        sure = {} if confidence is None else {"confidence": confidence}
        return {**self._row(example), **texts, **said, **sure}

    def _row(self, example: Example) -> dict[str, Any]:
        return {
            "id": uuid.uuid4().hex,
            "created": int(time.time()),
            "source": str(example.ref),
            "model": self.name,
            "weights": self.weights,
        }
