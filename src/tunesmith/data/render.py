"""Conversations -> token ids and loss weights. Training, evaluation, prediction and serving all ask here.

The loss mask needs no `{% generation %}` marks in the template: the conversation is rendered once as a whole,
and an assistant turn lies between template(messages[:k], add_generation_prompt=True) and
template(messages[:k + 1]). Where the prompt of a turn is not how the whole text begins (templates that strip
thinking from earlier turns), or its tokens differ, every turn gets a row of its own, made of exactly the prompt
that serving would give.

Text in a message never becomes a control token: `<|im_end|>` typed by a user is encoded as the characters it
consists of. Special tokens belong into the template. (Assistant turns may hold added tokens that are not
special, such as <think> or <tool_call>.)
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.backend import Asking, in_lockstep, one
from tunesmith.data.controls import BREAK, Controls
from tunesmith.data.cuts import CutEncoding, Encoded, cutter, encode_cut
from tunesmith.data.plans import Outline, Planner, Plans, Supervise, learned
from tunesmith.data.skeleton import Skeletons
from tunesmith.data.sources import located
from tunesmith.data.template import (
    DOCUMENT_ENDS,
    TemplateChoice,
    adds_bos,
    choose_template,
    find_ends,
    freeze_dates,
    render_text,
)
from tunesmith.data.words import Words
from tunesmith.errors import DataError, ModelError, RowError
from tunesmith.types import Example, Message, Segment, TokenRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Renderer", "Supervise", "TemplateChoice", "choose_template"]

MAX_TURNS = (
    512  # assistant turns supervised in one row; finding them takes time in the square of their number
)
MAX_TAILS, MAX_TAIL = 1024, 256
"""Ends of prompts whose tokens are remembered, and their characters: of most templates there are one or two."""


@dataclass(frozen=True, slots=True)
class _Encoded:
    """ids: token ids. starts: for each the character (of the marked text) at which it begins."""

    ids: list[int]
    starts: list[int]

    def token_at(self, char: int) -> int:
        return bisect_left(self.starts, char)


class Renderer:
    """One tokenizer with one settled template. Dates in the template are those of `now` throughout.

    end_ids: ids that end a generation, the one that ends a turn first.
    split_rows: examples so far that had to become one row for each assistant turn.
    Raises ModelError when the tokenizer lacks tokens that `template.apply_choice` would have added.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, choice: TemplateChoice, now: datetime | None = None
    ) -> None:
        missing = [token for token in choice.new_tokens if token not in tokenizer.get_vocab()]
        if missing:
            raise ModelError(
                f"the tokenizer lacks {', '.join(missing)}",
                "a tokenizer prepared by apply_choice",
                "call apply_choice(tokenizer, choice) and resize the embeddings first",
            )
        self.tokenizer, self.choice = tokenizer, choice
        self.now = now or datetime.now()
        self.template = freeze_dates(choice.text, self.now)
        self.end_ids = choice.end_ids or find_ends(tokenizer, choice.text)
        self.split_rows = 0
        self.template_hash = _hash(tokenizer, choice)
        self.starts_with_bos = adds_bos(tokenizer)
        self.document_end_id = _document_end(tokenizer, self.end_ids[0])
        self._ends = [str(tokenizer.convert_ids_to_tokens(token)) for token in self.end_ids]
        self._skeletons = Skeletons(self.template)
        self._controls = Controls(
            tokenizer, self._ends, "tool" in choice.text, lambda messages: self._text(messages, [])
        )
        added = tokenizer.added_tokens_decoder.values()
        self._cuts = [token.content for token in added if token.special and not token.normalized]
        self._cutter = cutter(tokenizer)
        self._tails: dict[str, list[int]] = {}
        self._plans = self._find_plans()

    def describe(self) -> str:
        """One printable line on the template, its end, and what a person should know."""
        ends = ", ".join(f"{text} ({token})" for text, token in zip(self._ends, self.end_ids, strict=True))
        dates = f"; dates frozen at {self.now:%Y-%m-%d}" if self.template != self.choice.text else ""
        notes = "".join(f"; {note}" for note in self.choice.notes)
        return f"{self.choice.kind} template {self.template_hash[:12]}, answers end with {ends}{dates}{notes}"

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """Ids of the conversation up to where the assistant's next turn begins.

        Raises RowError where the template refuses the conversation.
        """
        text = self._text(self._controls.messages(messages), self._controls.tools(tools), prompt=True)
        return one(in_lockstep([self._encode(text)], self.ask)).ids

    def rows(self, example: Example, supervise: Supervise) -> list[TokenRow]:
        """`rows_of` one example, whose RowError is raised."""
        return one(self.rows_of([example], supervise))

    def rows_of(self, examples: Sequence[Example], supervise: Supervise) -> list[list[TokenRow] | RowError]:
        """For each example one row, or one for each supervised assistant turn (see the module's text).

        supervise: `completion` the last assistant turn, `assistant` every one, `all` every token. Weights are
        those of the messages, else 1. A turn is supervised from its first token to its end token; plain text
        always as a whole, with a document end. RowErrors: template_refuses, template_without_tools,
        template_mismatch, no_end_token, no_supervised_tokens, special_token_text, too_many_turns.
        """
        planned = self._plans.rows(examples, supervise) if self._plans else [None] * len(examples)
        left = [example for example, row in zip(examples, planned, strict=True) if row is None]
        rendered = iter(self._rendered(left, supervise))
        return [next(rendered) if row is None else [row] for row in planned]

    def _rendered(self, examples: Sequence[Example], supervise: Supervise) -> list[list[TokenRow] | RowError]:
        return in_lockstep([self._rows(example, supervise) for example in examples], self.ask)

    def _find_plans(self) -> Plans | None:
        """None where special tokens in a text are not found, or cutting before them might change tokens."""
        if self._cutter is None or self.tokenizer.split_special_tokens:
            return None
        words = Words(self.tokenizer, around=False, typed=False)

        def encode(texts: list[str]) -> list[list[int]]:
            return [encoding.ids for encoding in words.encode(texts)]

        def outline(example: Example) -> Outline:
            messages = self._controls.messages(example.messages)
            return lambda count, prompt: self._skeletons.pieces(
                messages[:count], prompt, lambda some: self._render(some, [], prompt)
            )

        def render(example: Example, supervise: Supervise) -> list[TokenRow]:
            return one(self._rendered([example], supervise))

        planner = Planner(self._cutter, self._cuts, self._ends, lambda text: self.ask([text])[0])
        return Plans(planner, self._controls, encode, outline, render)

    def _rows(self, example: Example, supervise: Supervise) -> Asking[list[TokenRow]]:
        try:
            if example.text is not None:
                rows = yield from self._text_row(example)
            else:
                rows = yield from self._chat_rows(example, supervise)
            if not any([(s.weights > 0).any() for row in rows for s in row.segments]):
                raise RowError("no_supervised_tokens", "no token carries loss", fix="check the weights")
        except RowError as error:
            raise located(error, example.ref) from None
        return rows

    def _text_row(self, example: Example) -> Asking[list[TokenRow]]:
        encoded = yield from self._encode(self._controls.text(example.text or ""))
        begin = [int(self.tokenizer.bos_token_id)] if self.starts_with_bos else []
        ids = [*begin, *encoded.ids, self.document_end_id]
        return [_row(example, ids, np.ones(len(ids), np.float32))]

    def _chat_rows(self, example: Example, supervise: Supervise) -> Asking[list[TokenRow]]:
        messages, tools = self._controls.messages(example.messages), self._controls.tools(example.tools)
        turns = learned(example.messages, supervise)
        if len(turns) > MAX_TURNS:
            fix = "cut the conversation, or supervise only the last turn (method.supervise=completion)"
            raise RowError("too_many_turns", f"{len(turns):,} assistant turns; at most {MAX_TURNS}", fix=fix)
        whole = self._text(messages, tools)
        full = yield from self._encode(whole)
        weights = np.full(len(full.ids), 1.0 if supervise == "all" else 0.0, np.float32)
        rendered = [self._turn(messages, tools, turn, whole) for turn in turns]
        for turn, (prompt, text) in zip(turns, rendered, strict=True):
            span = yield from self._span(full, whole, prompt, text)
            if span is None:
                if supervise == "all":
                    raise RowError("template_mismatch", "weights, but the template rewrites earlier turns")
                return (yield from self._split(example, turns, rendered))
            weights[slice(*span)] = _weight(example.messages[turn])
        return [_row(example, full.ids, weights)]

    def _turn(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], turn: int, whole: str
    ) -> tuple[str, str]:
        """(the prompt of an assistant turn, the prompt and the turn up to its end token)."""
        prompt = self._text(messages[:turn], tools, prompt=True)
        text = whole if turn == len(messages) - 1 else self._text(messages[: turn + 1], tools)
        if not text.startswith(prompt):
            got = f"asks for an answer with {prompt[-60:]!r}, but does not write this turn so"
            fix = "correct it in a Jinja file and set model.template to its path"
            raise RowError("template_mismatch", f"the template {got}", fix=fix)
        for end in self._ends:
            at = text.rfind(end, len(prompt))
            if at >= 0:
                return prompt, text[: at + len(end)]
        raise RowError("no_end_token", f"the template writes this turn without {' or '.join(self._ends)}")

    def _span(self, full: Encoded, whole: str, prompt: str, text: str) -> Asking[tuple[int, int] | None]:
        """Token positions of the turn in the whole conversation, if it stands there as serving would see it."""
        if not whole.startswith(text):
            return None
        # Special tokens cut a text before it is tokenised, so what follows the last of them is all that can differ.
        at = max(0, 0, *map(prompt.rfind, self._cuts))
        known = full.token_at(at)
        tail = prompt[at:]
        ids = self._tails.get(tail)
        if ids is None:
            ids = (yield from self._encode(tail)).ids
            if len(self._tails) < MAX_TAILS and len(tail) <= MAX_TAIL:
                self._tails[tail] = ids
        start = known + len(ids)
        if full.ids[known:start] != ids:
            return None
        return start, full.token_at(len(text))

    def _split(
        self, example: Example, turns: Sequence[int], rendered: Sequence[tuple[str, str]]
    ) -> Asking[list[TokenRow]]:
        self.split_rows += 1
        rows = []
        for turn, (prompt, text) in zip(turns, rendered, strict=True):
            ids = (yield from self._encode(prompt)).ids
            answer = yield from self._after(ids, prompt, text)
            weights = np.zeros(len(ids) + len(answer), np.float32)
            weights[len(ids) :] = _weight(example.messages[turn])
            if weights.any():
                rows.append(_row(example, ids + answer, weights))
        return rows

    def _after(self, ids: list[int], prompt: str, text: str) -> Asking[list[int]]:
        """Ids of what the text has after the prompt, whose ids are given."""
        whole = (yield from self._encode(text)).ids
        if whole[: len(ids)] == ids:
            return whole[len(ids) :]
        return (yield from self._encode(text[len(prompt) :], inside=True)).ids

    def answers(self, example: Example) -> Asking[tuple[list[int], list[list[int]]]]:
        """Ids of the prompt, as `prompt_ids` gives them, and of each completion's turn up to its end token.

        To be run by `in_lockstep` with `ask`. Raises RowErrors as `rows_of` does.
        """
        prompt, tools = self._controls.messages(example.prompt), self._controls.tools(example.tools)
        ids = (yield from self._encode(self._text(prompt, tools, prompt=True))).ids
        found = []
        for answer in self._controls.messages([completion.message for completion in example.completions]):
            messages = [*prompt, answer]
            asked, text = self._turn(messages, tools, len(prompt), self._text(messages, tools))
            found.append((yield from self._after(ids, asked, text)))
        return ids, found

    def steps(self, example: Example) -> Asking[tuple[list[int], list[list[int]]]]:
        """Ids of what stands before the first step of a stepwise row's answer, and of each step.

        Each step is encoded by itself, so that its ids do not depend on what follows it; the turn's end is left out. To
        be run as `answers` is.
        """
        prompt, tools = self._controls.messages(example.prompt), self._controls.tools(example.tools)
        pieces = [
            step["content"] for step in self._controls.messages([c.message for c in example.completions])
        ]
        messages = [*prompt, {"role": "assistant", "content": "".join(pieces)}]
        asked, text = self._turn(messages, tools, len(prompt), self._text(messages, tools))
        at = text.find(pieces[0].rstrip(), len(asked))
        if at < 0:
            raise RowError("template_mismatch", "the template rewrites the beginning of the answer")
        ids = (yield from self._encode(text[:at])).ids
        found = []
        for piece in pieces:
            found.append((yield from self._encode(piece, inside=True)).ids)
        return ids, found

    def _text(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], prompt: bool = False) -> str:
        def render(messages: list[dict[str, Any]]) -> str:
            return self._render(messages, tools, prompt)

        written = None if tools else self._skeletons.write(messages, prompt, render)
        return render(messages) if written is None else written

    def _render(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], prompt: bool) -> str:
        try:
            return render_text(self.tokenizer, self.template, messages, tools, prompt=prompt)
        except DataError as error:
            raise RowError("template_refuses", error.got) from None

    def _encode(self, text: str, inside: bool = False) -> Asking[Encoded]:
        """Tokens of marked text, which already holds its special tokens: none is added.

        inside: other text precedes it (some tokenizers put a space before what begins a string).
        """
        if BREAK not in text and not inside:
            encoded: CutEncoding = yield text
            return encoded
        ids: list[int] = []
        starts: list[int] = []  # in the marked text
        at = 0
        for piece in text.split(BREAK):
            more, begins = yield from self._encode_piece(piece, inside)
            ids += more
            starts += [at + start for start in begins]
            at += len(piece) + 1
            inside = True
        return _Encoded(ids, starts)

    def _encode_piece(self, text: str, inside: bool) -> Asking[tuple[list[int], list[int]]]:
        lead = "\n" if inside else ""
        encoded = yield lead + text
        ids: list[int] = encoded.ids
        spans: list[tuple[int, int]] = encoded.offsets
        if not inside:
            return ids, [start for start, _ in spans]
        skip = next((i for i, (_, end) in enumerate(spans) if end > 1), len(spans))
        if skip < len(spans) and spans[skip][0] < 1:  # the line end has merged with the text
            return (yield from self._encode_piece(text, inside=False))
        return ids[skip:], [start - 1 for start, _ in spans[skip:]]

    def ask(self, texts: list[str]) -> list[CutEncoding]:
        """The texts' encodings, without special tokens around them."""
        typed = self.tokenizer.split_special_tokens
        return encode_cut(self.tokenizer, texts, None if typed else self._cutter, typed=typed)


def _row(example: Example, ids: Sequence[int], weights: NDArray[np.float32]) -> TokenRow:
    weights[0] = 0.0  # nothing precedes it
    return TokenRow(example.ref, (Segment(np.asarray(ids, np.int64), weights),))


def _weight(message: Message) -> float:
    return 1.0 if message.weight is None else message.weight


def _document_end(tokenizer: PreTrainedTokenizerBase, turn_end: int) -> int:
    added = tokenizer.get_added_vocab()
    known = [added[text] for text in DOCUMENT_ENDS if text in added]
    if tokenizer.eos_token_id in known or not known:
        return int(tokenizer.eos_token_id) if tokenizer.eos_token_id is not None else turn_end
    return int(known[0])


def _hash(tokenizer: PreTrainedTokenizerBase, choice: TemplateChoice) -> str:
    special = {name: str(token) for name, token in sorted(tokenizer.special_tokens_map.items())}
    return hashlib.sha256(json.dumps([choice.kind, choice.text, special]).encode("utf-8")).hexdigest()
