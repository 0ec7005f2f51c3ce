"""Splits of rows as flat arrays, and back: sequences whose rows are made when they are asked for.

Shapes: R rows, S segments, T tokens, V numbers of targets.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.shares import Sharing, shared_out
from tunesmith.types import Completion, Example, Message, RowRef, Segment, TokenRow

T = TypeVar("T")
Arrays = Mapping[str, NDArray[Any]]
EDGES = frozenset(("tokens", "segments", "values", "texts"))
"""The arrays that say where something begins: one longer than what they tell of."""


class Unkept(ValueError):
    """Rows that would not come back as they are."""


class _Lazy(Sequence[T]):
    """Items made by `_at(index)`; a slice is a list."""

    arrays: Arrays
    files: Sequence[str]

    def __init__(self, arrays: Arrays, files: Sequence[str]) -> None:
        self.arrays, self.files = arrays, files

    def __len__(self) -> int:
        return len(self.arrays["line"])

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self._at(i) for i in range(*index.indices(len(self)))]
        return self._at(range(len(self))[index])

    def __iter__(self) -> Iterator[T]:
        return map(self._at, range(len(self)))

    def ref(self, index: int) -> RowRef:
        return RowRef(self.files[self.arrays["file"][index]], int(self.arrays["line"][index]))

    def _at(self, index: int) -> T:
        raise NotImplementedError


class FlatRows(_Lazy[TokenRow]):
    """ids (T,) int32, weights (T,) float32; tokens (S + 1,) where segments begin, parent (S,); segments (R + 1,),
    values (R + 1,), second, alone, target (R,) bool, file, line (R,); value (V,). Of each name that rows have
    something given under: given-name, its numbers, edges-name (R + 1,), has-name (R,) bool."""

    def __init__(self, arrays: Arrays, files: Sequence[str]) -> None:
        super().__init__(arrays, files)
        self._given = [name.removeprefix("given-") for name in arrays if name.startswith("given-")]

    def _at(self, index: int) -> TokenRow:
        a = self.arrays
        segments = []
        for s in range(a["segments"][index], a["segments"][index + 1]):
            span = slice(a["tokens"][s], a["tokens"][s + 1])
            segments.append(
                Segment(a["ids"][span].astype(np.int64), a["weights"][span].copy(), int(a["parent"][s]))
            )
        value = a["value"][a["values"][index] : a["values"][index + 1]].copy() if a["target"][index] else None
        second = int(a["second"][index])
        given = {
            name: a[f"given-{name}"][a[f"edges-{name}"][index] : a[f"edges-{name}"][index + 1]].copy()
            for name in self._given
            if a[f"has-{name}"][index]
        }
        return TokenRow(
            self.ref(index),
            tuple(segments),
            value,
            None if second < 0 else second,
            bool(a["alone"][index]),
            given,
        )


def sizes(rows: Sequence[TokenRow]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(R,) tokens and (R,) supervised tokens of each row."""
    if not isinstance(rows, FlatRows):
        return np.array([r.num_tokens for r in rows], np.int64), np.array(
            [r.num_supervised for r in rows], np.int64
        )
    edges = rows.arrays["tokens"][rows.arrays["segments"]]
    supervised = np.concatenate([[0], np.cumsum(rows.arrays["weights"] > 0)])
    return np.diff(edges), np.diff(supervised[edges])


def files_of(rows: Sequence[TokenRow] | Sequence[Example]) -> Iterable[str]:
    """The files that they come from, each once."""
    return rows.files if isinstance(rows, _Lazy) else dict.fromkeys(row.ref.file for row in rows)


def refs_of(rows: Sequence[TokenRow] | Sequence[Example]) -> Iterator[RowRef]:
    """Where each comes from."""
    return map(rows.ref, range(len(rows))) if isinstance(rows, _Lazy) else (row.ref for row in rows)


def joined(parts: Sequence[Arrays]) -> dict[str, NDArray[Any]]:
    """The arrays of what follows one another."""
    out: dict[str, NDArray[Any]] = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        arrays = [part[name] if name in part else _nothing_given(name, part) for part in parts]
        if name in EDGES or name.startswith("edges-"):
            starts = np.cumsum([0, *(array[-1] for array in arrays)])
            shifted = [array[1:] + start for array, start in zip(arrays, starts[:-1], strict=True)]
            out[name] = np.concatenate([arrays[0][:1], *shifted])
        else:  # an empty one has no type of its own
            out[name] = np.concatenate([array for array in arrays if len(array)] or arrays[:1])
    return out


