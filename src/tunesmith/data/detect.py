"""From the columns of a file's first rows to what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Mapping as AbstractMapping
from dataclasses import replace
from typing import Any

from tunesmith.config.run import DataConfig
from tunesmith.data.columns import (
    ANSWERS,
    COMPARED,
    JUDGED,
    JUDGED_PARTS,
    JUDGEMENTS,
    PARTS,
    SHAPES,
    TAGGED_WORDS,
    TARGETS,
    Kind,
    Mapping,
    Shape,
    candidates,
    columns_of,
    fill,
    fits,
    header_hint,
    key,
    show,
)
from tunesmith.data.peer_formats import turns_of
from tunesmith.data.refusals import no_fit, no_judgements, refuse_preferences
from tunesmith.errors import DataError, near_miss

Rows = Sequence[AbstractMapping[str, Any]]

GUESSED = ("messages", "prompt", "label")  # of which at most one may fit
TALKS = ("messages", "prompt")
OWN = (TAGGED_WORDS, *(shape for shape in SHAPES if shape.kind == "pairs"))  # asked by columns of their own
INSTRUCTED = ("prompt", "asked", "label", "labels", "number")


def detect(rows: Iterable[AbstractMapping[str, Any]], config: DataConfig, file: str = "") -> Mapping:
    """The mapping for rows like these (the first up to 100 of a file), honouring the settings of `config`.

    Raises DataError where the columns fit no kind or more than one; it names the setting that decides.
    """
    rows = list(rows)
    seen = columns_of(rows)
    given = _given(config.columns, seen, file)
    if config.json_fields:
        found = _with_json_fields(given, seen, config, file)
    elif config.format == "number" or config.targets:
        found = _with_targets(given, seen, config, file)
    elif config.format == "judged":
        found = _judged(rows, given, seen, file)
    elif config.format != "auto":
        found = fill(_shape(config.format, given, seen), given, seen, file)
    else:
        found = _guess(rows, given, seen, file)
    return _checked(replace(found, turns=turns_of(config)), config)


def _guess(rows: Rows, given: dict[str, str], seen: list[str], file: str) -> Mapping:
    if not given.keys() & {"messages", "text", *ANSWERS}:
        refuse_preferences(rows, seen, file)
    fitting = [shape for shape in SHAPES if shape.kind in GUESSED and fits(shape, given, seen)]
    if len(fitting) > 1:
        kinds = [shape.kind for shape in fitting]
        raise DataError(
            f"{file}: the columns fit {' and '.join(kinds)} rows ({show(seen)})",
            "columns of one kind of row",
            "write one of " + ", ".join(f"data.format={kind}" for kind in kinds),
        )
    # Plain text before tags: a text may have columns that say something about it.
    rest = [_shape("text", given, seen), TAGGED_WORDS]
    fitting = fitting or [shape for shape in rest if fits(shape, given, seen)]
    if not fitting:
        raise no_fit(seen, file)
    found = fill(fitting[0], given, seen, file)
    if found.kind == "label" and _all_lists(rows, found.columns["label"]):
        columns = {"labels" if part == "label" else part: name for part, name in found.columns.items()}
        return replace(found, kind="labels", columns=columns)
    return found


def _judged(rows: Rows, given: dict[str, str], seen: list[str], file: str) -> Mapping:
    """Of the kinds of judged rows the one whose columns there are."""
    shapes = [_shape(kind, given, seen) for kind in JUDGED]
    fitting = [
        shape
        for shape in shapes
        if fits(shape, given, seen)
        and all(part in shape.parts for part in given)
        and _says(shape, rows, given)
    ]
    if not fitting:
        raise no_judgements(seen, file)
    if len(fitting) > 1:
        kinds = [shape.kind for shape in fitting]
        raise DataError(
            f"{file}: the columns fit {' and '.join(kinds)} rows ({show(seen)})",
            "columns of one kind of judged row",
            "write one of " + ", ".join(f"data.format={kind}" for kind in kinds),
        )
    return fill(fitting[0], given, seen, file)


def _says(shape: Shape, rows: Rows, given: AbstractMapping[str, str]) -> bool:
    """Completions without a column of ranks, scores or labels must each have its own, and so be objects; those with a
    label are steps."""
    if shape.kind not in ("ranking", "stepwise") or shape.needed[-1] != "completions":
        return True
    if any(key(column) == "labels" for column in columns_of(rows)) or "labels" in given:
        return False
    columns = candidates("completions", shape, given, columns_of(rows))
    lists = [row[column] for column in columns for row in rows if isinstance(row.get(column), list)]
    steps = shape.kind == "stepwise"
    return any(isinstance(item, dict) and ("label" in item) == steps for items in lists for item in items)


def _shape(kind: Kind, given: AbstractMapping[str, str], seen: list[str]) -> Shape:
    """Of the shapes of a kind the one that fits, or comes nearest."""
    shapes = [shape for shape in SHAPES if shape.kind == kind]

    def found(shape: Shape) -> tuple[bool, bool, int]:
        there = sum(bool(candidates(part, shape, given, seen)) for part in shape.needed)
        whole = kind in JUDGED and there == len(shape.needed)
        return all(part in shape.parts for part in given), whole, there

    return max(shapes, key=found)


def _all_lists(rows: Rows, column: str) -> bool:
    values = [row[column] for row in rows if row.get(column) is not None]
    return bool(values) and all(isinstance(value, list) for value in values)


def detect_input(rows: Iterable[AbstractMapping[str, Any]], config: DataConfig, file: str = "") -> Mapping:
    """The mapping for rows that are to be answered: as `detect`, but an answer's column may be missing.

    `format` and `columns` are those of the training rows; the format counts only where these rows can have
    it, rows of pairs have an anchor, judged rows are asked as prompt rows are, and rows of plain text, labels,
    numbers and spans as label rows are. Raises DataError as `detect` does.
    """
    seen = columns_of(rows)
    given = _given(
        {p: c for p, c in config.columns.items() if p not in (*ANSWERS, *JUDGED_PARTS)}, seen, file
    )
    shapes = [s for s in SHAPES if s.kind in GUESSED or (s in OWN and s.kind == config.format)]
    can = [
        shape
        for shape in shapes
        if all(candidates(part, shape, given, seen) for part in shape.asked)
        and all(part in shape.parts for part in given)
    ]
    wanted = config.format if config.format in TALKS else "prompt" if _is_judged(config) else "label"
    trained = [shape for shape in can if shape in OWN] or [
        shape for shape in can if config.format != "auto" and shape.kind == wanted
    ]
    fitting = trained or [shape for shape in can if fits(shape, given, seen)] or can
    if not fitting:
        raise DataError(
            f"{file}: no input column among {show(seen)}",
            "a column called messages, prompt or text (or a usual other name for one)",
            "name it" + header_hint(file),
        )
    found = [fill(shape, given, seen, file, shape.asked) for shape in fitting]
    columns = {mapping.columns[shape.asked[0]] for mapping, shape in zip(found, fitting, strict=True)}
    if len(columns) > 1:
        raise DataError(f"{file}: the input may be {' or '.join(sorted(columns))}", "one column", "name it")
    return replace(found[0], turns=turns_of(config))


def detect_scored(rows: Iterable[AbstractMapping[str, Any]], config: DataConfig, file: str = "") -> Mapping:
    """The mapping for rows whose answers are to be scored: chosen and rejected, completions, or one answer to a
    prompt (or at the end of a conversation); of a model of steps, the steps of an answer. What people said of them is
    not read.

    `columns` are those of the training rows. Raises DataError as `detect` does.
    """
    seen = columns_of(rows := list(rows))
    said = {part: column for part, column in config.columns.items() if part not in JUDGEMENTS}
    given = _given({part: column for part, column in said.items() if column in seen}, seen, file)
    bare = [s for s in COMPARED if s.needed[-1] not in JUDGEMENTS]
    bare += [Shape(s.kind, s.needed[:-1], s.optional) for s in SHAPES if s.kind == "rating"]
    if steps := config.format == "stepwise":
        bare = [s for s in SHAPES if s.kind == "stepwise" and s.needed[-1] == "completions"]
    fitting = [s for s in bare if fits(s, given, seen) and all(part in s.parts for part in given)]
    if not fitting:
        able = "prompt + completion | messages | prompt + completions | chosen + rejected"
        raise DataError(
            f"{file}: no {'steps' if steps else 'answers'} to be scored among {show(seen)}",
            "prompt + completions (the steps)" if steps else able,
            f"name them, for example data.columns.completion{'s' * steps}=<column>" + header_hint(file),
        )
    found = fill(fitting[0], given, seen, file)
    columns = {part: column for part, column in found.columns.items() if part not in JUDGEMENTS}
    return replace(found, columns=columns, turns=turns_of(config))


def _is_judged(config: DataConfig) -> bool:
    return config.format in (*JUDGED, "judged")


def _with_json_fields(given: dict[str, str], seen: list[str], config: DataConfig, file: str) -> Mapping:
    """Prompt rows whose answer is made of several columns."""
    if config.format not in ("auto", "prompt") or "completion" in given:
        raise DataError(
            "data.json_fields makes the answer of prompt rows",
            "data.format=prompt or auto, and no data.columns.completion",
            "leave one of them out",
        )
    _check_columns(config.json_fields, seen, "data.json_fields", file)
    # Any of its columns can stand for the completion while the others are looked for.
    stand_in = {**given, "completion": config.json_fields[0]}
    found = fill(_shape("prompt", given, seen), stand_in, seen, file)
    columns = {part: column for part, column in found.columns.items() if part != "completion"}
    return replace(found, columns=columns, json_fields=tuple(config.json_fields))


def _with_targets(given: dict[str, str], seen: list[str], config: DataConfig, file: str) -> Mapping:
    """Rows of a text and numbers."""
    if config.format not in ("auto", "number"):
        raise DataError(
            f"data.targets has no meaning for {config.format} rows",
            "data.format=number or auto",
            "leave data.targets out, or set data.format=number",
        )
    _check_columns(config.targets, seen, "data.targets", file)
    targets = config.targets or [c for c in seen if key(c) in TARGETS and c not in given.values()]
    if not config.targets and len(targets) != 1:
        what = f"may be {' or '.join(targets)}" if targets else f"is none of {show(seen)}"
        raise DataError(
            f"{file}: the number to predict {what}",
            f"one column called {' or '.join(TARGETS)}",
            "write data.targets=<column>, or a list of columns",
        )
    return replace(fill(_shape("number", given, seen), given, seen, file), targets=tuple(targets))


def _check_columns(columns: Sequence[str], seen: list[str], setting: str, file: str) -> None:
    for column in columns:
        if column not in seen:
            raise DataError(f"{file}: no column '{column}' ({setting})", near_miss(column, seen))


def _given(columns: AbstractMapping[str, str], seen: list[str], file: str) -> dict[str, str]:
    for part, column in columns.items():
        if part not in PARTS:
            raise DataError(f"data.columns.{part}: no such part", near_miss(part, PARTS))
        if column not in seen:
            raise DataError(
                f"{file}: no column '{column}' (data.columns.{part})",
                near_miss(column, seen),
                "correct data.columns, or the header of the file",
            )
    return dict(columns)


def _checked(mapping: Mapping, config: DataConfig) -> Mapping:
    if config.instruction is not None and mapping.kind not in INSTRUCTED:
        raise DataError(
            f"data.instruction is set, but these are {mapping.kind} rows",
            f"{', '.join(INSTRUCTED)} rows",
            "leave it out; in conversations write a system message",
        )
    for name, value in (("message_keys", config.message_keys), ("roles", config.roles)):
        if value and mapping.kind not in (*TALKS, "asked", *JUDGED):
            raise DataError(
                f"data.{name} is set, but these are {mapping.kind} rows",
                "messages, or prompt rows whose prompt is a conversation",
                "leave it out, or set data.format",
            )
    return mapping
