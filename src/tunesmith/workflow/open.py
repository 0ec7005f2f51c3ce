"""A finished run, a model folder or an adapter, opened for answering."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tunesmith.config.machine import cpu_has_bf16, physical_cores
from tunesmith.config.run import ModelConfig
from tunesmith.data.render import Renderer
from tunesmith.data.template import choose_template
from tunesmith.errors import ModelError
from tunesmith.evaluate.answers import Answerer
from tunesmith.models.load import Loaded, load_model
from tunesmith.train.build import with_template
from tunesmith.types import Example, Message, RowRef


@dataclass
class Opened:
    """A model that answers. instruction: the text that its training rows began with, if any."""

    loaded: Loaded
    renderer: Renderer
    context: int
    instruction: str | None

    def answerer(self, max_new_tokens: int, batch_size: int) -> Answerer:
        return Answerer(
            self.loaded.model, self.loaded.tokenizer, self.renderer, max_new_tokens, batch_size, self.context
        )

    def predict(
        self,
        inputs: Iterable[str | Sequence[Mapping[str, str]]],
        *,
        max_new_tokens: int = 256,
        batch_size: int = 32,
    ) -> Iterator[str]:
        """An answer for each input, in order, as batches finish: a text (one user turn, after the instruction the
        model was trained with), or a conversation as messages with `role` and `content`."""
        examples = (self._example(value, index) for index, value in enumerate(inputs))
        answerer = self.answerer(max_new_tokens, batch_size)
        while chunk := list(itertools.islice(examples, batch_size)):
            yield from answerer.answer(chunk)[0]

    def _example(self, value: str | Sequence[Mapping[str, str]], index: int) -> Example:
        if isinstance(value, str):
            text = f"{self.instruction}\n\n{value}" if self.instruction else value
            messages = [Message("user", text)]
        else:
            messages = [Message(m["role"], m["content"]) for m in value]
        return Example(RowRef("input", index + 1), tuple(messages))


def load(model: str | Path, *, dtype: str = "auto", threads: int | None = None) -> Opened:
    """Open a run's folder, a model, an adapter or a hub id for `predict`.

    dtype `auto` keeps the weights' own numbers, or float32 where the processor would emulate bfloat16.
    Raises ModelError where the template is not the one that the model was trained with.
    """
    torch.set_num_threads(threads or physical_cores())
    config = ModelConfig.model_validate({"base": str(model), "dtype": dtype})
    loaded = load_model(config)
    if dtype == "auto" and loaded.model.module.dtype == torch.bfloat16 and not cpu_has_bf16():
        loaded.model.module.float()
    with_template(loaded, "auto")
    choice = choose_template(loaded.tokenizer, "auto")
    renderer = Renderer(loaded.tokenizer, choice)
    manifest = loaded.manifest
    if manifest is not None and manifest.template_hash != renderer.template_hash:
        raise ModelError(
            f"the chat template of {model} is not the one it was trained with",
            f"template hash {manifest.template_hash[:12]}, got {renderer.template_hash[:12]}",
            "put the tokenizer files of the run's model/ folder back",
        )
    context = int(loaded.model.module.config.get_text_config().max_position_embeddings)
    return Opened(loaded, renderer, context, manifest.instruction if manifest else None)