def taken(arrays: Arrays, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """The arrays of some rows, in this order; one may be taken more than once."""
    edges, segments = _spans(arrays["segments"], rows)
    tokens, at = _spans(arrays["tokens"], segments)
    values, value = _spans(arrays["values"], rows)
    out = {"segments": edges, "tokens": tokens, "values": values, "parent": arrays["parent"][segments]}
    out |= {"ids": arrays["ids"][at], "weights": arrays["weights"][at], "value": arrays["value"][value]}
    for name in arrays:
        if name.startswith("edges-"):
            key = f"given-{name.removeprefix('edges-')}"
            out[name], given = _spans(arrays[name], rows)
            out[key] = arrays[key][given]
    return out | {name: array[rows] for name, array in arrays.items() if name not in out}


def _spans(edges: NDArray[np.int64], which: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of items that begin at `edges`: where those that are taken begin, and the places of what they consist of."""
    counts = np.diff(edges)[which]
    new = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return new, np.arange(new[-1]) + np.repeat(edges[which] - new[:-1], counts)


def _nothing_given(name: str, part: Arrays) -> NDArray[Any]:
    """What stands for a part none of whose rows has something given under a name that other rows have."""
    count = len(part["line"])
    if name.startswith("edges-"):
        return np.zeros(count + 1, np.int64)
    return np.zeros(count if name.startswith("has-") else 0, bool)


def flat_rows(rows: Sequence[TokenRow], files: Mapping[str, int]) -> dict[str, NDArray[Any]]:
    """The arrays of `FlatRows`. Raises Unkept for targets, or numbers given under one name, of several types."""
    if isinstance(rows, FlatRows):
        return {**rows.arrays, "file": _renumbered(rows, files)}
    segments = [segment for row in rows for segment in row.segments]
    targets = [row.target for row in rows if row.target is not None]
    if len({target.dtype for target in targets}) > 1:
        raise Unkept("targets of several types")
    return _refs([row.ref for row in rows], files) | {
        "ids": _joined([s.ids for s in segments]).astype(np.int32),
        "weights": _joined([s.weights for s in segments]).astype(np.float32),
        "tokens": _edges([len(s.ids) for s in segments]),
        "parent": np.array([s.parent for s in segments], np.int32),
        "segments": _edges([len(row.segments) for row in rows]),
        "value": _joined(targets),
        "values": _edges([0 if row.target is None else len(row.target) for row in rows]),
        "target": np.array([row.target is not None for row in rows], bool),
        "second": np.array([-1 if row.second is None else row.second for row in rows], np.int64),
        "alone": np.array([row.alone for row in rows], bool),
        **_flat_given(rows),
    }


def _flat_given(rows: Sequence[TokenRow]) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for name in sorted({name for row in rows for name in row.given}):
        found = [row.given.get(name) for row in rows]
        there = [one for one in found if one is not None]
        if len({one.dtype for one in there}) > 1:
            raise Unkept(f"'{name}' of several types")
        arrays[f"given-{name}"] = _joined(there)
        arrays[f"edges-{name}"] = _edges([0 if one is None else len(one) for one in found])
        arrays[f"has-{name}"] = np.array([one is not None for one in found], bool)
    return arrays


class FlatExamples(_Lazy[Example]):
    """text: UTF-8 JSON of all rows, (R + 1,) `texts` where each begins; file, line (R,)."""

    def _at(self, index: int) -> Example:
        span = slice(self.arrays["texts"][index], self.arrays["texts"][index + 1])
        return _example(self.ref(index), self.arrays["text"][span].tobytes())


def flat_examples(
    examples: Sequence[Example], files: Mapping[str, int], sharing: Sharing | None = None
) -> dict[str, NDArray[Any]]:
    """The arrays of `FlatExamples`. Raises Unkept for a row that JSON would change (a date in a tool ...).

    sharing: how several processes share out many examples (None: by the machine's cores).
    """
    sharing = sharing or Sharing.by_cores()
    if not sharing.pays(len(examples)):
        return _flat_examples(examples, files)
    made = shared_out(
        len(examples), lambda part: (_flat_examples(examples[part.start : part.stop], files), None), sharing
    )
    return joined([arrays for arrays, _ in made])


def _flat_examples(examples: Sequence[Example], files: Mapping[str, int]) -> dict[str, NDArray[Any]]:
    texts = []
    for example in examples:
        text = _json(example)
        turns = (*example.messages, *(completion.message for completion in example.completions))
        plain = not example.tools and not any(message.extra for message in turns)
        if not plain and repr(_example(example.ref, text)) != repr(example):
            raise Unkept(f"{example.ref}: JSON would change it")
        texts.append(text)
    arrays = _refs([example.ref for example in examples], files)
    return arrays | {
        "text": np.frombuffer(b"".join(texts), np.uint8),
        "texts": _edges([len(t) for t in texts]),
    }


def _json(example: Example) -> bytes:
    completions = [[_fields(c.message), c.score] for c in example.completions]
    fields = [
        [_fields(message) for message in example.messages],
        example.tools,
        example.label,
        example.text,
        example.pair,
        example.negatives,
        completions,
        example.margin,
        example.stepwise,
    ]
    try:
        return json.dumps(fields).encode()
    except (TypeError, ValueError) as error:
        raise Unkept(f"{example.ref}: {error}") from None


def _fields(message: Message) -> list[Any]:
    return [message.role, message.content, message.weight, message.extra]


def _example(ref: RowRef, text: bytes) -> Example:
    messages, tools, label, plain, pair, negatives, completions, margin, stepwise = json.loads(text)
    return Example(
        ref,
        tuple(Message(*m) for m in messages),
        tuple(tools),
        label,
        plain,
        pair,
        tuple(negatives),
        tuple(Completion(Message(*m), score) for m, score in completions),
        margin,
        stepwise,
    )


def _renumbered(rows: FlatRows, files: Mapping[str, int]) -> NDArray[np.int32]:
    """(R,) the files' numbers by another count."""
    return np.array([files[file] for file in rows.files] or [0], np.int32)[rows.arrays["file"]]


def _refs(refs: Sequence[RowRef], files: Mapping[str, int]) -> dict[str, NDArray[Any]]:
    where = [files[ref.file] for ref in refs]
    return {"file": np.array(where, np.int32), "line": np.array([ref.line for ref in refs], np.int64)}


def _edges(lengths: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _joined(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(arrays) if arrays else np.zeros(0, np.float32)
