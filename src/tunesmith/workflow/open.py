"""A finished run, a model folder or an adapter, opened for answering."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch

from tunesmith.config.judged import OfSteps
from tunesmith.config.machine import physical_cores
from tunesmith.config.run import DataConfig, ModelConfig
from tunesmith.core.device import choose, has_bf16
from tunesmith.data.backend import one
from tunesmith.data.encode import HeadEncoder
from tunesmith.data.pairs import PairEncoder
from tunesmith.data.render import Renderer
from tunesmith.data.steps import steps_of
from tunesmith.data.template import Kind, choose_template
from tunesmith.data.traffic import Answering
from tunesmith.data.trees import trees_of
from tunesmith.errors import ModelError, near_miss
from tunesmith.evaluate.answers import Answerer, Answers
from tunesmith.evaluate.heads import HeadAnswerer
from tunesmith.evaluate.judge import RewardJudge, score_judge
from tunesmith.evaluate.retriever import Retriever
from tunesmith.models.files import Manifest, locate
from tunesmith.models.load import Loaded, load_model
from tunesmith.train.build import with_template, writes_after_prompt
from tunesmith.types import Completion, Example, Message, RowRef, TokenRow
from tunesmith.workflow.heads import AnyEncoder, context_of, encoder_of


@dataclass
class Opened:
    """A model that answers. instruction: the text that its training rows began with, if any."""

    loaded: Loaded
    renderer: AnyEncoder
    context: int
    instruction: str | None

    @property
    def embeds(self) -> bool:
        return self.loaded.head is not None and self.loaded.head.method == "embed"

    @property
    def trained_on(self) -> DataConfig:
        """The format and the columns of the rows that the model was trained on, as far as they are known."""
        manifest = self.loaded.manifest
        if manifest is None:
            return DataConfig()
        known = ("format", "columns", "message_keys", "roles")
        return DataConfig.model_validate({name: getattr(manifest, name) for name in known})

    @property
    def rewards(self) -> bool:
        """It scores answers, and is asked with rows that have some."""
        return self.loaded.head is not None and self.loaded.head.method == "reward"

    @property
    def of_steps(self) -> OfSteps | None:
        """Where it scores the steps of an answer: how they make a score of the answer."""
        return self.loaded.head.steps if self.loaded.head is not None else None

    def token_rows(self, examples: Sequence[Example]) -> list[TokenRow]:
        """Of answers to be scored, cut to the context. Raises RowError for one that cannot be."""
        if isinstance(self.renderer, Renderer):
            made = trees_of(self.renderer, examples, self.context)
        else:
            assert isinstance(self.renderer, HeadEncoder)
            made = self.renderer.rows_of(examples, self.context)
        return [one([row]) for row in made]

    def answerer(self, max_new_tokens: int, batch_size: int) -> Answerer | HeadAnswerer | RewardJudge:
        """An answer takes at most half of the context, as in the proof of a run; a head writes none."""
        if self.rewards:
            assert self.loaded.head is not None
            return score_judge(self.loaded.model, self.token_rows, self.loaded.head)
        if isinstance(self.renderer, HeadEncoder):
            assert self.loaded.head is not None
            if self.embeds:
                return Retriever(self.loaded.model, self.renderer, self.context)
            return HeadAnswerer(
                self.loaded.model, self.renderer, self.context, self.loaded.head.abstain_below
            )
        return Answerer(
            model=self.loaded.model,
            tokenizer=self.loaded.tokenizer,
            prompter=self.renderer,
            max_new_tokens=min(max_new_tokens, self.context // 2),
            batch_size=batch_size,
            context=self.context,
        )

    def predict(
        self,
        inputs: Iterable[str | Sequence[Mapping[str, str]]],
        *,
        max_new_tokens: int = 256,
        batch_size: int = 32,
    ) -> Iterator[str]:
        """An answer for each input, in order, as batches finish: a text (one user turn, after the instruction the
        model was trained with), or a conversation as messages with `role` and `content`. Of a model that embeds,
        the JSON list of each vector."""
        if self.rewards:
            raise ModelError(
                f"{self.loaded.base} is a reward model: it scores answers and writes none",
                "a model that answers",
                "ask it with score(prompt, answers), or tunesmith predict on rows with answers",
            )
        examples = (self._example(value, index) for index, value in enumerate(inputs))
        answerer = self.answerer(max_new_tokens, batch_size)
        while chunk := list(itertools.islice(examples, batch_size)):
            yield from answerer.answer(chunk).texts

    def score(self, prompt: str | Sequence[Mapping[str, str]], completions: Sequence[str]) -> list[float]:
        """Of a reward model: a number for each answer to the prompt, higher for better (of a model that learned from
        ratings in their unit). Of a model of steps the completions are the steps of one answer: for each how likely it
        is right. Raises ModelError for any other model, and where a step does not fit the model's context."""
        if not self.rewards:
            raise ModelError(
                f"{self.loaded.base} does not score answers",
                "a reward model",
                "train with method.type=reward",
            )
        asked = self._example(prompt, 0).prompt
        steps = self.of_steps is not None
        texts = steps_of(completions) if steps else completions
        answers = tuple(Completion(Message("assistant", text), 0.0) for text in texts)
        example = Example(
            RowRef("input", 1), (*asked, answers[0].message), completions=answers, stepwise=steps
        )
        judge = self.answerer(1, 1)
        return _known(json.loads(judge.answer([example]).texts[0]))

    def of_answer(self, steps: Sequence[float | None], how: OfSteps) -> float:
        """One number of the probabilities of its steps. Raises ModelError where a step does not fit the context."""
        found = score_of_answer(_known(steps), how)
        assert found is not None
        return found

    def class_number(self, label: str) -> int:
        """Of a classifier: which of its outputs is this class. Raises ModelError for any other model or class."""
        head = self.loaded.head
        if head is None or head.method != "classify":
            raise ModelError(
                f"{self.loaded.base} is no classifier", "classes", "train with method.type=classify"
            )
        if label not in head.labels:
            raise ModelError(f"{self.loaded.base} has no class '{label}'", near_miss(label, head.labels))
        return head.labels.index(label)

    def log_odds(self, texts: Sequence[str], label: str) -> list[float]:
        """Of a classifier: of each text log(p / (1 - p)), p the probability of the class. An empty text is read as
        a space, for a decoder has no token of it. Raises ModelError for any other model or class."""
        number = self.class_number(label)
        answerer = self.answerer(1, 1)
        assert isinstance(answerer, HeadAnswerer)
        return answerer.log_odds([self._example(text or " ", i) for i, text in enumerate(texts)], number)

    def record(self, answers: Answers, index: int) -> dict[str, Any]:
        """An answer as `predict` writes it: a text and whether it ended, an embedding, or what a head says and how sure
        it is (null where it abstains)."""
        text = answers.texts[index]
        if self.of_steps is not None:
            said = json.loads(text)
            return {"steps": said, "score": score_of_answer(said, self.of_steps)}
        if self.rewards:
            return {"scores": json.loads(text)}
        if self.loaded.head is None:
            return {"answer": text, "ended": not answers.cut[index]}
        if self.embeds:
            return {"embedding": json.loads(text)}
        plain = self.loaded.head.method == "classify" and not self.loaded.head.multi_label
        said = (text or None) if plain else json.loads(text)
        sure = {} if answers.confidence is None else {"confidence": round(answers.confidence[index], 6)}
        return {"answer": said, **sure}

    @cached_property
    def weights(self) -> str:
        """16 hexadecimal digits that tell versions of a model apart: of its weight files' hashes."""
        manifest = self.loaded.manifest
        hashes = sorted(manifest.files.values()) if manifest else [self.loaded.base_hash]
        return hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]

    def logged(
        self, name: str, example: Example, record: Mapping[str, Any], max_new_tokens: int
    ) -> dict[str, Any]:
        """A row of the log of traffic: an example with its answer as `record` has it. name: of this model."""
        head, said = self.loaded.head, record["answer"]
        who = Answering(name, self.weights)
        if head is None:
            return who.written(example, said, whole=record["ended"], limit=max_new_tokens)
        if head.method == "regress":
            parts = dict(zip(head.labels, said if len(head.labels) > 1 else [said], strict=True))
        else:
            parts = {"spans" if head.method == "tag" else "label": said}
        return who.judged(example, parts, record.get("confidence"))

    def _example(self, value: str | Sequence[Mapping[str, str]], index: int) -> Example:
        if isinstance(value, str):
            text = f"{self.instruction}\n\n{value}" if self.instruction else value
            messages = [Message("user", text)]
        else:
            messages = [Message(m["role"], m["content"]) for m in value]
        return unanswered(Example(RowRef("input", index + 1), tuple(messages)))


