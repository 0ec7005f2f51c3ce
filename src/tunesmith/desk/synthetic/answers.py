"""What models were asked and what they replied, kept on disk: a question is asked once.

A reply is known by the writer, the question, and the how-manieth time that it is asked in one run. Each is one line of
a file that is only added to; a line that a crash left unfinished is taken off before the next is written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tunesmith.errors import DataError, ModelError
from tunesmith.types import EventSink

ANSWERS = "answers.jsonl"
"""In the folder of a data set."""


class Writer(Protocol):
    @property
    def name(self) -> str:
        """The model, as rows are marked with it."""
        ...

    @property
    def settings(self) -> str:
        """All that decides what is replied, besides the question."""
        ...

    def write(self, questions: Sequence[str], keys: Sequence[str]) -> Iterator[tuple[int, str | Unanswered]]:
        """(place, reply) as they come, of every question. keys: of each, which tell equal questions apart."""
        ...


@dataclass(frozen=True)
class Unanswered:
    """why: for a person."""

    why: str


@dataclass
class Asked:
    """path: of the answers. trial: nothing is asked or written, only what is known already is used. asked, known:
    questions put to the model, and those that had a reply; waiting: that a trial leaves open."""

    writer: Writer
    path: Path
    sink: EventSink
    trial: bool = False
    asked: int = 0
    known: int = 0
    waiting: int = 0
    _replies: dict[str, str] | None = None
    _times: Counter[str] = field(default_factory=Counter)

    def ask(self, what: str, questions: Sequence[str]) -> list[str | None]:
        """A reply to each; of a trial None where there is none yet. what: for the progress. Raises ModelError where
        the model leaves questions open; what it answered is kept."""
        replies = self._known()
        keys = [self._key(question) for question in questions]
        open_ones = [place for place, key in enumerate(keys) if key not in replies]
        self.known += len(keys) - len(open_ones)
        if self.trial:
            self.waiting += len(open_ones)
        elif open_ones:
            self._write(what, questions, keys, open_ones)
        return [replies.get(key) for key in keys]

    def _key(self, question: str) -> str:
        self._times[question] += 1
        text = json.dumps([self.writer.settings, question, self._times[question]], ensure_ascii=False)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def _known(self) -> dict[str, str]:
        if self._replies is None:
            self._replies = _read(self.path, mend=not self.trial)
        return self._replies

    def _write(
        self, what: str, questions: Sequence[str], keys: Sequence[str], open_ones: Sequence[int]
    ) -> None:
        replies = self._known()
        failed: list[str] = []
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            texts, of = [questions[place] for place in open_ones], [keys[place] for place in open_ones]
            self.sink("progress", name=f"{what}: asked", done=0, total=len(texts))
            for done, (place, reply) in enumerate(self.writer.write(texts, of), 1):
                if isinstance(reply, Unanswered):
                    failed.append(reply.why)
                else:
                    self.asked += 1
                    replies[of[place]] = reply
                    file.write(json.dumps({"key": of[place], "reply": reply}) + "\n")
                    file.flush()
                self.sink("progress", name=f"{what}: asked", done=done, total=len(texts))
            os.fsync(file.fileno())
        if failed:
            raise ModelError(
                f"{self.writer.name} left {len(failed):,} of {len(open_ones):,} questions without a reply; "
                f"the first: {failed[0]}",
                "a reply to each",
                f"see to the model and start the command again: replies are kept in {self.path}, and only those that "
                "are not there are asked for",
            )


def _read(path: Path, mend: bool) -> dict[str, str]:
    """key -> reply. mend: take an unfinished last line off the file. Raises DataError for a line that is none."""
    if not path.is_file():
        return {}
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if mend and len(whole) < len(content):
        os.truncate(path, len(whole))
    found: dict[str, str] = {}
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            entry = json.loads(line)
            found[str(entry["key"])] = str(entry["reply"])
        except (ValueError, LookupError, TypeError):
            raise DataError(
                f"{path}:{number}: not a reply that was kept",
                '{"key": ..., "reply": ...}',
                f"take the line out; or delete {path.name}, and everything is asked for again",
            ) from None
    return found
