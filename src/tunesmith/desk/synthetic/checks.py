"""What a synthetic row must pass, each check on those that the ones before let through."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
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
from tunesmith.desk.synthetic.questions import Ask, Told, put_in
from tunesmith.desk.synthetic.seeds import Candidate, Seeds
from tunesmith.errors import DataError, RowError
from tunesmith.evaluate.linear import softmax_of, standards
from tunesmith.scoring.rewards.judge import read_mark

Floats = NDArray[np.float64]
Features = Callable[[Sequence[str]], Floats]
"""(N,) texts -> (N, D) vectors that stand beside one another."""
Gone = dict[int, tuple[str, str]]
"""Place of a candidate -> (rule, message)."""
STRENGTH = 0.03
"""Of the probe: scikit-learn's C, as of `data quality`."""


@dataclass
class Checking:
    """candidates: all of them; rows: the same as rows of the data set. real: training rows that nobody made up.
    held: evaluation rows. room: synthetic rows that there may be, beside those of before; None: as many as come.
    ask: of the model that marks rows."""

    config: Checks
    candidates: Sequence[Candidate]
    rows: Sequence[Row]
    seeds: Seeds
    real: Sequence[Row]
    held: Sequence[Row]
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
            ("leakage", bool(self.held), self.leakage),
            ("novelty", True, self.novelty),
            ("relevance", self.config.relevance is not None, self.relevance),
            ("label", self._has_probe, self.label),
            ("critique", self.config.critique is not None, self.critique),
            ("share", True, self.share),
        ]
        left = list(range(len(self.candidates)))
        steps = []
        for name, wanted, check in checks:
            if wanted:
                gone = check(left) if left else {}
                steps.append(
                    Dropping(f"check: {name}", {self.rows[at].number: why for at, why in gone.items()})
                )
                left = [at for at in left if at not in gone]
        return steps

    @property
    def _has_probe(self) -> bool:
        return self.config.label is not None and len(self.seeds.labels) > 1

    def usable(self, left: list[int]) -> Gone:
        gone: Gone = {}
        for at in left:
            try:
                to_example(self.rows[at].shape.meaning, self.rows[at].values, self.rows[at].ref)
            except RowError as error:
                gone[at] = error.reason, error.got
        return gone

    def leakage(self, left: list[int]) -> Gone:
        """Raises DataError where `leaks` says so."""
        gone: Gone = {}
        if self.config.leak_near is not None:
            texts = ["\n".join(said(row, "row")) for row in self.held]
            own = ["\n".join(said(self.rows[at], "row")) for at in left]
            for at, (other, share) in nearest(own, texts, self.config.leak_near).items():
                gone[left[at]] = "leak_near", f"is {share:.0%} like {self.held[other].ref}"
        if self.config.leak_ngram is not None:
            known = {str(row.ref): [said(row, "row")] for row in self.held}
            contaminated = contamination(known, self.config.leak_ngram)
            for at in left:
                found = contaminated.apply(self.rows[at]) if at not in gone else None
                if found is not None:
                    gone[at] = "leak_ngram", found.message
        if gone and self.config.leaks == "refuse":
            at, (_, message) = min(gone.items())
            raise DataError(
                f"{len(gone):,} synthetic rows leak from evaluation rows; the first, "
                f"'{excerpt([self.candidates[at].text])}', {message}",
                "rows that evaluation does not ask for (checks.leaks: refuse)",
                "change what makes them, or write checks.leaks=drop to count them and leave them out",
            )
        return gone

    def novelty(self, left: list[int]) -> Gone:
        """A prompt is held against prompts, a row that only answers anew against answers."""
        gone: Gone = {}
        for part in (0, 1):
            own = [at for at in left if (self.candidates[at].prompt is None) == bool(part)]
            known = [_parts(row)[part] for row in self.real]
            gone |= self._repeats(own, known)
        return gone

    def _repeats(self, own: list[int], known: list[str]) -> Gone:
        gone: Gone = {}
        first = {text: str(row.ref) for text, row in zip(reversed(known), reversed(self.real), strict=True)}
        for at in own:
            before = first.setdefault(self.candidates[at].text, str(self.rows[at].ref))
            if before != str(self.rows[at].ref):
                gone[at] = "same", f"is {before}"
        near = self.config.novelty
        if near is None:
            return gone
        rest = [at for at in own if at not in gone]
        for place, (other, share) in nearest(self._texts(rest), known, near).items():
            gone[rest[place]] = "near_seed", f"is {share:.0%} like {self.real[other].ref}"
        rest = [at for at in rest if at not in gone]
        sketches = Sketches(near, PERMUTATIONS)
        earlier: dict[int, dict[int, float]] = defaultdict(dict)
        for pairs, shares in sketches.pairs(sketches.of(self._texts(rest))) if rest else ():
            for (a, b), share in zip(pairs.tolist(), shares.tolist(), strict=True):
                earlier[rest[max(a, b)]][rest[min(a, b)]] = share
        for at in sorted(earlier):
            stay = {other: share for other, share in earlier[at].items() if other not in gone}
            if stay:
                other = max(stay, key=lambda one: (stay[one], -one))
                gone[at] = "near_synthetic", f"is {stay[other]:.0%} like {self.rows[other].ref}"
        return gone

    def _texts(self, places: Sequence[int]) -> list[str]:
        return [self.candidates[at].text for at in places]

    def relevance(self, left: list[int]) -> Gone:
        assert self.config.relevance is not None
        gone: Gone = {}
        for part in (0, 1):
            own = [at for at in left if (self.candidates[at].prompt is None) == bool(part)]
            if not own:
                continue
            seeds = [(one.prompt, one.answer or "")[part] for one in self.seeds.rows]
            x = self.features([*seeds, *(self.candidates[at].text for at in own)])
            x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
            cosines = x[len(seeds) :] @ x[: len(seeds)].T
            for at, row in zip(own, cosines, strict=True):
                nearest = int(row.argmax())
                if row[nearest] < self.config.relevance:
                    place = self.seeds.rows[nearest].place
                    gone[at] = "far_from_seeds", f"the nearest, {place}, has a cosine of {row[nearest]:.2f}"
        return gone

    def label(self, left: list[int]) -> Gone:
        """By a probe of the seeds alone. How often it is right on seeds that it was not fitted on goes into the notes:
        a probe that does not know the seeds' own labels is no judge of others."""
        assert self.config.label is not None
        labels = self.seeds.labels
        some = random.Random(self.seed).sample(self.seeds.rows, min(MOST_FITTED, len(self.seeds.rows)))
        y = np.array([labels.index(one.answer or "") for one in some], np.int64)
        x = self.features([*(one.prompt for one in some), *(self.candidates[at].said[0] for at in left)])
        own, others = x[: len(some)], x[len(some) :]
        if max(Counter(y.tolist()).values()) > 1:
            folds = folds_of(y, np.arange(len(y)), 5, self.seed)
            judged = out_of_fold(own, y, len(labels), folds, STRENGTH, self.seed)
            self.notes["probe_accuracy"] = round(float((judged.argmax(1) == y).mean()), 4)
        center, scale = standards(own)
        probe = softmax_of((own - center) / scale, y, len(labels), STRENGTH).before(center, scale)
        gone: Gone = {}
        for at, row in zip(left, softmax(probe(others), axis=-1), strict=True):
            mine, best = labels.index(self.candidates[at].label or ""), int(row.argmax())
            if row[best] - row[mine] > self.config.label:
                message = f"'{labels[mine]}' at {row[mine]:.2f}, '{labels[best]}' at {row[best]:.2f}"
                gone[at] = "other_label", message
        return gone

    def critique(self, left: list[int]) -> Gone:
        spec = self.config.critique
        assert spec is not None
        assert self.ask is not None
        replies = self.ask([_question(spec, self.candidates[at], self.told) for at in left])
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
            group = self.candidates[at].label or self.rows[at].ref.file
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


