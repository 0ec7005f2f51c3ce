"""What the columns of a file mean: the table of kinds of rows, their parts, and the names that columns go by.

| kind | parts (in brackets: may be missing) | the answer |
|---|---|---|
| `messages` | messages (tools, system) | the assistant's turns |
| `prompt` | prompt, completion (input, system, history, tools) | the completion |
| `asked` | prompt (completion, input, system, history, tools) | the completion, where there is one: a reference |
| `label` | text, label (pair, system; sample_weight: of the row's loss) | the class name |
| `labels` | text, labels (pair, system) | JSON list of the sorted names, such as `["billing", "urgent"]` or `[]` |
| `number` | text (pair, system) and `data.targets` | the number, or the JSON list of several |
| `tags` | tokens, tags (system) or text, spans (system) | JSON list of `[start, end, label]`, end exclusive, sorted |
| `pairs` | anchor, positive (negatives: a text or a list of texts) | the positive |
| `text` | text | none: the text itself is learned |
| `preference` | chosen, rejected: one or more (prompt or messages; margin, or score_chosen and score_rejected) | all |
| `unpaired` | prompt, completion, or messages; label: a verdict | what is judged |
| `rating` | prompt, completion, or messages; rating: a number | what is judged |
| `ranking` | prompt or messages, completions: a list; ranks, scores, or a score in each | all of them |
| `stepwise` | prompt or messages, completions: the steps; labels: a verdict on each, or one in each | the steps |

The last five are judged rows (see `judgements`, `steps`; all of them may have input, history, system and tools).
`input` follows the prompt, and `pair` the text, after a blank line. `history` is turns before the prompt. Words of
`tags` rows are joined by one space. How other tools spell messages and tools is in `peer_formats`.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping as AbstractMapping
from dataclasses import dataclass
from typing import Any, Literal

from tunesmith.data.peer_formats import USUAL, Turns
from tunesmith.errors import DataError

Kind = Literal[
    "messages",
    "prompt",
    "label",
    "labels",
    "number",
    "tags",
    "pairs",
    "text",
    "preference",
    "unpaired",
    "rating",
    "ranking",
    "stepwise",
    "asked",
]
JUDGED: tuple[Kind, ...] = ("preference", "ranking", "rating", "unpaired", "stepwise")

# The part a column plays -> names it goes by, compared in lower case. The first is the part's own, and wins.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "conversations", "conversation", "dialogue"),
    "tools": ("tools", "functions"),
    "prompt": ("prompt", "question", "instruction", "input", "query"),
    "completion": ("completion", "response", "answer", "output"),
    "system": ("system", "system_prompt"),
    "history": ("history",),
    "text": ("text", "sentence", "ticket", "query"),
    "pair": ("pair", "text_b", "sentence2", "text2", "question2", "hypothesis"),
    "label": ("label", "intent", "category", "class"),
    "sample_weight": ("sample_weight",),
    "labels": ("labels", "label", "intents", "categories", "classes", "intent", "category", "class"),
    "tokens": ("tokens", "words"),
    "tags": ("tags", "ner_tags", "labels"),
    "spans": ("spans", "entities", "slots"),
    "anchor": (
        "anchor",
        "query",
        "question",
        "prompt",
        "text",
        "sentence1",
        "sentence_a",
        "text1",
        "text_a",
        "premise",
    ),
    "positive": (
        *(
            "positive",
            "pos",
            "answer",
            "document",
            "passage",
            "completion",
            "response",
            "sentence2",
            "sentence_b",
        ),
        *("text2", "text_b", "hypothesis"),
    ),
    "negatives": ("negatives", "negative", "neg", "hard_negative", "hard_negatives"),
    "chosen": ("chosen", "chosen_response", "chosen_messages", "preferred_output", "response"),
    "rejected": ("rejected", "rejected_response", "rejected_messages", "non_preferred_output"),
    "margin": ("margin",),
    "score_chosen": ("score_chosen", "chosen_score", "chosen_rating"),
    "score_rejected": ("score_rejected", "rejected_score", "rejected_rating"),
    "completions": ("completions", "responses", "answers", "steps"),
    "ranks": ("ranks", "rank"),
    "scores": ("scores", "ratings"),
    "rating": ("rating", "score", "stars", "reward"),
}
VERDICTS = ("label", "kto_tag")
PARTS = (*SYNONYMS, "input")
# Where a column is the second text of a pair, a column of the same row is the first.
FIRST_OF_PAIR = {
    "text_b": "text_a",
    "sentence2": "sentence1",
    "text2": "text1",
    "question2": "question1",
    "hypothesis": "premise",
}
TARGETS = ("score", "target", "rating", "value")
CLASSES_TOO = {"positive": ", or data.format=label where texts of one class belong together"}
ANSWERS = ("completion", "label", "labels", "tags", "spans", "positive", "negatives")
MARGINS = ("margin", "score_chosen", "score_rejected")
JUDGEMENTS = ("label", "labels", "rating", "ranks", "scores", *MARGINS)
JUDGED_PARTS = ("chosen", "rejected", "completions", *JUDGEMENTS)


@dataclass(frozen=True)
class Shape:
    """Parts that rows of a kind must have, and those that they may have."""

    kind: Kind
    needed: tuple[str, ...]
    optional: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        return self.needed + self.optional

    @property
    def asked(self) -> tuple[str, ...]:
        """What must be there for a row to be asked: all but the answer."""
        return tuple(part for part in self.needed if part not in ANSWERS)


BESIDE_PROMPT = ("input", "system", "history", "tools")
BESIDE_MESSAGES = ("system", "tools")
# Of judged rows: the parts that hold what is asked, the others that may, and what is judged beside them.
_ASKED = (("prompt",), BESIDE_PROMPT), (("messages",), BESIDE_MESSAGES)
_ANSWERED = (("prompt", "completion"), BESIDE_PROMPT), (("messages",), BESIDE_MESSAGES)
COMPARED: tuple[Shape, ...] = (
    *(Shape("preference", (*parts, "chosen", "rejected"), (*more, *MARGINS)) for parts, more in _ASKED),
    Shape("preference", ("chosen", "rejected"), (*BESIDE_MESSAGES, *MARGINS)),
    Shape("preference", ("messages", "rejected"), (*BESIDE_MESSAGES, *MARGINS)),
    *(
        Shape("ranking", (*parts, "completions", *by), more)
        for by in (("ranks",), ("scores",), ())
        for parts, more in _ASKED
    ),
)
"""Rows of several answers to one prompt. Of a kind's shapes the first counts among those that fit as well."""
JUDGED_SHAPES: tuple[Shape, ...] = (
    *COMPARED,
    *(Shape("rating", (*parts, "rating"), more) for parts, more in _ANSWERED),
    *(Shape("unpaired", (*parts, "label"), more) for parts, more in _ANSWERED),
    *(
        Shape("stepwise", (*parts, "completions", *by), more)
        for by in (("labels",), ())
        for parts, more in _ASKED
    ),
)

