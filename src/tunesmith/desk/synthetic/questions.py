"""What models are asked to write, and what rows their replies are."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from tunesmith.config.makers import SLOT, Evolve, Grid, Rewrite, SelfInstruct
from tunesmith.desk.synthetic.seeds import Candidate, Refused, Seed, Seeds
from tunesmith.errors import DataError, clipped
from tunesmith.scoring.endpoint import without_thoughts
from tunesmith.scoring.json_answers import parse_json

Ask = Callable[[Sequence[str]], list[str | None]]
Made = Iterable[Candidate | Refused]
WAYS = {
    "deeper": "add one requirement or circumstance that matters, so that it asks for more thought.",
    "wider": "keep the kind of matter, but make it about a rarer case of it.",
    "concrete": "put particular things, numbers, names or times in the place of general words.",
    "harder": "change it so that it takes several steps to answer.",
    "plainer": "say it shorter and in simpler words, without losing what is asked.",
}


@dataclass(frozen=True)
class Told:
    """What models are told of all rows: what they are, and what labels mean."""

    about: str
    meanings: Mapping[str, str]

    def label(self, label: str) -> str:
        said = f" ({self.meanings[label]})" if label in self.meanings else ""
        return f"{label}{said}"


@dataclass(frozen=True)
class Question:
    """text: the prompt. like: whose form the rows have, and whose label, unless they say their own. fields: of each row
    that is asked for. most: rows of a reply."""

    text: str
    like: Seed
    fields: tuple[str, ...]
    shown: tuple[str, ...]
    how: str
    most: int = 1


def field_names(seed: Seed) -> tuple[str, str | None]:
    """What a row's text and its answer are called in replies."""
    if seed.answered == "answer":
        return "prompt", "answer"
    return "text", ("label" if seed.answered == "label" else None)


def put_in(template: str, **values: str) -> str:
    """Places are filled in one pass, so that a row that writes {form} changes nothing; other braces stay."""
    return SLOT.sub(lambda place: values.get(place[1], place[0]), template)


def shown(seeds: Sequence[Seed], fields: Sequence[str]) -> str:
    """Seeds as a model sees them: a JSON object each, in the form in which it is to reply."""
    lines = []
    for seed in seeds:
        rows = zip(field_names(seed), (seed.prompt, seed.answer or ""), strict=True)
        row = {name: text for name, text in rows if name in fields}
        lines.append(json.dumps(row, ensure_ascii=False))
    return "\n".join(lines)


def form_of(fields: Sequence[str], most: int) -> str:
    row = "{" + ", ".join(f'"{name}": "..."' for name in fields) + "}"
    return f"a JSON object {row}" if most == 1 else f"a JSON list of {most} objects {row}"


# Makers --------------------------------------------------------------------------------------------------