def nearest(own: Sequence[str], others: Sequence[str], near: float) -> dict[int, tuple[int, float]]:
    """place of one's own -> (place of the most alike of the others, how much), where one is at least that alike."""
    if not own or not others:
        return {}
    sketches = Sketches(near, PERMUTATIONS)
    best: dict[int, tuple[float, int]] = {}
    for pairs, shares in sketches.between(sketches.of(own), sketches.of(others)):
        for (mine, other), share in zip(pairs.tolist(), shares.tolist(), strict=True):
            best[mine] = max(best.get(mine, (0.0, 0)), (share, -other))
    return {at: (-other, share) for at, (share, other) in best.items()}


def _parts(row: Row) -> tuple[str, str]:
    texts = row.texts
    return (
        "\n".join(text.text for text in texts if text.part == "prompt"),
        "\n".join(text.text for text in texts if text.part == "answer"),
    )


def _question(spec: Critique, candidate: Candidate, told: Told) -> str:
    prompt, answer = candidate.said
    name, said_of = (
        ("Label", told.label(answer)) if candidate.like.answered == "label" else ("Answer", answer)
    )
    return put_in(
        spec.prompt,
        about=told.about,
        prompt=prompt,
        answer=said_of,
        name=name,
        low=f"{spec.low:g}",
        high=f"{spec.high:g}",
    )
