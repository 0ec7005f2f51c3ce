"""Rows of a template that writes texts whole, put together from the tokens of its pieces.

What stands around the texts depends on the roles alone (`skeleton`), and special tokens cut a text before it is
tokenised (`cuts`): so of conversations of the same roles only the pieces that hold a message's text are encoded, and
where a learned turn begins and ends is known beforehand. `render` makes the same row of any conversation; what a plan
makes of the first one of its roles is held against that.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from tunesmith.data.controls import Controls
from tunesmith.data.skeleton import Piece
from tunesmith.errors import RowError
from tunesmith.types import Example, Message, Segment, TokenRow

Supervise = Literal["completion", "assistant", "all"]
Key = tuple[Supervise, tuple[str, ...], tuple[int, ...]]
"""What is learned, the messages' roles, and those of them that are learned with a weight."""
MAX_KEPT = 1024
"""Plans that are kept."""
MAX_TURNS = 16
"""Learned turns of a plan: to make one renders the conversation up to each, and long ones are seldom alike in roles."""

Outline = Callable[[int, bool], list[Piece] | None]
"""The pieces of the first so many messages, as a prompt or not (`Skeletons.pieces`)."""


class Tokens(Protocol):
    """Of one text."""

    @property
    def ids(self) -> list[int]: ...

    @property
    def offsets(self) -> list[tuple[int, int]]: ...


class Unplanned(Exception):
    """Not all of it is fixed by the roles."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A piece that holds a message's text. gap: ids of the fixed pieces before it."""

    gap: list[int]
    before: str
    message: int
    trimmed: bool
    after: str


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn that is learned. slot: the number of the slot that holds its text. lead: ids with which that piece begins,
    and which belong to the prompt. past: tokens from the piece's end to the turn's."""

    message: int
    slot: int
    lead: list[int]
    past: int


@dataclass(frozen=True, slots=True)
class Plan:
    """last: ids of the fixed pieces behind the last slot."""

    slots: tuple[Slot, ...]
    last: list[int]
    turns: tuple[Turn, ...]

    def texts(self, messages: Sequence[Message]) -> list[str]:
        """The slots' pieces, which are to be encoded."""
        out = []
        for slot in self.slots:
            text = messages[slot.message].content
            out.append(f"{slot.before}{text.strip() if slot.trimmed else text}{slot.after}")
        return out

    def row(self, encoded: Sequence[list[int]]) -> tuple[list[int], list[tuple[int, int, int]]] | None:
        """Of the encoded pieces the conversation's ids, and (message, begin, end) of each turn; None where the tokens
        of a prompt are others when its turn follows."""
        ids: list[int] = []
        begins = []
        for slot, more in zip(self.slots, encoded, strict=True):
            ids += slot.gap
            begins.append(len(ids))
            ids += more
        ids += self.last
        spans = []
        for turn in self.turns:
            piece, begin = encoded[turn.slot], begins[turn.slot]
            if piece[: len(turn.lead)] != turn.lead:
                return None
            spans.append((turn.message, begin + len(turn.lead), begin + len(piece) + turn.past))
        return ids, spans


