"""Names of people by a run of our own: found in texts of any length, by no model that learned something else."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from tunesmith.config.desk import Scrub
from tunesmith.desk.scrub import Scrubbing
from tunesmith.errors import ConfigError
from tunesmith.types import Example
from tunesmith.workflow.names import names_of

CONTEXT = 100
"""Characters that the tagger below reads of a text; a token is a word."""


@dataclass
class Tagger:
    """A model that knows two names and a town, and nothing beyond its context."""

    labels: tuple[str, ...] = ("O", "B-person", "I-person", "B-town", "I-town")
    method: str = "tag"
    context: int = CONTEXT
    asked: list[str] = field(default_factory=list)

    @property
    def loaded(self) -> Any:
        return SimpleNamespace(head=self if self.method else None)

    @property
    def renderer(self) -> Any:
        return self

    def answerer(self, max_new_tokens: int, batch_size: int) -> Any:
        return self

    def offsets(self, example: Example, max_length: int) -> list[tuple[int, int]]:
        words = [match.span() for match in re.finditer(r"\S+", example.texts[0])]
        return [(0, 0), *(span for span in words if span[1] <= max_length)]

    def answer(self, examples: Sequence[Example]) -> Any:
        text = examples[0].texts[0][: self.context]
        self.asked.append(text)
        spans = [
            (*match.span(), "town" if match[0] == "Oslo" else "person")
            for match in re.finditer(r"\b(?:Nora Lind|Anton|Oslo)\b", text)
        ]
        return SimpleNamespace(texts=[json.dumps(spans)])


@pytest.fixture
def tagger(monkeypatch: pytest.MonkeyPatch) -> Tagger:
    made = Tagger()
    monkeypatch.setattr("tunesmith.workflow.names.load", lambda model: made)
    return made


def test_names_give_way_wherever_they_stand(tagger: Tagger) -> None:
    step = Scrubbing.of(Scrub(names_model="run"), names_of("run"))
    for blanks in range(0, 130, 7):
        text = f"note {'x ' * blanks}of Nora Lind in Oslo, {'y ' * 90}for Anton and nora.lind@example.com "
        out = step.replaced(text, step.finder.found(text))
        assert "Nora" not in out
        assert "Anton" not in out
        assert out.count("<PERSON>") == 2
        assert "in Oslo" in out
        assert "<EMAIL>" in out
    assert max(map(len, tagger.asked)) <= CONTEXT


@pytest.mark.parametrize(
    ("method", "labels", "words"),
    [
        ("", (), "writes text"),
        ("classify", ("a", "b"), r"trained with method\.type=classify"),
        ("tag", ("O", "B-town", "I-town"), "finds town"),
    ],
)
def test_a_model_that_finds_no_names_is_refused(
    method: str, labels: tuple[str, ...], words: str, tagger: Tagger
) -> None:
    tagger.method, tagger.labels = method, labels
    with pytest.raises(ConfigError, match=words):
        names_of("run")
