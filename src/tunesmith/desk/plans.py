"""Work on chunks of rows that is planned, and carried out in as few walks over the rows as there can be.

A plan asks for one pass over the chunks after another, each of which rests on what the one before it found. Plans that
go on side by side are carried out together: a process that has the rows of a chunk does with them what all plans ask.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from tunesmith.data.shares import Made, Sharing, shared_out
from tunesmith.desk.reading import Chunk, Read
from tunesmith.desk.rows import Row

T = TypeVar("T")


class Walk(Protocol):
    """One pass over all chunks."""

    @property
    def alone(self) -> bool:
        """Whether one process must do all of it, in order."""
        ...

    def __call__(self, part: range) -> Made:
        """What is found in these chunks, which are known by their places."""
        ...


Plan = Generator[Walk, list[Made], T]
"""Asks for walks, is sent what each found, chunk by chunk, and returns what it was for."""
Carrying = Callable[[Walk], list[Made]]


def side_by_side(plans: Sequence[Plan[Any]], carrying: Carrying) -> list[Any]:
    """What each plan returns. Of plans that asked together the first is answered first, and may read chunks that a
    later one does away with."""
    results: dict[int, Any] = {}
    made: dict[int, list[Made] | None] = dict.fromkeys(range(len(plans)))
    while made:
        asked: dict[int, Walk] = {}
        for place in list(made):
            found = made.pop(place)  # here it is let go of when the plan has done with it
            try:
                asked[place] = next(plans[place]) if found is None else plans[place].send(found)
            except StopIteration as end:
                results[place] = end.value
        made = {place: carrying(walk) for place, walk in asked.items() if walk.alone}
        shared = {place: walk for place, walk in asked.items() if not walk.alone}
        if len(shared) == 1:
            made |= {place: carrying(walk) for place, walk in shared.items()}
        elif shared:
            parts = carrying(_Together(list(shared.values())))
            made |= {place: [_of(part, at) for part in parts] for at, place in enumerate(shared)}
    return [results[place] for place in range(len(plans))]


def by_processes(chunks: int, sharing: Sharing) -> Carrying:
    def carrying(walk: Walk) -> list[Made]:
        if walk.alone or chunks == 1 or sharing.processes == 1:
            return [walk(range(at, at + 1)) for at in range(chunks)]
        return shared_out(chunks, walk, Sharing(sharing.processes, least=2, part=1))

    return carrying


@dataclass(frozen=True)
class _Together:
    walks: Sequence[Walk]
    alone: bool = False

    def __call__(self, part: range) -> Made:
        made = [walk(part) for walk in self.walks]
        arrays = {f"{at}.{name}": array for at, (of, _) in enumerate(made) for name, array in of.items()}
        return arrays, [said for _, said in made]


def _of(made: Made, at: int) -> Made:
    """What the walk at this place found: taken out, so that the arrays of all rows are not held twice."""
    arrays, said = made
    assert isinstance(arrays, dict)
    names = [name for name in arrays if name.startswith(f"{at}.")]
    return {name.removeprefix(f"{at}."): arrays.pop(name) for name in names}, said[at]


@dataclass
class Once(Read):
    """Keeps the rows of the last chunk, with all that was found out of them, for the next who asks for it."""

    _last: tuple[Chunk, list[Row]] | None = None

    def rows(self, chunk: Chunk) -> Iterator[Row]:
        if self._last is None or self._last[0] != chunk:
            self._last = None
            self._last = (chunk, list(super().rows(chunk)))
        return iter(self._last[1])