TAGGED_WORDS = Shape("tags", ("tokens", "tags"), ("system",))
SHAPES: tuple[Shape, ...] = (
    Shape("messages", ("messages",), ("tools", "system")),
    Shape("prompt", ("prompt", "completion"), ("input", "system", "history", "tools")),
    Shape("asked", ("prompt",), ("completion", "input", "system", "history", "tools")),
    Shape("label", ("text", "label"), ("pair", "system", "sample_weight")),
    Shape("labels", ("text", "labels"), ("pair", "system")),
    Shape("number", ("text",), ("pair", "system")),
    TAGGED_WORDS,
    Shape("tags", ("text", "spans"), ("system",)),
    Shape("pairs", ("anchor", "positive"), ("negatives",)),
    Shape("text", ("text",)),
    *JUDGED_SHAPES,
)


@dataclass(frozen=True)
class Mapping:
    """The kind of the rows, and which column plays which part.

    columns: part -> column; the parts are those of the kind in SHAPES.
    json_fields: the columns that make up the answer as a JSON object, in place of a completion column.
    targets: the numeric columns of `number` rows. turns: how messages are spelled.
    """

    kind: Kind
    columns: AbstractMapping[str, str]
    json_fields: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    turns: Turns = USUAL

    @property
    def margin(self) -> str:
        """The column of margins, or the two that they are the difference of; empty where there are none."""
        return " - ".join(self.columns[part] for part in MARGINS if part in self.columns)

    def describe(self) -> str:
        """One printable line: 'prompt rows: prompt = question, completion = answer'."""
        columns = {part: column for part, column in self.columns.items() if part not in MARGINS}
        if self.margin:
            columns["margin"] = self.margin
        parts = [f"{part} = {column}" for part, column in columns.items()]
        if self.json_fields:
            parts.append(f"completion = JSON of {', '.join(self.json_fields)}")
        if self.targets:
            parts.append(f"targets = {', '.join(self.targets)}")
        return f"{self.kind} rows: {', '.join([*parts, *self.turns.describe()])}"


