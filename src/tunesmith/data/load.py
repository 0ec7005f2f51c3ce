"""Files -> splits of Examples, with an account of every row. Tokenising is in `tokens`, and offered here too."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tunesmith.config.run import DataConfig
from tunesmith.data.account import Account
from tunesmith.data.ahead import Ahead
from tunesmith.data.columns import JUDGED, columns_of, show
from tunesmith.data.folders import Source, kept_apart, sources_of
from tunesmith.data.formats import Mapping, detect, to_example
from tunesmith.data.mixing import mix
from tunesmith.data.readers import head_of, read_rows, sha256
from tunesmith.data.refusals import refuse_described
from tunesmith.data.split import split
from tunesmith.data.tokens import Preview, lengths, preview, tokenise
from tunesmith.errors import DataError, RowError
from tunesmith.types import Example, RowRef

__all__ = ["Preview", "Splits", "lengths", "load_splits", "preview", "read_examples", "tokenise"]

OFFERED = 10_000
"""Rows between one look and the next whether a process is free to work on them."""


@dataclass(frozen=True)
class Splits:
    """Disjoint splits and what was found on the way.

    mapping: of the first training file. labels: sorted class names of the training rows, empty when rows have
    none. hashes: file -> SHA-256.
    """

    train: Sequence[Example]
    validation: Sequence[Example]
    test: Sequence[Example]
    mapping: Mapping
    account: Account
    warnings: tuple[str, ...]
    labels: tuple[str, ...]
    unseen_labels: tuple[str, ...]
    hashes: dict[str, str]


@contextmanager
def few_collections() -> Iterator[None]:
    """Looks for cyclic garbage seldom: among millions of rows, which hold none, it takes a third of the time."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def entries_of(config: DataConfig) -> dict[str, list[str]]:
    """split -> what is read for it: what is named, else the split of a data set of the desk that is trained on."""
    others = {
        part: entries or kept_apart(config.train, part)
        for part, entries in (("validation", config.validation), ("test", config.test))
    }
    return {"train": config.train, **others}


def load_splits(
    config: DataConfig, seed: int, run_folder: Path | None = None, ahead: Ahead | None = None
) -> Splits:
    """Reads, checks and splits the files of `config`; lists dropped rows in `run_folder/dropped.jsonl`.

    ahead: is offered the training rows as they are read.
    Raises DataError for files, headers, too many bad rows, or splits that are too small.
    """
    if not config.train:
        raise DataError(
            "data.train names no file", "at least one file of training rows", "data.train=rows.jsonl"
        )
    account = Account(config.on_bad_row, run_folder)
    named = entries_of(config)
    sources = {part: sources_of(entries, part) for part, entries in named.items()}
    hashes = _hashes(itertools.chain(*sources.values()))
    train, mappings = _read(sources["train"], config, account, ahead)
    if ahead is not None:
        ahead.offer(train, last=True)
    given: dict[str, list[Example] | None] = {"validation": None, "test": None}
    for part in given:
        if sources[part]:
            given[part], more = _read(sources[part], config, account)
            mappings |= more
    mapping, warnings = _one_kind(mappings)
    parts = split(
        train,
        given["validation"],
        given["test"],
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        seed=seed,
        withdraw=lambda row, reason, message: account.withdraw(row.ref, reason, message),
    )
    weights = {source.file: source.weight for source in sources["train"]}
    mixed, said = mix(parts.train, weights, seed, account)
    kept = _limited(mixed, config.limit, seed, account)
    account.flush()
    return Splits(
        kept,
        parts.validation,
        parts.test,
        mapping,
        account,
        (*warnings, *parts.warnings, *said),
        tuple(sorted({row.label for row in kept if row.label is not None})),
        parts.unseen_labels,
        hashes,
    )


def read_examples(
    files: Iterable[str], config: DataConfig, account: Account
) -> tuple[list[Example], dict[str, Mapping]]:
    """The usable rows of these files (or whatever `data.train` may name), and what each file's columns mean.

    Every row is counted in `account`. Raises DataError; see `load_splits`.
    """
    return _read(sources_of(files), config, account)


