"""What a synthetic row must pass, each check on those that the ones before let through."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from tunesmith.config.synth import Checks, Critique
from tunesmith.data.formats import to_example
from tunesmith.desk.alike import Sketches
from tunesmith.desk.conflicts import PERMUTATIONS
from tunesmith.desk.dedup import contamination, said
from tunesmith.desk.probe import MOST_FITTED, folds_of, out_of_fold
from tunesmith.desk.rows import Row
from tunesmith.desk.steps import Dropping, excerpt
from tunesmith.desk.synthetic.made import MadeRow, MadeRows, keys_of, known, nearest, sketched
from tunesmith.desk.synthetic.questions import Ask, Told, put_in
from tunesmith.desk.synthetic.seeds import SeedRows, Seeds
from tunesmith.desk.synthetic.spool import blocks
from tunesmith.errors import DataError, RowError
from tunesmith.evaluate.linear import softmax_of, standards
from tunesmith.scoring.rewards.judge import read_mark

Floats = NDArray[np.float64]
Vectors = Callable[[Sequence[str]], Floats]
Features = Callable[[Sequence[str]], tuple[Floats, Vectors]]
"""(N,) texts -> (N, D) vectors that stand beside one another, and what makes vectors of further texts beside them."""
Gone = dict[int, tuple[str, str]]
"""Place of a row -> (rule, message)."""
STRENGTH = 0.03
"""Of the probe: scikit-learn's C, as of `data quality`."""
COSINES = 1_000
"""Rows that are held against all seeds at a time."""