def columns_of(rows: Iterable[AbstractMapping[str, Any]]) -> list[str]:
    """Every column that one of the rows has, in the order of first sight."""
    return list(dict.fromkeys(column for row in rows for column in row))


def candidates(part: str, shape: Shape, given: AbstractMapping[str, str], seen: list[str]) -> list[str]:
    """The columns that may play this part: the given one, else the part's own name, else every synonym."""
    if part in given:
        return [given[part]]
    free = [column for column in seen if column not in given.values()]
    own = [column for column in free if key(column) == part]
    if own:
        return own[:1]
    names = VERDICTS if shape.kind == "unpaired" and part == "label" else SYNONYMS.get(part, ())
    found = [column for column in free if key(column) in names]
    if found or part != "text" or "pair" not in shape.optional:
        return found
    names_seen = {key(column) for column in seen}
    first = {one for second, one in FIRST_OF_PAIR.items() if second in names_seen}
    return [column for column in free if key(column) in first]


def key(column: str) -> str:
    """A column's name as names are compared."""
    return column.strip().lower()


def fits(shape: Shape, given: AbstractMapping[str, str], seen: list[str]) -> bool:
    """Whether there is a column for each part that the shape needs."""
    return all(candidates(part, shape, given, seen) for part in shape.needed)


def fill(
    shape: Shape, given: dict[str, str], seen: list[str], file: str, needed: tuple[str, ...] | None = None
) -> Mapping:
    """The mapping for rows of this shape.

    needed: the parts that there must be a column for; default: all that the shape needs. Raises DataError where
    one is missing, may be more than one column, or is given without having a meaning.
    """
    if idle := [part for part in given if part not in shape.parts]:
        raise DataError(
            f"data.columns.{idle[0]} has no meaning for {shape.kind} rows",
            f"parts of {shape.kind} rows: {', '.join(shape.parts)}",
            "leave it out, or set data.format",
        )
    columns = dict(given)
    if "input" in shape.parts and "prompt" not in given:
        columns |= _instruction_and_input(seen, columns)
    for part in shape.needed if needed is None else needed:
        found = candidates(part, shape, columns, seen)
        if len(found) > 1:
            raise DataError(
                f"{file}: more than one column may be the {part}: {', '.join(found)}",
                f"one {part} column",
                "write one of " + ", ".join(f"data.columns.{part}={column}" for column in found),
            )
        if not found:
            raise DataError(
                f"{file}: {shape.kind} rows need a {part} column; the columns are {show(seen)}",
                f"a column called {' or '.join(SYNONYMS[part])}",
                f"write data.columns.{part}=<column>" + CLASSES_TOO.get(part, "") + header_hint(file),
            )
        columns[part] = found[0]
    for part in shape.optional:
        if part != "input" and len(found := candidates(part, shape, columns, seen)) == 1:
            columns[part] = found[0]
    columns = _one_margin(columns, given)
    return Mapping(shape.kind, {part: columns[part] for part in shape.parts if part in columns})


def _one_margin(columns: dict[str, str], given: AbstractMapping[str, str]) -> dict[str, str]:
    """A margin's own column, or the two whose difference it is. Raises DataError where the ones given are neither."""
    scores = MARGINS[1:]
    if "margin" not in columns and set(scores) <= columns.keys():
        return columns
    if idle := [part for part in scores if part in given]:
        raise DataError(
            f"data.columns.{idle[0]} is given, but no margin comes of it",
            f"{' and '.join(scores)}, and no margin column",
            "name the other one too, or leave it out",
        )
    return {part: column for part, column in columns.items() if part not in scores}


def _instruction_and_input(seen: list[str], columns: dict[str, str]) -> dict[str, str]:
    """instruction + input + output rows: the input follows the instruction."""
    names = {key(column): column for column in seen if column not in columns.values()}
    if "instruction" in names and "input" in names and "prompt" not in names:
        return {"prompt": names["instruction"], "input": columns.get("input", names["input"])}
    return {}


def show(seen: list[str]) -> str:
    """The columns, for a message."""
    shown = ", ".join(column[:60] for column in seen[:20])
    return (shown or "none") + (", …" if len(seen) > 20 else "")


def header_hint(file: str) -> str:
    """What files of separated values need, when this is one."""
    separated = file.lower().removesuffix(".gz").removesuffix(".zst").endswith((".csv", ".tsv"))
    return f"; a {'TSV' if '.tsv' in file.lower() else 'CSV'} file needs a header line" if separated else ""
