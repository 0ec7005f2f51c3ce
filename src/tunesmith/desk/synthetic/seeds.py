"""Rows that others are made from, and rows made from them.

A seed is a training row with exactly one text to ask with. What else it has is its answer: a class, one text that is
learned, or something that stays as it is (several labels, numbers, judgements). A synthetic row has the columns that
training reads, in the form of its seed, and a column that says how it was made.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.formats import to_example
from tunesmith.desk.rows import Path, Row, Shape, Values, with_texts
from tunesmith.desk.spans import holds_spans
from tunesmith.desk.synthetic.spool import Spool
from tunesmith.errors import DataError, RowError
from tunesmith.types import RowRef

Answered = Literal["label", "answer", "nothing", "other"]
"""What a seed's prompt is answered with."""
MAKER, SEEDS, MODEL, HOW = "maker", "seeds", "model", "how"
"""Keys of the column of origin."""


@dataclass(frozen=True)
class Seed:
    """prompt, answer: the texts; of a label its name. answer_path: of a text that is learned."""

    row: Row
    prompt: str
    prompt_path: Path
    answer: str | None
    answered: Answered
    answer_path: Path | None = None

    @property
    def place(self) -> str:
        return str(self.row.ref)

    def values(self, prompt: str | None = None, answer: str | None = None) -> Values:
        """The columns that training reads, with other texts in place of these. answer: not of a label."""
        meaning = self.row.shape.meaning
        read = {*meaning.columns.values(), *meaning.json_fields, *meaning.targets}
        kept = {column: value for column, value in self.row.values.items() if column in read}
        changed = {self.prompt_path: prompt} if prompt is not None else {}
        if answer is not None and self.answer_path is not None:
            changed[self.answer_path] = answer
        return with_texts(kept, changed)


@dataclass(frozen=True)
class Candidate:
    """A row that was made, before it is checked. like: the seed whose form it has (and whose label). prompt, answer:
    None: the seed's own. seeds: places of those that it was made from. how: for a person."""

    like: Seed
    prompt: str | None
    answer: str | None
    seeds: tuple[str, ...]
    how: str

    @property
    def text(self) -> str:
        """What is new in it: the prompt, or of a row that only answers anew the answer."""
        return self.prompt if self.prompt is not None else self.answer or ""

    @property
    def label(self) -> str | None:
        return self.like.answer if self.like.answered == "label" else None

    @property
    def said(self) -> tuple[str, str]:
        """Prompt and answer."""
        prompt = self.like.prompt if self.prompt is None else self.prompt
        return prompt, (self.like.answer if self.answer is None else self.answer) or ""

    def values(self, origin: str, maker: str, model: str | None) -> Values:
        made = {MAKER: maker, SEEDS: list(self.seeds), MODEL: model, HOW: self.how}
        return {**self.like.values(self.prompt, self.answer), origin: made}

    def as_seed(self) -> Seed:
        row = self.like.row.but(self.like.values(self.prompt, self.answer))
        prompt, answer = self.said
        return Seed(
            row, prompt, self.like.prompt_path, answer or None, self.like.answered, self.like.answer_path
        )


@dataclass(frozen=True)
class Refused:
    """What a writer said that is no row. reason: a short stable key; raw: what it said."""

    reason: str
    message: str
    raw: str


class SeedRows(Sequence[Seed]):
    """Seeds on disk, or some of them; each is read when it is asked for."""

    def __init__(
        self, spool: Spool, shapes: Sequence[Shape], answered: Answered, places: Sequence[int]
    ) -> None:
        self._spool, self._shapes, self._answered, self._places = spool, shapes, answered, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: int) -> Seed: ...
    @overload
    def __getitem__(self, at: slice) -> SeedRows: ...
    def __getitem__(self, at: int | slice) -> Seed | SeedRows:
        if isinstance(at, slice):
            return self.some(self._places[at])
        number, shape, file, line, values, prompt, path, answer, answer_path = self._spool[self._places[at]]
        row = Row(number, "train", RowRef(file, line), values, self._shapes[shape])
        where = None if answer_path is None else tuple(answer_path)
        return Seed(row, prompt, tuple(path), answer, self._answered, where)

    def some(self, places: Sequence[int]) -> SeedRows:
        return SeedRows(self._spool, self._shapes, self._answered, places)


