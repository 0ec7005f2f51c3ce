"""Running a model on rows: its answers, its losses on the reference answers, its choice among labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.device import pass_tokens
from tunesmith.core.model import Model
from tunesmith.evaluate.report import Losses
from tunesmith.generate.batched import generate, label_logps, nll
from tunesmith.types import Example, Message, TokenRow


@dataclass(frozen=True)
class Answers:
    """What a model says of N rows. cut: whether each was cut off at max_new_tokens. probabilities: (N, C) of
    a head's classes, in the order of its labels; confidence: N, of each answer."""

    texts: list[str]
    cut: list[bool]
    probabilities: NDArray[np.float64] | None = None
    confidence: list[float] | None = None


class Prompter(Protocol):
    """What evaluation needs of a renderer: the very prompt ids that training and serving make."""

    @property
    def end_ids(self) -> Sequence[int]: ...

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> list[int]: ...


@dataclass(frozen=True)
class Answerer:
    """A model with its tokenizer and prompts. context: tokens that fit, prompt and answer together."""

    model: Model
    tokenizer: Any
    prompter: Prompter
    max_new_tokens: int
    batch_size: int
    context: int

    def prompt(self, example: Example, shots: Sequence[Example] = ()) -> list[int]:
        """Prompt ids, with worked examples before it; as many of the shots as fit are kept, and of a prompt
        that alone is too long its end."""
        room = self.context - self.max_new_tokens
        for count in range(len(shots), -1, -1):
            ids = self.prompter.prompt_ids(with_shots(example, shots[:count]), example.tools)
            if len(ids) <= room:
                return ids
        return ids[-room:]

    def answer(
        self,
        examples: Sequence[Example],
        shots: Sequence[Example] = (),
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Answers:
        """In the order of the examples."""
        prompts = [self.prompt(e, shots) for e in examples]
        texts, cut = [""] * len(prompts), [False] * len(prompts)
        stream = generate(
            self.model,
            prompts,
            max_new_tokens=self.max_new_tokens,
            end_ids=self.prompter.end_ids,
            pad_id=self.tokenizer.pad_token_id,
            batch_size=self.batch_size,
        )
        for done, (index, out) in enumerate(stream, 1):
            texts[index] = self.tokenizer.decode(out.ids, skip_special_tokens=True).strip()
            cut[index] = not out.ended
            progress(done, len(prompts))
        return Answers(texts, cut)

    def losses(self, rows: Sequence[TokenRow]) -> Losses:
        """Of the supervised tokens of each row."""
        totals, _ = nll(self.model, rows, pass_tokens(self.model.device))
        return Losses(totals, np.array([r.num_supervised for r in rows]))

    def mean_loss(self, rows: Sequence[TokenRow]) -> float:
        """Nats a supervised token, weighted as in training."""
        totals, weights = nll(self.model, rows, pass_tokens(self.model.device))
        return float(totals.sum() / weights.sum())

    def choose(self, examples: Sequence[Example], labels: Sequence[str]) -> list[str]:
        """The label of highest likelihood (its tokens and the end token) after each prompt."""
        ids = [
            [*self.tokenizer(label, add_special_tokens=False)["input_ids"], self.prompter.end_ids[0]]
            for label in labels
        ]
        scores = label_logps(
            self.model, [self.prompt(e) for e in examples], ids, pass_tokens(self.model.device)
        )
        return [labels[i] for i in scores.argmax(1)]


def with_shots(example: Example, shots: Sequence[Example]) -> tuple[Message, ...]:
    """The prompt's messages with whole worked conversations put after its system message."""
    prompt = example.prompt
    head = tuple(m for m in prompt[:1] if m.role == "system")
    worked = [
        m for shot in shots for m in (*shot.prompt, Message("assistant", shot.answer)) if m.role != "system"
    ]
    return (*head, *worked, *prompt[len(head) :])


def pick_shots(train: Sequence[Example], count: int, seed: int) -> list[Example]:
    """A seeded choice of short training examples with answers unlike one another."""
    order = np.random.default_rng((seed, 1)).permutation(len(train))
    pool = sorted((train[i] for i in order[:200]), key=lambda e: sum(len(m.content) for m in e.messages))
    chosen: list[Example] = []
    for example in pool[: max(50, count)]:
        if len(chosen) < count and example.answer not in {c.answer for c in chosen}:
            chosen.append(example)
    return chosen