def _known(steps: Sequence[float | None]) -> list[float]:
    known = [step for step in steps if step is not None]
    if len(known) < len(steps):
        got = f"{len(steps) - len(known)} of {len(steps)} steps are beyond the model's context"
        raise ModelError(got, "a shorter answer")
    return known


def score_of_answer(steps: Sequence[float | None], how: OfSteps) -> float | None:
    """One number of an answer's steps: of the least likely one, the product of all, or the last; None where a step
    has none."""
    known = [step for step in steps if step is not None]
    if len(known) < len(steps):
        return None
    if how == "last":
        return known[-1]
    return min(known) if how == "min" else math.prod(known)


def unanswered(example: Example) -> Example:
    """With an empty answer at its end: the prompt of an example ends where its last assistant turn begins, and an
    earlier turn is not the one that is asked for."""
    return replace(example, messages=(*example.messages, Message("assistant", "")))


def load(
    model: str | Path, *, dtype: str = "auto", threads: int | None = None, device: str = "auto"
) -> Opened:
    """Open a run's folder, a model, an adapter or a hub id for `predict`.

    dtype `auto`: the numbers that a run trained the model in, else the weights' own; float32 where the device would
    emulate bfloat16. device: as `model.device`.
    Raises ModelError where the template is not the one that the model was trained with.
    """
    torch.set_num_threads(threads or physical_cores())
    device = str(choose(device))
    known = Manifest.read(locate(str(model)), verify=False)  # `load_model` verifies
    own = known.dtype if known and dtype == "auto" else dtype
    config = ModelConfig.model_validate({"base": str(model), "dtype": own, "device": device})
    loaded = load_model(config)
    emulated = loaded.model.module.dtype == torch.bfloat16 and not has_bf16(loaded.model.device)
    if dtype == "auto" and emulated:
        loaded.model.module.float()
    context = context_of(loaded.model.module.config, loaded.tokenizer, loaded.model.virtual_tokens)
    renders = writes_after_prompt(loaded)
    if loaded.head is not None and not renders:
        manifest = loaded.manifest
        encoder = encoder_of(loaded.head, loaded.tokenizer)
        return Opened(loaded, encoder, context, manifest.instruction if manifest else None)
    if not renders:
        pairs = PairEncoder(loaded.tokenizer, context)
        return Opened(loaded, pairs, context, loaded.manifest.instruction if loaded.manifest else None)
    with_template(loaded, "auto")
    choice = choose_template(loaded.tokenizer, "auto")
    manifest = loaded.manifest
    if manifest is not None and manifest.template:
        # A saved tokenizer carries any template as its own; the manifest knows what kind it was.
        choice = replace(choice, kind=cast(Kind, manifest.template))
    renderer = Renderer(loaded.tokenizer, choice)
    if manifest is not None and manifest.template and manifest.template_hash != renderer.template_hash:
        raise ModelError(
            f"the chat template of {model} is not the one it was trained with",
            f"template hash {manifest.template_hash[:12]}, got {renderer.template_hash[:12]}",
            "put the tokenizer files of the run's model/ folder back",
        )
    return Opened(loaded, renderer, context, manifest.instruction if manifest else None)
