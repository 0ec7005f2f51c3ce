"""What the columns of a file mean.

Four kinds of rows: `messages` (a conversation), `prompt` (prompt and completion), `label` (a text and its
class, answered by generation) and `text` (plain text).
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping as AbstractMapping
from dataclasses import dataclass
from typing import Any, Literal

from tunesmith.config.run import DataConfig
from tunesmith.errors import DataError, near_miss

Kind = Literal["messages", "prompt", "label", "text"]

# The part a column plays -> names it goes by, compared in lower case. The first is the part's own, and wins.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "conversations", "conversation", "dialogue"),
    "tools": ("tools", "functions"),
    "prompt": ("prompt", "question", "instruction", "input", "query"),
    "completion": ("completion", "response", "answer", "output"),
    "system": ("system", "system_prompt"),
    "text": ("text", "sentence", "ticket", "query"),
    "label": ("label", "intent", "category", "class"),
}
PARTS = (*SYNONYMS, "input")
CHATS: tuple[Kind, ...] = ("messages", "prompt", "label")
NEEDED: dict[Kind, tuple[str, ...]] = {
    "messages": ("messages",),
    "prompt": ("prompt", "completion"),
    "label": ("text", "label"),
    "text": ("text",),
}
OPTIONAL: dict[Kind, tuple[str, ...]] = {
    "messages": ("tools",),
    "prompt": ("input", "system", "tools"),
    "label": ("system",),
    "text": (),
}
ANSWERS = ("completion", "label")


@dataclass(frozen=True)
class Mapping:
    """The kind of the rows, and which column plays which part.

    columns: part -> column; parts are `messages, tools, prompt, input, completion, system, text, label`.
    `input` is text that follows the prompt after a blank line (instruction + input + output rows).
    json_fields: the columns that make up the answer as a JSON object, in place of a completion column.
    """

    kind: Kind
    columns: AbstractMapping[str, str]
    json_fields: tuple[str, ...] = ()

    def describe(self) -> str:
        """One printable line: 'prompt rows: prompt = question, completion = answer'."""
        parts = ", ".join(f"{part} = {column}" for part, column in self.columns.items())
        if self.json_fields:
            parts += f", completion = JSON of {', '.join(self.json_fields)}"
        return f"{self.kind} rows: {parts}"


def columns_of(rows: Iterable[AbstractMapping[str, Any]]) -> list[str]:
    """Every column that one of the rows has, in the order of first sight."""
    return list(dict.fromkeys(column for row in rows for column in row))


def detect(rows: Iterable[AbstractMapping[str, Any]], config: DataConfig, file: str = "") -> Mapping:
    """The mapping for rows like these (the first up to 100 of a file), honouring `format` and `columns`.

    Raises DataError where the columns fit no kind or more than one; it names the setting that decides.
    """
    seen = columns_of(rows)
    given = _given(config.columns, seen, file)
    if config.json_fields:
        return _with_json_fields(given, seen, config, file)
    if config.format != "auto":
        return _checked(_finish(config.format, given, seen, file), config)
    fitting = [kind for kind in CHATS if _fits(NEEDED[kind], given, seen)]
    if len(fitting) > 1:
        raise DataError(
            f"{file}: the columns fit {' and '.join(fitting)} rows ({_show(seen)})",
            "columns of one kind of row",
            "write one of " + ", ".join(f"data.format={kind}" for kind in fitting),
        )
    if not fitting and not _fits(NEEDED["text"], given, seen):
        raise _no_fit(seen, file)
    return _checked(_finish(fitting[0] if fitting else "text", given, seen, file), config)


def detect_input(rows: Iterable[AbstractMapping[str, Any]], config: DataConfig, file: str = "") -> Mapping:
    """The mapping for rows that are to be answered: as `detect`, but an answer's column may be missing.

    `format` and `columns` are those of the training rows; the format counts only where these rows can have it,
    and rows of plain text are asked as label rows are. Raises DataError as `detect` does.
    """
    seen = columns_of(rows)
    given = _given({p: c for p, c in config.columns.items() if p not in ANSWERS}, seen, file)
    asked: dict[Kind, tuple[str, ...]] = {k: tuple(p for p in NEEDED[k] if p not in ANSWERS) for k in CHATS}
    can = [k for k in CHATS if _fits(asked[k], given, seen) and not _idle(k, given)]
    trained: list[Kind] = [k for k in can if k == ("label" if config.format == "text" else config.format)]
    fitting = trained or [k for k in can if _fits(NEEDED[k], given, seen)] or can
    if not fitting:
        raise DataError(
            f"{file}: no input column among {_show(seen)}",
            "a column called messages, prompt or text (or a usual other name for one)",
            "name it" + _header_hint(file),
        )
    found = [_finish(kind, given, seen, file, asked[kind]) for kind in fitting]
    columns = {mapping.columns[asked[mapping.kind][0]] for mapping in found}
    if len(columns) > 1:
        raise DataError(f"{file}: the input may be {' or '.join(sorted(columns))}", "one column", "name it")
    return found[0]


def _with_json_fields(given: dict[str, str], seen: list[str], config: DataConfig, file: str) -> Mapping:
    """Prompt rows whose answer is made of several columns."""
    if config.format not in ("auto", "prompt") or "completion" in given:
        raise DataError(
            "data.json_fields makes the answer of prompt rows",
            "data.format=prompt or auto, and no data.columns.completion",
            "leave one of them out",
        )
    for column in config.json_fields:
        if column not in seen:
            raise DataError(f"{file}: no column '{column}' (data.json_fields)", near_miss(column, seen))
    # Any of its columns can stand for the completion while the others are looked for.
    stand_in = {**given, "completion": config.json_fields[0]}
    found = _finish("prompt", stand_in, seen, file)
    columns = {part: column for part, column in found.columns.items() if part != "completion"}
    return Mapping("prompt", columns, tuple(config.json_fields))


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


def _candidates(part: str, given: dict[str, str], seen: list[str]) -> list[str]:
    """The columns that may play this part: the given one, else the part's own name, else every synonym."""
    if part in given:
        return [given[part]]
    free = [column for column in seen if column not in given.values()]
    own = [column for column in free if column.strip().lower() == part]
    if own:
        return own[:1]
    return [column for column in free if column.strip().lower() in SYNONYMS.get(part, ())]


