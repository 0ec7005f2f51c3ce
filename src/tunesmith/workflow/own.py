"""Learning from the model's own answers: what a run asks, what rewards it, and how it is proved.

The reward models of a recipe are opened once. Base and tuned model answer the same test prompts with the same random
numbers, a few answers each, and are compared prompt by prompt.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tunesmith.config.judged import OfSteps
from tunesmith.config.methods import Method
from tunesmith.config.policy import PolicyConfig
from tunesmith.config.rewards import ModelReward, RewardPart
from tunesmith.config.run import Run
from tunesmith.core.model import Model
from tunesmith.data.render import Renderer
from tunesmith.data.steps import lines_of
from tunesmith.errors import ConfigError
from tunesmith.evaluate.answers import Answers
from tunesmith.generate.sample import OwnSampler, Sampling
from tunesmith.objectives import completions, policy, ppo
from tunesmith.scoring.rewarded import rewarded
from tunesmith.scoring.rewards import Rewards, Scorer, build_rewards
from tunesmith.scoring.rewards.rows import prompt_text
from tunesmith.train.spent import Spent
from tunesmith.train.writing import Writer
from tunesmith.types import Completion, Example, Message, Segment, TokenRow

if TYPE_CHECKING:
    from tunesmith.workflow.open import Opened

FORMATS = ("asked", "prompt", "messages", "label")
ANSWERS = 4
"""To each test prompt, of each model."""
SLOTS = 64
"""Answers that are written at the same time."""


def with_format(run: Run) -> Run:
    """`data.format=auto` becomes prompts, whose completions are references where there are some."""
    if run.train.keep_frozen:
        raise ConfigError(
            "train.keep_frozen=true with method.type=policy, whose rows are new in every rollout",
            "rows that are seen more than once",
            "leave it out",
        )
    if run.data.format == "auto":
        run = run.model_copy(deep=True)
        run.data.format = "asked"
    elif run.data.format not in FORMATS:
        raise ConfigError(
            f"data.format={run.data.format} with method.type=policy",
            f"rows that ask: {', '.join(FORMATS)}",
            "leave data.format out, and name the column of the prompt (data.columns.prompt)",
        )
    return run


def room_for_answers(method: Method, context: int) -> int:
    """Tokens of the context that prompts leave to answers."""
    if not isinstance(method, PolicyConfig):
        return 0
    if method.max_new_tokens >= context:
        raise ConfigError(
            f"method.max_new_tokens={method.max_new_tokens}, and the model's context is {context}",
            "room for the prompts",
            "lower method.max_new_tokens",
        )
    return method.max_new_tokens


def trial_rows(rows: Sequence[TokenRow], method: PolicyConfig) -> list[TokenRow]:
    """The longest that rollouts can become: every answer as long as it may be. For the probe of memory and time."""
    count = {"raft": 1, "online_dpo": 2}.get(method.algorithm, method.samples)
    size = method.max_new_tokens
    leaf = Segment(np.full(size, 3, np.int64), np.ones(size, np.float32), 0)
    names = (policy.ADVANTAGES, policy.OLD, policy.REFERENCE, policy.WRITTEN, ppo.RETURNS, ppo.VALUES)
    given = {name: np.zeros(count * size) for name in names}
    pair = {completions.SCORES: np.arange(count, dtype=np.float64), completions.REFERENCE: np.zeros(count)}
    return [replace(row, segments=(row.segments[0], *([leaf] * count)), given=given | pair) for row in rows]


@dataclass(frozen=True)
class Asker:
    """A model that answers prompts and is rewarded. rows: of the examples that it will be asked."""

    writer: Writer
    rows: Sequence[TokenRow]
    seed: int
    count: int

    def answer(
        self,
        examples: Sequence[Example],
        shots: Sequence[Example] = (),
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Answers:
        """`scoring.rewarded` of each. The numbers that answers are drawn with depend on the seed and the row alone."""
        assert not shots, "prompts are asked as training asks them"
        by_ref = {row.ref: row for row in self.rows}
        prompts = [by_ref[e.ref] for e in examples]
        samples, scored = self.writer.rewarded(prompts, examples, self.count, self.seed, Spent())
        total = scored.total.reshape(len(examples), self.count)
        several = scored.parts if len(scored.parts) > 1 else {}
        parts = {name: values.reshape(total.shape).mean(1) for name, values in several.items()}
        lengths = [np.mean([len(one.ids) for one in of_prompt]) for of_prompt in samples]
        progress(len(examples), len(examples))
        said = [
            rewarded(
                float(r.mean()),
                float(n),
                self.writer.text(of_prompt[0]),
                {name: float(values[i]) for name, values in parts.items()},
            )
            for i, (r, n, of_prompt) in enumerate(zip(total, lengths, samples, strict=True))
        ]
        return Answers(said, [any(not one.ended for one in of_prompt) for of_prompt in samples])


def rewards_of(parts: Sequence[RewardPart], tokenizer: Any) -> Rewards:
    """What a recipe lists; reward models are opened here."""

    def count_tokens(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    return build_rewards(parts, open_reward, count_tokens)


def writer_of(run: Run, model: Model, tokenizer: Any, renderer: Renderer, rewards: Rewards) -> Writer:
    """Writes here, whoever writes the rollouts: an evaluation needs no server, and can be repeated bit for bit."""
    method = run.method
    assert isinstance(method, PolicyConfig)

    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=True)).strip()

    sampler = OwnSampler(
        model=model,
        sampling=sampling_of(method),
        max_new_tokens=method.max_new_tokens,
        end_ids=renderer.end_ids,
        pad_id=int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else renderer.end_ids[0]),
        num_slots=SLOTS,
    )
    return Writer(model, method, sampler, decode, rewards)


def sampling_of(method: PolicyConfig) -> Sampling:
    return Sampling(method.temperature, method.top_p, method.top_k)


def open_reward(part: ModelReward) -> Scorer:
    """A reward model's scores of answers, or a classifier's. Raises ConfigError where the model has none, ModelError
    where a classifier has not this class."""
    from tunesmith.workflow.open import load  # it imports what imports this file

    opened = load(part.path, threads=torch.get_num_threads())
    if part.label is not None:
        return _by_class(opened, part.label, with_prompt=part.reads == "prompt_and_answer")
    how = opened.of_steps
    if not opened.rewards:
        raise ConfigError(
            f"{part.path} is no reward model",
            "a run of method.type=reward or stepwise, or a classifier and its class as label",
            "name another folder, or write label",
        )
    if part.steps is not None and how is None:
        raise ConfigError(
            f"steps: {part.steps}, and {part.path} scores whole answers",
            "a model of steps",
            "leave steps out",
        )
    if how is not None:
        return _by_steps(opened, part.steps or how)

    def score(examples: Sequence[Example], answers: Sequence[str]) -> list[float]:
        asked = [_answered(example, text) for example, text in zip(examples, answers, strict=True)]
        said = [json.loads(text) for text in opened.answerer(1, 1).answer(asked).texts]
        return [float(value) for (value,) in said]

    return score


def _by_steps(opened: Opened, how: OfSteps) -> Scorer:
    def score(examples: Sequence[Example], answers: Sequence[str]) -> list[float]:
        lines = [lines_of(text) for text in answers]
        asked = [_in_steps(e, steps) for e, steps in zip(examples, lines, strict=True) if steps]
        said = iter(opened.answerer(1, 1).answer(asked).texts if asked else [])
        return [opened.of_answer(json.loads(next(said)), how) if steps else 0.0 for steps in lines]

    return score


def _in_steps(example: Example, steps: Sequence[str]) -> Example:
    completions = tuple(Completion(Message("assistant", text), 0.0) for text in steps)
    turns = (*example.prompt, completions[0].message)
    return replace(example, messages=turns, completions=completions, stepwise=True, margin=None)


def _by_class(opened: Opened, label: str, *, with_prompt: bool) -> Scorer:
    opened.class_number(label)  # a class that there is not is an error now, not after the first answers

    def score(examples: Sequence[Example], answers: Sequence[str]) -> list[float]:
        if with_prompt:
            answers = [f"{prompt_text(e)} {text}" for e, text in zip(examples, answers, strict=True)]
        return opened.log_odds(answers, label)

    return score


def _answered(example: Example, text: str) -> Example:
    message = Message("assistant", text)
    return replace(
        example, messages=(*example.prompt, message), completions=(Completion(message, 0.0),), margin=None
    )