def grid(spec: Grid, seeds: Seeds, told: Told, ask: Ask, seed: int) -> Made:
    """Every cell once before any comes twice, in an order drawn by the seed."""
    answered = _writes(seeds, "grid")
    labels: Sequence[str | None] = seeds.labels or [None]
    cells = list(product(*spec.axes.values(), labels))
    draws = random.Random(seed)
    order: list[int] = []
    count = -(-spec.count // spec.rows)
    while len(order) < count:
        order += draws.sample(range(len(cells)), len(cells))
    questions = []
    for number, place in enumerate(order[:count]):
        *values, label = cells[place]
        situation = "; ".join(f"{axis}: {value}" for axis, value in zip(spec.axes, values, strict=True))
        pool = seeds.of(label)
        few = draws.sample(pool, min(spec.shots, len(pool)))
        fields = ("prompt", "answer") if answered == "answer" else ("text",)
        most = min(spec.rows, spec.count - number * spec.rows)
        text = put_in(
            spec.prompt,
            count=str(most),
            about=told.about,
            label="" if label is None else f" Each is to be answered with the label {told.label(label)}.",
            situation=situation,
            examples=shown(few, fields),
            form=form_of(fields, most),
        )
        like = few[0] if few else pool[0]
        places = tuple(one.place for one in few)
        questions.append(Question(text, like, fields, places, situation, most))
    return written(questions, seeds, ask)


def self_instruct(spec: SelfInstruct, seeds: Seeds, told: Told, ask: Ask, seed: int) -> Made:
    _writes(seeds, "self_instruct")
    draws = random.Random(seed)
    fields = tuple(name for name in field_names(seeds.rows[0]) if name is not None)
    known = "; ".join(told.label(label) for label in seeds.labels)
    questions = []
    for at in range(0, spec.count, spec.rows):
        few = draws.sample(seeds.rows, min(spec.shots, len(seeds.rows)))
        most = min(spec.rows, spec.count - at)
        text = put_in(
            spec.prompt,
            count=str(most),
            about=told.about,
            label=f" Labels: {known}." if known else "",
            examples=shown(few, fields),
            form=form_of(fields, most),
        )
        places = tuple(one.place for one in few)
        questions.append(Question(text, few[0], fields, places, f"from {len(few)} seeds", most))
    return written(questions, seeds, ask)


def evolve(spec: Evolve, seeds: Seeds, told: Told, ask: Ask, seed: int) -> Made:
    answered = _writes(seeds, "evolve")
    fields = ("prompt", "answer") if answered == "answer" else ("text",)
    ways = len(spec.ways)
    pairs = ((seeds.rows[at // ways], at % ways) for at in _drawn(len(seeds.rows) * ways, spec.count, seed))
    jobs: list[tuple[Seed, tuple[str, ...], int]] = [(one, (one.place,), at) for one, at in pairs]
    out: list[Candidate | Refused] = []
    for number in range(spec.rounds):
        questions = []
        for one, places, at in jobs:
            way = spec.ways[(at + number) % len(spec.ways)]
            label = "" if one.answered != "label" else f" Its label stays {told.label(one.answer or '')}."
            text = put_in(
                spec.prompt,
                about=told.about,
                way=WAYS[way],
                label=label,
                examples=shown([one], fields),
                form=form_of(fields, 1),
            )
            how = way if number == 0 else f"{way} (round {number + 1})"
            questions.append(Question(text, one, fields, places, how))
        found = replies_of(questions, seeds, ask)
        out += [row for of_question in found for row in of_question]
        jobs = [
            (row.as_seed(), row.seeds, at)
            for (_, _, at), of_question in zip(jobs, found, strict=True)
            for row in of_question
            if isinstance(row, Candidate)
        ]
    return out


def rewrite(spec: Rewrite, seeds: Seeds, told: Told, ask: Ask, seed: int) -> Made:
    name = field_names(seeds.rows[0])[spec.part == "answer"]
    if spec.part == "answer" and seeds.answered != "answer":
        raise DataError(
            f"rewrite of answers, and the seeds are {seeds.rows[0].row.shape.meaning.kind} rows",
            "rows with an answer in words: labels have no other words",
            "write part: prompt",
        )
    assert name is not None
    questions = []
    for at in _drawn(len(seeds.rows), spec.count, seed):
        one = seeds.rows[at]
        context = [field for field in field_names(one) if field is not None and one.answer is not None]
        text = put_in(
            spec.prompt,
            about=told.about,
            part=name,
            examples=shown([one], context or [name]),
            form=form_of([name], 1),
        )
        questions.append(Question(text, one, (name,), (one.place,), f"{spec.part} in other words"))
    return written(questions, seeds, ask)


def _writes(seeds: Seeds, maker: str) -> str:
    if seeds.answered == "other":
        raise DataError(
            f"{maker} of {seeds.rows[0].row.shape.meaning.kind} rows",
            "rows with one class, one answer, or plain text",
            "rewrite with part: prompt, or data augment, which leave the rest of a row as it is",
        )
    return seeds.answered


def _drawn(things: int, count: int | None, seed: int) -> Sequence[int]:
    """Places of so many of them: each once before any comes twice. None: each once, in their order."""
    if count is None:
        return range(things)
    draws = random.Random(seed)
    out: list[int] = []
    while len(out) < count:
        out += draws.sample(range(things), things)
    return out[:count]


# Replies -------------------------------------------------------------------------------------------------


def written(questions: Sequence[Question], seeds: Seeds, ask: Ask) -> Made:
    return [row for rows in replies_of(questions, seeds, ask) for row in rows]


def replies_of(questions: Sequence[Question], seeds: Seeds, ask: Ask) -> list[list[Candidate | Refused]]:
    """Of each question the rows of its reply; none where it is not yet answered."""
    replies = ask([one.text for one in questions])
    return [
        [] if reply is None else rows_of(one, reply, seeds)
        for one, reply in zip(questions, replies, strict=True)
    ]


def rows_of(question: Question, reply: str, seeds: Seeds) -> list[Candidate | Refused]:
    """Strictly: JSON alone (a code fence, and thoughts before it, are taken off), objects with the fields that were
    asked for and no others, all of them text."""
    found = parse_json(without_thoughts(reply))
    if not isinstance(found, dict | list):
        return [Refused("not_json", f"{clipped(reply)} is no JSON list or object", reply)]
    items = found if isinstance(found, list) else [found]
    out = [_row(question, item, seeds) for item in items[: question.most]]
    more = len(items) - question.most
    raw = json.dumps(items[question.most :], ensure_ascii=False)
    return out + [Refused("too_many", f"{question.most} rows were asked for, {len(items)} came", raw)] * max(
        more, 0
    )


def _row(question: Question, item: object, seeds: Seeds) -> Candidate | Refused:
    raw = json.dumps(item, ensure_ascii=False)
    if not isinstance(item, dict):
        return Refused("not_an_object", f"{clipped(raw)} is no object", raw)
    if set(item) != set(question.fields):
        return Refused("other_fields", f"fields {sorted(item)}, asked for {sorted(question.fields)}", raw)
    wrong = [name for name, text in item.items() if not isinstance(text, str) or not text.strip()]
    if wrong:
        return Refused("not_text", f"field '{wrong[0]}' is {clipped(json.dumps(item[wrong[0]]))}", raw)
    said = {name: text.strip() for name, text in item.items()}
    like, prompt = question.like, said.get("text", said.get("prompt"))
    if "label" in said:
        found = seeds.of(said["label"])
        if not found:
            return Refused("unknown_label", f"'{said['label']}' is no seed's label", raw)
        like = found[0]
    return Candidate(like, prompt, said.get("answer"), question.shown, question.how)