def _read(
    sources: Iterable[Source], config: DataConfig, account: Account, ahead: Ahead | None = None
) -> tuple[list[Example], dict[str, Mapping]]:
    examples: list[Example] = []
    mappings: dict[str, Mapping] = {}
    for source in sources:
        file = source.file
        rows = read_rows(file, account.notes)
        head = head_of(rows)
        readable = [row for _, row in head if not isinstance(row, RowError)]
        mapping = _meaning(source, readable, config) if readable else None
        for line, row in itertools.chain(head, rows):
            account.read(file)
            example = _usable(mapping, row, RowRef(file, line), config, account)
            if example is not None:
                account.use(file)
                examples.append(example)
                if ahead is not None and len(examples) % OFFERED == 0:
                    ahead.offer(examples, last=False)
            elif mapping is None and line == head[-1][0]:
                break  # not one of the first rows could be read: the check below says so
        account.check(file)
        if mapping is not None:
            mappings[file] = mapping
    return examples, mappings


def _hashes(sources: Iterable[Source]) -> dict[str, str]:
    """Of every file that is read, descriptions included."""
    files = itertools.chain(*((s.file, s.described_by) for s in sources))
    return {file: sha256(file) for file in dict.fromkeys(files) if file is not None}


def _meaning(source: Source, rows: Sequence[dict[str, object]], config: DataConfig) -> Mapping:
    """What the columns mean: what a description says, else what they look like."""
    mapping = source.mapping
    if mapping is None:
        return detect(rows, config, source.file)
    set_here = config.model_fields_set & {"columns", "json_fields", "targets", "message_keys", "roles"}
    for name in sorted(name for name in set_here if getattr(config, name)):
        raise DataError(
            f"data.{name} is set, but {source.described_by} says what the columns of {source.file} are",
            "one of the two",
            f"leave data.{name} out, or name {source.file} itself",
        )
    if config.format == "auto" and mapping.kind in JUDGED:
        raise refuse_described(str(source.described_by), mapping)
    if config.format not in ("auto", "judged" if mapping.kind in JUDGED else "", mapping.kind):
        raise DataError(
            f"data.format={config.format}, but {source.described_by} describes {mapping.kind} rows",
            f"data.format={mapping.kind} or auto",
        )
    seen = columns_of(rows)
    for part, column in mapping.columns.items():
        if column not in seen:
            raise DataError(
                f"{source.file}: no column '{column}' ({part}); the columns are {show(seen)}",
                f"the columns that {source.described_by} names",
                "correct its columns, or the file",
            )
    return mapping


def _usable(
    mapping: Mapping | None,
    row: dict[str, object] | RowError,
    ref: RowRef,
    config: DataConfig,
    account: Account,
) -> Example | None:
    if isinstance(row, RowError) or mapping is None:
        assert isinstance(row, RowError)
        account.drop(row)
        return None
    try:
        return to_example(mapping, row, ref, config.instruction, account.notes)
    except RowError as error:
        account.drop(error, row)
        return None


def _one_kind(mappings: dict[str, Mapping]) -> tuple[Mapping, list[str]]:
    (first_file, first), *others = mappings.items()
    warnings = []
    for file, mapping in others:
        if mapping.kind != first.kind:
            raise DataError(
                f"{first_file} holds {first.kind} rows, but {file} holds {mapping.kind} rows",
                "one kind of row in all files",
                "set data.format and data.columns",
            )
        if mapping != first:
            warnings.append(f"{file} has other columns than {first_file}: {mapping.describe()}")
    return first, warnings


def _limited(rows: Sequence[Example], limit: int | None, seed: int, account: Account) -> tuple[Example, ...]:
    if limit is None or limit >= len(rows):
        return tuple(rows)
    chosen = set(np.random.default_rng(seed).permutation(len(rows))[:limit].tolist())
    for index, row in enumerate(rows):
        if index not in chosen:
            account.withdraw(row.ref, "over_limit", f"data.limit = {limit}")
    return tuple(row for index, row in enumerate(rows) if index in chosen)
