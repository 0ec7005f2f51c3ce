"""A model on this machine that writes synthetic rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tunesmith.config.synth import LocalWriter
from tunesmith.data.render import Renderer
from tunesmith.desk.synthetic.answers import Unanswered
from tunesmith.errors import ModelError
from tunesmith.generate.sample import Sampling, sample
from tunesmith.models.files import locate
from tunesmith.types import Message
from tunesmith.workflow.open import Opened, load

SLOTS = 32
"""Replies that are written at the same time."""


@dataclass(frozen=True)
class ByModel:
    """seed: with the key of a question it decides what is drawn."""

    spec: LocalWriter
    seed: int

    @property
    def name(self) -> str:
        return self.spec.path

    @cached_property
    def settings(self) -> str:
        """With the files of the model: other weights reply otherwise."""
        folder = Path(locate(self.spec.path))
        files = [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in sorted(folder.iterdir())]
        return json.dumps([self.spec.model_dump(), self.seed, files], sort_keys=True)

    @cached_property
    def opened(self) -> Opened:
        opened = load(self.spec.path)
        if not isinstance(opened.renderer, Renderer):
            raise ModelError(
                f"{self.spec.path} has a head, or is an encoder-decoder model: it writes no replies to questions",
                "a decoder (local.path)",
                "name another",
            )
        return opened

    def write(self, questions: Sequence[str], keys: Sequence[str]) -> Iterator[tuple[int, str | Unanswered]]:
        opened, spec = self.opened, self.spec
        assert isinstance(opened.renderer, Renderer)
        prompts = [opened.renderer.prompt_ids([Message("user", text)]) for text in questions]
        room = opened.context - spec.max_new_tokens
        fitting = [place for place, ids in enumerate(prompts) if len(ids) <= room]
        for place in sorted(set(range(len(prompts))) - set(fitting)):
            yield (
                place,
                Unanswered(
                    f"a question of {len(prompts[place]):,} tokens, and the model has room for {max(room, 0):,} "
                    f"beside a reply of {spec.max_new_tokens:,}: show fewer or shorter seeds"
                ),
            )
        drawn = sample(
            opened.loaded.model,
            [prompts[place] for place in fitting],
            count=1,
            sampling=Sampling(spec.temperature, spec.top_p, spec.top_k),
            seed=self.seed,
            max_new_tokens=spec.max_new_tokens,
            end_ids=opened.renderer.end_ids,
            pad_id=opened.loaded.tokenizer.pad_token_id,
            num_slots=SLOTS,
            streams=[int(keys[place][:16], 16) for place in fitting],
        )
        for at, _, one in drawn:
            yield fitting[at], opened.loaded.tokenizer.decode(one.ids, skip_special_tokens=True).strip()