@dataclass
class Checking:
    """rows: all that were made. real: training rows that nobody made up, held: evaluation rows, both as often as they
    are asked for. room: synthetic rows that there may be, beside those of before; None: as many as come. ask: of the
    model that marks rows."""

    config: Checks
    rows: MadeRows
    seeds: Seeds
    real: Callable[[], Iterable[Row]]
    held: Callable[[], Iterable[Row]]
    any_held: bool
    room: int | None
    features: Features
    told: Told
    ask: Ask | None
    seed: int
    notes: dict[str, float] = field(default_factory=dict)
    """What is to be known of the checks themselves."""

    def steps(self) -> list[Dropping]:
        """Each with the rows that it drops, by their numbers."""
        checks: list[tuple[str, bool, Callable[[list[int]], Gone]]] = [
            ("usable", self.config.usable, self.usable),
            ("leakage", self.any_held, self.leakage),
            ("novelty", True, self.novelty),
            ("relevance", self.config.relevance is not None, self.relevance),
            ("label", self._has_probe, self.label),
            ("critique", self.config.critique is not None, self.critique),
            ("share", True, self.share),
        ]
        left = list(range(len(self.rows)))
        steps = []
        for name, wanted, check in checks:
            if wanted:
                gone = check(left) if left else {}
                steps.append(
                    Dropping(f"check: {name}", {self.rows.number(at): why for at, why in gone.items()})
                )
                left = [at for at in left if at not in gone]
        return steps

    @property
    def _has_probe(self) -> bool:
        return self.config.label is not None and len(self.seeds.labels) > 1

    def usable(self, left: list[int]) -> Gone:
        gone: Gone = {}
        for at in left:
            row = self.rows[at].row
            try:
                to_example(row.shape.meaning, row.values, row.ref)
            except RowError as error:
                gone[at] = error.reason, error.got
        return gone

    def leakage(self, left: list[int]) -> Gone:
        """Raises DataError where `leaks` says so."""
        gone: Gone = {}
        if self.config.leak_near is not None:
            sketches = Sketches(self.config.leak_near, PERMUTATIONS)
            held = known(self.held(), _whole, sketches)
            own = sketched(sketches, (_whole(self.rows[at].row) for at in left))
            for at, (other, share) in nearest(sketches, own, held.sketches).items():
                gone[left[at]] = "leak_near", f"is {share:.0%} like {held.places[other]}"
        if self.config.leak_ngram is not None:
            texts = ((str(row.ref), [said(row, "row")]) for row in self.held())
            contaminated = contamination(texts, self.config.leak_ngram)
            for at in left:
                found = contaminated.apply(self.rows[at].row) if at not in gone else None
                if found is not None:
                    gone[at] = "leak_ngram", found.message
        if gone and self.config.leaks == "refuse":
            at, (_, message) = min(gone.items())
            raise DataError(
                f"{len(gone):,} synthetic rows leak from evaluation rows; the first, "
                f"'{excerpt([self.rows[at].text])}', {message}",
                "rows that evaluation does not ask for (checks.leaks: refuse)",
                "change what makes them, or write checks.leaks=drop to count them and leave them out",
            )
        return gone

    def novelty(self, left: list[int]) -> Gone:
        """A prompt is held against prompts, a row that only answers anew against answers."""
        gone: Gone = {}
        for part in (0, 1):
            own = [at for at in left if self.rows.anew[at] == part]
            if own:
                gone |= self._repeats(own, part)
        return gone

    def _repeats(self, own: list[int], part: int) -> Gone:
        near = self.config.novelty
        sketches = None if near is None else Sketches(near, PERMUTATIONS)
        real = known(self.real(), lambda row: _parts(row)[part], sketches)
        gone: Gone = {}
        keys = np.concatenate([real.keys, keys_of(self.rows.texts(own))])
        _, first, group = np.unique(keys, return_index=True, return_inverse=True)
        for place, before in enumerate(first[group[len(real.keys) :]].tolist(), len(real.keys)):
            if before != place:
                where = (
                    real.places[before]
                    if before < len(real.keys)
                    else self._place(own[before - len(real.keys)])
                )
                gone[own[place - len(real.keys)]] = "same", f"is {where}"
        if sketches is None:
            return gone
        rest = [at for at in own if at not in gone]
        looks = sketched(sketches, self.rows.texts(rest))
        for place, (other, share) in nearest(sketches, looks, real.sketches).items():
            gone[rest[place]] = "near_seed", f"is {share:.0%} like {real.places[other]}"
        new = [place for place, at in enumerate(rest) if at not in gone]
        rest = [rest[place] for place in new]
        earlier: dict[int, dict[int, float]] = defaultdict(dict)
        for pairs, shares in sketches.pairs(looks[new]) if new else ():
            for (a, b), share in zip(pairs.tolist(), shares.tolist(), strict=True):
                earlier[rest[max(a, b)]][rest[min(a, b)]] = share
        for at in sorted(earlier):
            stay = {other: share for other, share in earlier[at].items() if other not in gone}
            if stay:
                other = max(stay, key=lambda one: (stay[one], -one))
                gone[at] = "near_synthetic", f"is {stay[other]:.0%} like {self._place(other)}"
        return gone

    def _place(self, at: int) -> str:
        return str(self.rows.places[at])

    def relevance(self, left: list[int]) -> Gone:
        assert self.config.relevance is not None
        gone: Gone = {}
        seeds = self._some_seeds()
        for part in (0, 1):
            own = [at for at in left if self.rows.anew[at] == part]
            if not own:
                continue
            texts = [(one.prompt, one.answer or "")[part] for one in seeds]
            x, vectors = self._beside(texts, own, lambda one: one.text)
            x = _unit(x)
            for places, found in vectors:
                cosines = _unit(found) @ x.T
                for at, row in zip(places, cosines, strict=True):
                    near = int(row.argmax())
                    if row[near] < self.config.relevance:
                        message = f"the nearest, {seeds[near].place}, has a cosine of {row[near]:.2f}"
                        gone[at] = "far_from_seeds", message
        return gone

    def _some_seeds(self) -> SeedRows:
        """At most MOST_FITTED, drawn by the seed, in their order; whether they are all goes into the notes."""
        rows = self.seeds.rows
        if len(rows) <= MOST_FITTED:
            return rows
        self.notes["seeds_compared"] = MOST_FITTED
        return rows.some(sorted(random.Random(self.seed).sample(range(len(rows)), MOST_FITTED)))

    def _beside(
        self, texts: list[str], own: list[int], text_of: Callable[[MadeRow], str]
    ) -> tuple[Floats, Iterator[tuple[list[int], Floats]]]:
        """Vectors of texts, and of rows, some at a time: (places, vectors). Of more than MOST_FITTED rows so many
        decide how texts become vectors, drawn by the seed."""
        few = len(own) <= MOST_FITTED
        fitted = own if few else random.Random(self.seed).sample(own, MOST_FITTED)
        x, vectors = self.features([*texts, *(text_of(self.rows[at]) for at in fitted)])

        def each() -> Iterator[tuple[list[int], Floats]]:
            for number, places in enumerate(blocks(own, COSINES)):
                start = len(texts) + number * COSINES
                if few:
                    yield places, x[start : start + len(places)]
                else:
                    yield places, vectors([text_of(self.rows[at]) for at in places])

        return x[: len(texts)], each()

    def label(self, left: list[int]) -> Gone:
        """By a probe of the seeds alone, if it knows enough of those that it was not fitted on; how many goes into the
        notes."""
        assert self.config.label is not None
        labels, rows = self.seeds.labels, self.seeds.rows
        chosen = random.Random(self.seed).sample(range(len(rows)), min(MOST_FITTED, len(rows)))
        some = rows.some(chosen)
        y = self.seeds.codes[chosen].astype(np.int64)
        x, vectors = self._beside([one.prompt for one in some], left, lambda one: one.said[0])
        accuracy = self._known(x, y)
        self.notes["probe_accuracy"] = round(accuracy, 4)
        if accuracy < self.config.probe_least:
            return {}
        center, scale = standards(x)
        probe = softmax_of((x - center) / scale, y, len(labels), STRENGTH).before(center, scale)
        gone: Gone = {}
        for places, found in vectors:
            for at, row in zip(places, softmax(probe(found), axis=-1), strict=True):
                mine, best = labels.index(self.rows.labels[at] or ""), int(row.argmax())
                if row[best] - row[mine] > self.config.label:
                    message = f"'{labels[mine]}' at {row[mine]:.2f}, '{labels[best]}' at {row[best]:.2f}"
                    gone[at] = "other_label", message
        return gone

    def _known(self, x: Floats, y: NDArray[np.int64]) -> float:
        """Share of the seeds whose label a probe of the others says; of a class with one seed it cannot."""
        if max(Counter(y.tolist()).values()) == 1:
            return 0.0
        folds = folds_of(y, np.arange(len(y)), 5, self.seed)
        judged = out_of_fold(x, y, int(y.max()) + 1, folds, STRENGTH, self.seed)
        return float((judged.argmax(1) == y).mean())

    def critique(self, left: list[int]) -> Gone:
        spec = self.config.critique
        assert spec is not None
        assert self.ask is not None
        labelled = self.seeds.answered == "label"
        replies = self.ask([_question(spec, self.rows[at], labelled, self.told) for at in left])
        gone: Gone = {}
        for at, reply in zip(left, replies, strict=True):
            if reply is None:
                continue  # a trial: it is not yet asked
            mark = read_mark(reply, spec.low, spec.high)
            if mark is None:
                gone[at] = "no_mark", f"the reply was '{excerpt([reply])}'"
            elif mark < spec.least:
                gone[at] = "low_mark", f"{mark:g} of {spec.high:g}"
        return gone

    def share(self, left: list[int]) -> Gone:
        """Labels in turn (rows without one: makers), each one's rows in an order drawn by the seed."""
        if self.room is None or len(left) <= self.room:
            return {}
        order = random.Random(self.seed).sample(left, len(left))
        turn: Counter[str] = Counter()
        ranked: list[tuple[int, int, int]] = []
        for at in order:
            group = self.rows.labels[at] or self.rows.places[at].file
            ranked.append((turn[group], len(ranked), at))
            turn[group] += 1
        gone = [at for *_, at in sorted(ranked)[self.room :]]
        message = f"{self.room:,} synthetic rows are {self.config.max_share:.0%} of the training rows"
        return {at: ("over_share", message) for at in gone}


def room_for(max_share: float, real: int, before: int) -> int | None:
    """Synthetic rows that may still come: of all training rows at most max_share."""
    if max_share == 1:
        return None
    return max(0, int(max_share * real / (1 - max_share) + 1e-9) - before)


def _unit(x: Floats) -> Floats:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))


def _whole(row: Row) -> str:
    return "\n".join(said(row, "row"))


def _parts(row: Row) -> tuple[str, str]:
    texts = row.texts
    return (
        "\n".join(text.text for text in texts if text.part == "prompt"),
        "\n".join(text.text for text in texts if text.part == "answer"),
    )


def _question(spec: Critique, one: MadeRow, labelled: bool, told: Told) -> str:
    prompt, answer = one.said
    name, said_of = ("Label", told.label(answer)) if labelled else ("Answer", answer)
    return put_in(
        spec.prompt,
        about=told.about,
        prompt=prompt,
        answer=said_of,
        name=name,
        low=f"{spec.low:g}",
        high=f"{spec.high:g}",
    )