@dataclass(frozen=True)
class Seeds:
    """rows: the seeds. others: training rows that are none, by reason. synthetic: rows that were made before. real:
    training rows that were not. codes: of each seed the place of its label in `labels`; of other answers nothing."""

    rows: SeedRows
    answered: Answered
    others: Counter[str]
    synthetic: int
    labels: Sequence[str]
    codes: NDArray[np.int32]

    @property
    def real(self) -> int:
        return len(self.rows) + self.others.total()

    def of(self, label: str | None) -> SeedRows:
        """Those with this label; without one, all."""
        if label is None:
            return self.rows
        code = self.labels.index(label) if label in self.labels else -1
        return self.rows.some(np.flatnonzero(self.codes == code).tolist())


def is_synthetic(row: Row, origin: str) -> bool:
    """Raises DataError where the column of origin holds something else."""
    found = row.values.get(origin)
    if found is None:
        return False
    if isinstance(found, dict) and MAKER in found:
        return True
    raise DataError(
        f"{row.ref}: field '{origin}': {found!r}",
        "nothing there, or what data synth and augment write: how a row was made",
        "name another column for it, such as origin=made_by",
    )


def seeds_of(rows: Iterable[Row], origin: str, path: File) -> Seeds:
    """rows: of training. path: of the file that holds seeds meanwhile. Raises DataError where not one is a seed."""
    spool = Spool(path)
    shapes: list[Shape] = []
    others: Counter[str] = Counter()
    kinds: Counter[Answered] = Counter()
    labels: dict[str, int] = {}
    codes = array("i")
    synthetic = 0

    def packed() -> Iterator[Any]:
        nonlocal synthetic
        for row in rows:
            if is_synthetic(row, origin):
                synthetic += 1
                continue
            one = _seed(row)
            if not isinstance(one, Seed):
                others[one] += 1
                continue
            kinds[one.answered] += 1
            if one.answered == "label":
                codes.append(labels.setdefault(one.answer or "", len(labels)))
            ref, where = row.ref, [one.prompt, one.prompt_path, one.answer, one.answer_path]
            yield [row.number, shape_place(row.shape, shapes), ref.file, ref.line, row.values, *where]

    spool.extend(packed())
    if not len(spool):
        reasons = ", ".join(f"{count:,} x {reason}" for reason, count in others.most_common()) or "no rows"
        raise DataError(
            f"not one training row can be a seed: {reasons}",
            "rows with one text to ask with, in which nothing counts characters (spans, tags)",
            "name other files, or the columns that hold text and answer (data.columns.text=...)",
        )
    if len(kinds) > 1:
        raise DataError(
            f"seeds of several kinds: {dict(kinds)}", "rows of one kind", "make rows of one kind at a time"
        )
    (answered,) = kinds
    names = sorted(labels)
    order = np.zeros(len(names), np.int32)
    order[[labels[name] for name in names]] = np.arange(len(names))
    found = SeedRows(spool, shapes, answered, range(len(spool)))
    return Seeds(found, answered, others, synthetic, names, order[np.array(codes, np.int32)])


def shape_place(shape: Shape, shapes: list[Shape]) -> int:
    """Where it is among those that are known; it is put to their end where it is not."""
    at = next((at for at, one in enumerate(shapes) if one is shape), len(shapes))
    if at == len(shapes):
        shapes.append(shape)
    return at


def _seed(row: Row) -> Seed | str:
    """Or why it is none."""
    try:
        to_example(row.shape.meaning, row.values, row.ref)
    except RowError as error:
        return error.reason
    texts = row.texts
    if holds_spans(row) or any(text.part == "fixed" for text in texts):
        return "spans_or_tags"
    prompts = [text for text in texts if text.part == "prompt" and text.text.strip()]
    if len(prompts) != 1:
        return "no_text" if not prompts else "several_texts"
    prompt = prompts[0]
    answered, answer, path = _answer(row.shape, row, [text for text in texts if text.part == "answer"])
    return Seed(row, prompt.text, prompt.path, answer, answered, path)


def _answer(shape: Shape, row: Row, answers: Sequence[Any]) -> tuple[Answered, str | None, Path | None]:
    if shape.meaning.kind == "label":
        return "label", str(row.values[shape.meaning.columns["label"]]), None
    if shape.meaning.kind in ("prompt", "messages", "asked") and len(answers) == 1:
        return "answer", answers[0].text, answers[0].path
    return ("nothing" if shape.meaning.kind == "text" else "other"), None, None
