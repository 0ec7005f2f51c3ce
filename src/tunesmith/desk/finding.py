"""Personal data in a text: the pre-filter says which kinds may be there, and only their recognisers run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from tunesmith.config.desk import Scrub
from tunesmith.desk.automaton import kinds_possible
from tunesmith.desk.kinds import KINDS, PERSON
from tunesmith.errors import ConfigError, near_miss

if TYPE_CHECKING:
    from presidio_analyzer import RecognizerResult

Names = Callable[[str], Sequence[tuple[int, int]]]
"""(start, end) of every name of a person in a text."""

REMEMBERED, REMEMBERED_LENGTH = 64, 20_000
"""Texts whose findings are kept, the last ones; and characters of such a text at most."""


@dataclass(frozen=True, slots=True)
class Found:
    start: int
    end: int
    kind: str
    score: float


@dataclass(frozen=True)
class Finder:
    """kinds: that are looked for. names: finds those of people, where PERSON is among the kinds."""

    kinds: frozenset[str]
    min_score: float
    names: Names | None = None

    @classmethod
    def of(cls, config: Scrub, names: Names | None) -> Finder:
        """Raises ConfigError for kinds that there are not, and for what is not installed."""
        for kind in config.kinds:
            if kind not in KINDS:
                raise ConfigError(
                    f"scrub.kinds names '{kind}'", near_miss(kind, KINDS), "see tunesmith data kinds"
                )
        wanted = frozenset(config.kinds or KINDS)
        if PERSON in config.kinds and names is None:
            raise ConfigError(
                f"scrub.kinds names {PERSON}, and no model finds names",
                "a run of method.type=tag that learned them",
                "name its folder in scrub.names_model, or leave PERSON out",
            )
        if names is not None and PERSON not in wanted:
            raise ConfigError(
                f"scrub.names_model is named, and scrub.kinds leaves {PERSON} out",
                fix="name both, or neither",
            )
        finder = cls(wanted if names is not None else wanted - {PERSON}, config.min_score, names)
        assert finder._findings is not None  # here, so that processes that are forked have it
        return finder

    def __getstate__(self) -> dict[str, Any]:
        """To another machine goes what is looked for; what has been loaded and remembered stays."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @cached_property
    def _findings(self) -> Callable[[str, Sequence[str], float], list[RecognizerResult]]:
        try:
            import detect_secrets  # noqa: F401
            import re2  # noqa: F401

            from tunesmith.desk.recognisers import engine, findings
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"scrub needs {error.name}, which is not installed",
                "Presidio, detect-secrets and RE2",
                "pip install tunesmith[privacy]",
            ) from None
        engine()
        return findings

    def found(self, text: str) -> list[Found]:
        """In order, none over another: of those that overlap the longest stays, then the surest."""
        return self._remembered(text) if len(text) <= REMEMBERED_LENGTH else self._found(text)

    @cached_property
    def _remembered(self) -> Callable[[str], list[Found]]:
        """A text that is scrubbed is asked for again by the ledger, and by what is shown of it."""
        return lru_cache(REMEMBERED)(self._found)

    def _found(self, text: str) -> list[Found]:
        kinds = [kind for kind in kinds_possible(text) if kind in self.kinds]
        if not kinds and self.names is None:
            return []
        out = [Found(r.start, r.end, r.entity_type, r.score) for r in self._results(text, kinds)]
        if self.names is not None:
            out += [Found(start, end, PERSON, 1.0) for start, end in self.names(text)]
        return _apart(out) if len(out) > 1 else out

    def _results(self, text: str, kinds: list[str]) -> list[RecognizerResult]:
        return self._findings(text, kinds, self.min_score) if kinds else []


_RANK = {kind: place for place, kind in enumerate(KINDS)}


def _apart(found: list[Found]) -> list[Found]:
    kept: list[Found] = []
    for one in sorted(found, key=lambda f: (f.start - f.end, -f.score, f.start, _RANK[f.kind])):
        if all(one.end <= other.start or one.start >= other.end for other in kept):
            kept.append(one)
    return sorted(kept, key=lambda f: f.start)