def _fits(needed: tuple[str, ...], given: dict[str, str], seen: list[str]) -> bool:
    return all(_candidates(part, given, seen) for part in needed)


def _idle(kind: Kind, given: dict[str, str]) -> list[str]:
    """Given parts that rows of this kind do not have."""
    return [part for part in given if part not in NEEDED[kind] + OPTIONAL[kind]]


def _checked(mapping: Mapping, config: DataConfig) -> Mapping:
    if config.instruction is not None and mapping.kind not in ("prompt", "label"):
        raise DataError(
            f"data.instruction is set, but these are {mapping.kind} rows",
            "prompt or label rows",
            "leave it out; in conversations write a system message",
        )
    return mapping


def _finish(
    kind: Kind, given: dict[str, str], seen: list[str], file: str, needed: tuple[str, ...] | None = None
) -> Mapping:
    """needed: the parts that there must be a column for; default: all that the kind needs."""
    if idle := _idle(kind, given):
        raise DataError(
            f"data.columns.{idle[0]} has no meaning for {kind} rows",
            f"parts of {kind} rows: {', '.join(NEEDED[kind] + OPTIONAL[kind])}",
            "leave it out, or set data.format",
        )
    columns = dict(given)
    if kind == "prompt" and "prompt" not in given:
        columns |= _instruction_and_input(seen, columns)
    for part in NEEDED[kind] if needed is None else needed:
        found = _candidates(part, columns, seen)
        if len(found) > 1:
            raise DataError(
                f"{file}: more than one column may be the {part}: {', '.join(found)}",
                f"one {part} column",
                "write one of " + ", ".join(f"data.columns.{part}={column}" for column in found),
            )
        if not found:
            raise DataError(
                f"{file}: {kind} rows need a {part} column; the columns are {_show(seen)}",
                f"a column called {' or '.join(SYNONYMS[part])}",
                f"write data.columns.{part}=<column>" + _header_hint(file),
            )
        columns[part] = found[0]
    for part in OPTIONAL[kind]:
        if part != "input" and len(found := _candidates(part, columns, seen)) == 1:
            columns[part] = found[0]
    return Mapping(kind, {part: columns[part] for part in NEEDED[kind] + OPTIONAL[kind] if part in columns})


def _instruction_and_input(seen: list[str], columns: dict[str, str]) -> dict[str, str]:
    """instruction + input + output rows: the input follows the instruction."""
    names = {column.strip().lower(): column for column in seen if column not in columns.values()}
    if "instruction" in names and "input" in names and "prompt" not in names:
        return {"prompt": names["instruction"], "input": columns.get("input", names["input"])}
    return {}


def _show(seen: list[str]) -> str:
    shown = ", ".join(column[:60] for column in seen[:20])
    return (shown or "none") + (", …" if len(seen) > 20 else "")


def _header_hint(file: str) -> str:
    csv = file.lower().removesuffix(".gz").endswith(".csv")
    return "; a CSV file needs a header line" if csv else ""


def _no_fit(seen: list[str], file: str) -> DataError:
    names = {column.strip().lower() for column in seen}
    if {"chosen", "rejected"} <= names or "preferred_output" in names:
        return DataError(
            f"{file}: these are preference rows ({_show(seen)})",
            "messages, prompt + completion, text + label, or text",
            "supervised fine-tuning learns from one answer: write data.columns.completion=chosen",
        )
    return DataError(
        f"{file}: the columns {_show(seen)} are none that are known",
        "messages | prompt + completion | text + label | text",
        "name them, for example data.columns.text=<column> data.columns.label=<column>" + _header_hint(file),
    )
