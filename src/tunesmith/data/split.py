"""Train, validation and test: given or made, and nothing in one that is also in another.

Two rows belong together when their prompts are equal after normalisation (Unicode NFC, case, white space), also
where the prompt of judged answers is what they begin with; plain text rows when their texts are. Rows that belong
together never stand in two splits.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import regex

from tunesmith.errors import DataError
from tunesmith.types import Example

Withdraw = Callable[[Example, str, str], None]  # (row, reason, message)
Key = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Parts:
    """The three splits, and what a person should know about them."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    warnings: tuple[str, ...] = ()
    unseen_labels: tuple[str, ...] = ()


_UNPRINTED = regex.compile("[^ -~]")  # what is no letter, digit or sign of ASCII, and no blank


def is_spaced(text: str) -> bool:
    """Whether it is printed ASCII, with one blank between words and none at its ends."""
    return "  " not in text and text.strip() == text and _UNPRINTED.search(text) is None


def normalised(text: str) -> str:
    if is_spaced(text):
        return text.lower()
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    text = text.casefold()
    if text.isprintable() and "  " not in text:  # the only white space that is printable is a blank
        return text.strip(" ")
    return " ".join(text.split())


def prompt_key(example: Example) -> Key:
    """What two rows share when they must not stand in different splits."""
    if example.text is not None:
        return (("text", normalised(example.text)),)
    return tuple([(message.role, normalised(message.content)) for message in example.prompt])


def split(
    train: Sequence[Example],
    validation: Sequence[Example] | None,
    test: Sequence[Example] | None,
    *,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
    withdraw: Withdraw,
) -> Parts:
    """Disjoint splits. None: made from `train` (seeded, stratified by label), unless its fraction is 0.

    Rows of a given validation or test file that also occur in train are withdrawn from train, and those of
    validation that occur in test from validation. Raises DataError for a split of fewer than two rows.
    """
    train = list(train)
    if test is not None:
        train = _without(train, test, "in_test", withdraw)
        if validation is not None:
            validation = _without(validation, test, "in_test", withdraw)
    if validation is not None:
        train = _without(train, validation, "in_validation", withdraw)
    fractions = {
        "test": test_fraction if test is None else 0.0,
        "validation": validation_fraction if validation is None else 0.0,
    }
    if sum(fractions.values()) >= 1:
        raise DataError(
            f"data.validation_fraction + data.test_fraction = {sum(fractions.values()):g}", "a sum below 1"
        )
    groups = _groups(train)
    drawn = _assign(train, fractions, seed, groups)
    parts: dict[str, list[Example]] = {
        name: list(itertools.compress(train, [where == name for where in drawn])) for name in fractions
    }
    stays = [where == "train" for where in drawn]
    kept, kept_groups = list(itertools.compress(train, stays)), itertools.compress(groups, stays)
    if len(kept) < 2:
        raise _too_few("train", len(kept), len(train), True)
    for name, given in (("validation", validation), ("test", test)):
        rows = parts[name] if given is None else list(given)
        if (given is not None or fractions[name] > 0) and len(rows) < 2:
            raise _too_few(name, len(rows), len(train), given is not None)
        parts[name] = rows
    warnings, unseen = _findings(kept, kept_groups, parts["validation"], parts["test"])
    return Parts(
        tuple(kept), tuple(parts["validation"]), tuple(parts["test"]), tuple(warnings), tuple(unseen)
    )


def _without(
    rows: Sequence[Example], others: Sequence[Example], reason: str, withdraw: Withdraw
) -> list[Example]:
    taken = {prompt_key(row) for row in others}
    kept = []
    for row in rows:
        if prompt_key(row) in taken:
            withdraw(row, reason, f"the same input is in the {reason.removeprefix('in_')} file")
        else:
            kept.append(row)
    return kept


def _groups(rows: Sequence[Example]) -> list[int]:
    """(R,) a number for each row, the same of rows with equal prompts; counted from 0 in the order of the rows."""
    numbers: dict[Key, int] = {}
    return [numbers.setdefault(prompt_key(row), len(numbers)) for row in rows]


def _assign(
    rows: Sequence[Example], fractions: dict[str, float], seed: int, groups: Sequence[int]
) -> list[str]:
    """For each row "train" or a name of `fractions`; rows of one group get the same.

    Classes are visited one after another in a seeded order of groups; what a class is too small to give is
    carried over to the next, so small classes together still give their share. A class's first group stays
    in train.
    """
    members_of: list[list[int]] = []
    strata: dict[str, list[list[int]]] = {}
    for index, group in enumerate(groups):
        if group < len(members_of):
            members_of[group].append(index)
        else:
            members_of.append([index])
            strata.setdefault(rows[index].label or "", []).append(members_of[group])
    where = ["train"] * len(rows)
    owed = dict.fromkeys(fractions, 0.0)
    generator = np.random.default_rng(seed)
    for label in sorted(strata):
        order = [strata[label][i] for i in generator.permutation(len(strata[label])).tolist()]
        size = sum(map(len, order))
        for name, fraction in fractions.items():
            owed[name] += fraction * size
        for members in order[1:]:
            name = max(owed, key=owed.__getitem__, default="train")
            # A group goes where at least half of it is owed; large groups of equal prompts so stay in train.
            if name != "train" and owed[name] >= max(0.5, len(members) / 2) and fractions[name] > 0:
                owed[name] -= len(members)
                for index in members:
                    where[index] = name
    return where


def _too_few(name: str, count: int, total: int, given: bool) -> DataError:
    fix = (
        "give more rows"
        if given
        else f"give more rows, set data.{name}_fraction higher, or to 0 for none, or name a file in data.{name}"
    )
    return DataError(f"the {name} split has {count} of {total} usable rows", "at least 2 rows", fix)


def _answered(row: Example) -> object:
    """What a row says beside its prompt; of judged rows all the answers and what was said of them."""
    if not row.completions:
        return row.answer
    return tuple([(completion.message.content, repr(completion.score)) for completion in row.completions])


def _findings(
    train: Sequence[Example],
    groups: Iterable[int],
    validation: Sequence[Example],
    test: Sequence[Example],
) -> tuple[list[str], list[str]]:
    """groups: of the training rows."""
    warnings = []
    rows = set(zip(groups, map(_answered, train), strict=True))
    if repeats := len(train) - len(rows):
        warnings.append(f"{repeats:,} of {len(train):,} training rows repeat another (kept)")
    labels = sorted({row.label for row in train if row.label is not None})
    if not labels:
        return warnings, []
    if len(labels) == 1:
        raise DataError(
            f"every training row has the label '{labels[0]}'",
            "at least two classes",
            "check data.columns.label",
        )
    conflicts = len(rows) - len({group for group, _ in rows})
    if conflicts:
        warnings.append(f"{conflicts:,} training inputs stand with more than one label")
    unseen = sorted({row.label for row in (*validation, *test) if row.label is not None} - set(labels))
    if unseen:
        listed = ", ".join(unseen[:20]) + (", …" if len(unseen) > 20 else "")
        warnings.append(f"LABELS WITHOUT A TRAINING ROW: {listed}; the model cannot learn them")
    return warnings, unseen