@dataclass(frozen=True, slots=True)
class Planner:
    """cut: finds the places before `specials` (`cuts.cutter`). ends: tokens that end a turn, the usual one first."""

    cut: re.Pattern[str]
    specials: Sequence[str]
    ends: Sequence[str]
    encode: Callable[[str], Tokens]

    def plan(self, outline: Outline, count: int, turns: Sequence[int]) -> Plan:
        """Of conversations of `count` messages, of which `turns` are learned. Raises Unplanned."""
        whole = _fixed(outline(count, False))
        if len(whole) == 1:  # no text is written
            raise Unplanned
        for before, after in zip(whole[:-1:2], whole[2::2], strict=True):
            self._check_neighbours(_text(before), _text(after))
        slots, last = self._slots(whole)
        found = []
        for turn in turns:
            text = whole if turn == count - 1 else _fixed(outline(turn + 1, False))
            found.append(self._turn(turn, whole, _fixed(outline(turn, True)), text))
        return Plan(slots, last, tuple(found))

    def _check_neighbours(self, before: str, after: str) -> None:
        """What stands around a text and the text itself, which holds no control token, must not make one together."""
        for token in {*self.specials, *self.ends}:
            for at in range(1, len(token)):
                if before.endswith(token[:at]) or after.startswith(token[at:]):
                    raise Unplanned

    def _slots(self, whole: Sequence[Piece]) -> tuple[tuple[Slot, ...], list[int]]:
        *fixed, before = self.cut.split(_text(whole[0]))
        slots = []
        for place, literal in zip(whole[1::2], whole[2::2], strict=True):
            assert not isinstance(place, str)
            gap = self._ids(fixed)
            after, *fixed = self.cut.split(_text(literal))
            slots.append(Slot(gap, before, *place, after))
            if len(slots) < len(whole) // 2:
                if not fixed:  # the next text stands in the same piece
                    raise Unplanned
                before = fixed.pop()
        return tuple(slots), self._ids(fixed)

    def _ids(self, pieces: Sequence[str]) -> list[int]:
        return [token for piece in pieces if piece for token in self.encode(piece).ids]

    def _turn(
        self, turn: int, whole: Sequence[Piece], prompt: Sequence[Piece], text: Sequence[Piece]
    ) -> Turn:
        """prompt, text: the conversation before the turn, and with it."""
        at = len(prompt) - 1  # the fixed text before the turn's
        asked, written = _text(prompt[at]), _text(whole[at]) if at < len(whole) else ""
        same = whole[:at] == list(prompt[:at]) and whole[: at + 2] == text[: at + 2] and len(text) == at + 3
        if not same or whole[at + 1] not in ((turn, False), (turn, True)) or not written.startswith(asked):
            raise Unplanned
        lead, piece = self.cut.split(asked), self.cut.split(written)
        if len(lead) != len(piece) or (at > 0 and len(lead) == 1):
            raise Unplanned
        tail = _text(text[at + 2])
        stop = self._stop(tail, written[len(asked) :])
        after = _text(whole[at + 2])
        if not after.startswith(tail[:stop]):
            raise Unplanned
        past = self._tokens_to(stop, after, is_last=at + 3 == len(whole))
        return Turn(turn, at // 2, self.encode(lead[-1]).ids if lead[-1] else [], past)

    def _stop(self, tail: str, between: str) -> int:
        """Where in the fixed text behind a turn's own the turn ends: with the last of the first of `ends` that is
        there. between: what is written of the turn before its text."""
        for end in self.ends:
            if end in tail:
                return tail.rfind(end) + len(end)
            if end in between:
                break
        raise Unplanned

    def _tokens_to(self, stop: int, after: str, is_last: bool) -> int:
        """From the end of a turn's piece to `stop`, a place in the fixed text behind the turn's text; is_last: no
        other text follows."""
        begin, *pieces = self.cut.split(after)
        at, tokens = len(begin), 0
        if stop < at:
            raise Unplanned
        for number, piece in enumerate(pieces):
            if stop == at:
                break
            if is_last or number + 1 < len(pieces):
                tokens += bisect_left([start for start, _ in self.encode(piece).offsets], stop - at)
            elif piece[: stop - at] in self.specials:  # what follows in it is another message's
                tokens += 1
            else:
                raise Unplanned
            at += len(piece)
            if stop <= at:
                break
        return tokens


class Plans:
    """Of one tokenizer and template. encode: the ids of each of many pieces. outline: see `Outline`, of an example.
    render: the rows of one example."""

    def __init__(
        self,
        planner: Planner,
        controls: Controls,
        encode: Callable[[list[str]], list[list[int]]],
        outline: Callable[[Example], Outline],
        render: Callable[[Example, Supervise], list[TokenRow]],
    ) -> None:
        self._planner, self._controls = planner, controls
        self._encode, self._outline, self._render = encode, outline, render
        self._kept: dict[Key, Plan | None] = {}

    def rows(self, examples: Sequence[Example], supervise: Supervise) -> list[TokenRow | None]:
        """Each one's row; None where it must be rendered."""
        plans = [self._plan(example, supervise) for example in examples]
        asked = [
            plan.texts(example.messages) if plan is not None else []
            for plan, example in zip(plans, examples, strict=True)
        ]
        unlike = list(dict.fromkeys([text for texts in asked for text in texts]))
        made = dict(zip(unlike, self._encode(unlike), strict=True)) if unlike else {}
        return [
            _row(example, plan, [made[text] for text in texts], supervise) if plan is not None else None
            for plan, example, texts in zip(plans, examples, asked, strict=True)
        ]

    def _plan(self, example: Example, supervise: Supervise) -> Plan | None:
        messages = example.messages
        if example.tools or not messages:
            return None
        for message in messages:
            if not message.content.strip() or not self._controls.absent(message):
                return None
        turns = learned(messages, supervise)
        if len(turns) > MAX_TURNS:
            return None
        key = (supervise, tuple([m.role for m in messages]), tuple(turns))
        if key not in self._kept and not self._settle(example, key):
            return None
        return self._kept[key]

    def _settle(self, example: Example, key: Key) -> bool:
        """Keeps a plan, or that there is none: where it would not give this example's row, as nothing is trusted that
        can be checked. False where this example, whose row must be rendered, says nothing about others."""
        supervise, roles, turns = key
        plan: Plan | None
        try:
            plan = self._planner.plan(self._outline(example), len(roles), turns)
            row = _row(example, plan, self._encode(plan.texts(example.messages)), supervise)
            if row is None:
                return False
            (rendered, *others) = self._render(example, supervise)
        except (Unplanned, RowError):
            plan = None
        else:
            plan = plan if not others and _alike(row, rendered) else None
        if len(self._kept) == MAX_KEPT:
            self._kept.clear()
        self._kept[key] = plan
        return True


def learned(messages: Sequence[Message], supervise: Supervise) -> list[int]:
    """The assistant's turns that get weights of their own."""
    turns = [i for i, message in enumerate(messages) if message.role == "assistant"]
    if supervise == "completion":
        return turns[-1:]
    return turns if supervise == "assistant" else [i for i in turns if messages[i].weight is not None]


def _row(example: Example, plan: Plan, encoded: Sequence[list[int]], supervise: Supervise) -> TokenRow | None:
    found = plan.row(encoded)
    if found is None:
        return None
    ids, spans = found
    weights = np.full(len(ids), 1.0, np.float32) if supervise == "all" else np.zeros(len(ids), np.float32)
    for message, begin, end in spans:
        weight = example.messages[message].weight
        weights[begin:end] = 1.0 if weight is None else weight
    weights[0] = 0.0  # nothing precedes it
    if not weights.any():
        return None
    return TokenRow(example.ref, (Segment(np.array(ids, np.int64), weights),))


def _alike(one: TokenRow, other: TokenRow) -> bool:
    (a,), (b,) = one.segments, other.segments
    return np.array_equal(a.ids, b.ids) and np.array_equal(a.weights, b.weights)


def _fixed(pieces: list[Piece] | None) -> list[Piece]:
    if pieces is None:
        raise Unplanned
    return pieces


def _text(piece: Piece) -> str:
    assert isinstance(piece, str)
    return piece
