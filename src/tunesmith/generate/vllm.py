"""Answers written by a server of vLLM, which is asked over HTTP (its interface as of vLLM 0.32).

The server reads the weights from a folder, whenever they are others than those it has. An adapter is loaded under a
name made of its content, so that no other can answer a request; whole weights take the place of the server's own, under
a version made of their content, which is looked at again when the answers are there. The same content salts the
server's cache of prompts. Tokens are drawn by the server with a seed for each answer; its log-probabilities of them are
compared with the policy's own on one prompt of each call.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from tunesmith import storage
from tunesmith.config.policy import VllmConfig
from tunesmith.core.batch import Batch
from tunesmith.core.model import Model
from tunesmith.errors import ModelError, clipped
from tunesmith.generate.batched import evaluating
from tunesmith.generate.sample import Sample, Sampling, refuse
from tunesmith.models.adapters import adapter_of, kind_of
from tunesmith.models.save import fingerprint, save_weights
from tunesmith.scoring.endpoint import Caller, Failed, caller_of
from tunesmith.types import EventSink, RowRef, Segment, TokenRow

COMPARED = 4
"""Answers whose log-probabilities are compared, at most."""
GROWN = 10
"""A distance this many times that of the first rollout is told of: rounding does not grow as weights move."""
PREFIX = "weights-"
START = {
    "lora": "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 vllm serve BASE --enable-lora --max-lora-rank RANK",
    "full": "VLLM_SERVER_DEV_MODE=1 vllm serve BASE",
}
"""How a server is started that takes the weights of each tuning."""
UPDATE = {"lora": "/v1/load_lora_adapter", "full": "/collective_rpc"}


@dataclass
class VllmSampler:
    """A `Sampler` for `model`, whose weights the server is given. served: what the server calls its own model."""

    spec: VllmConfig
    caller: Caller
    model: Model
    sampling: Sampling
    max_new_tokens: int
    end_ids: Sequence[int]
    folder: Path
    served: str
    sink: EventSink
    _has: str = ""
    """The fingerprint of the weights that the server has."""
    _first_gap: float | None = None

    @property
    def tuning(self) -> str:
        return kind_of(self.model.module)

    def __call__(
        self, prompts: Sequence[Sequence[int]], count: int, seed: int, streams: Sequence[int] | None = None
    ) -> Iterator[tuple[int, int, Sample]]:
        """Raises ModelError where the server does not answer, or not as the model would."""
        seconds = self._update()
        keys = range(len(prompts)) if streams is None else streams
        with self.caller.calling(lambda text: self._read(text, count)) as call:
            bodies = [self._body(ids, count, seed, key) for ids, key in zip(prompts, keys, strict=True)]
            places = {call(self._at("/v1/completions"), body): i for i, body in enumerate(bodies)}
            for number, done in enumerate(as_completed(places)):
                place, found = places[done], done.result()
                if isinstance(found, Failed):
                    raise self._error(
                        f"wrote no answers to a prompt of {len(prompts[place])} tokens: {found.why}"
                    )
                if number == 0:
                    self._compare(prompts[place], found, seconds)
                for i, one in enumerate(found):
                    yield place, i, one
        self._still_has()

    def _body(self, ids: Sequence[int], count: int, seed: int, stream: int) -> dict[str, Any]:
        """All that decides the distribution is said: the server has defaults of its own for what is not. Answer i is
        drawn with the seed + i."""
        key = hashlib.blake2b(f"{seed} {stream}".encode(), digest_size=8).digest()
        return {
            "model": PREFIX + self._has if self.tuning == "lora" else self.served,
            "prompt": list(ids),
            "n": count,
            "seed": int.from_bytes(key) >> 2,
            "temperature": self.sampling.temperature,
            "top_p": self.sampling.top_p,
            "top_k": self.sampling.top_k or -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "max_tokens": self.max_new_tokens,
            "stop_token_ids": list(self.end_ids),
            "ignore_eos": True,
            "logprobs": 0,
            "return_token_ids": True,
            "cache_salt": self._has,
        }

    def _read(self, text: str, count: int) -> list[Sample] | Failed:
        try:
            choices = sorted(json.loads(text)["choices"], key=lambda choice: int(choice["index"]))
            found = [
                Sample(
                    ids := [int(token) for token in choice["token_ids"]],
                    ids[-1] in self.end_ids,
                    np.array(choice["logprobs"]["token_logprobs"], np.float32),
                    None,
                )
                for choice in choices
            ]
        except (ValueError, LookupError, TypeError):
            return Failed(f"got {clipped(text)}, expected choices with token_ids and logprobs.token_logprobs")
        if len(found) != count or any(len(one.ids) != len(one.logps) for one in found):
            return Failed(
                f"got {clipped(text)}, expected {count} answers with a log-probability for each token"
            )
        if not all(np.isfinite(one.logps).all() for one in found):
            return Failed("log-probabilities that are no numbers", again=False)
        vocabulary = self.model.module.get_input_embeddings().num_embeddings
        strange = [token for one in found for token in one.ids if not 0 <= token < vocabulary]
        if strange:
            return Failed(f"the token {strange[0]}, and the run's model has {vocabulary}", again=False)
        short = [len(one.ids) for one in found if not one.ended and len(one.ids) != self.max_new_tokens]
        if short:
            why = (
                f"an answer that stops after {short[0]} of {self.max_new_tokens} tokens without an end token"
            )
            return Failed(f"{why}; start the server with --generation-config vllm", again=False)
        return found

    # -- the server's weights -------------------------------------------------------------------------------

    def _update(self) -> float:
        """Give the server the weights as they are, where it has others; the seconds that it took."""
        started, now = time.monotonic(), fingerprint(self.model.module)
        if now == self._has:
            return 0.0
        path = storage.made_folder(self.folder) / (PREFIX + now)
        there = str(PurePosixPath(self.spec.folder_there or self.folder.as_posix()) / path.name)
        save_weights(self.model.module, path)
        if self.tuning == "lora":
            self._post(UPDATE["lora"], {"lora_name": path.name, "lora_path": there, "load_inplace": True})
            if self._has:  # one that the server has lost in a restart need not be taken from it
                self.caller.call(self._at("/v1/unload_lora_adapter"), {"lora_name": PREFIX + self._has})
        else:
            self._post(UPDATE["full"], {"method": "reload_weights", "kwargs": {"weights_path": there}})
            self._post("/update_weight_version", {"new_version": now})
        self._has = now
        for old in set(self.folder.glob(f"{PREFIX}*")) - {path}:
            shutil.rmtree(old)
        return time.monotonic() - started

    def _still_has(self) -> None:
        """Raises ModelError where other weights have answered: a server that starts anew has its first ones."""
        if self.tuning == "full":
            said = self._get("/weight_info").get("weight_version")
            if said != self._has:
                raise self._error(
                    f"has the weights '{said}' after the rollout, and had '{self._has}' before it",
                    "one run at a time, on a server that is not started anew meanwhile",
                    "see that no other run uses it, then go on with tunesmith resume",
                )

    def _compare(self, prompt: Sequence[int], samples: Sequence[Sample], seconds: float) -> None:
        some = samples[:COMPARED]
        root = Segment(np.array(prompt, np.int64), np.zeros(len(prompt), np.float32))
        leaves = [Segment(np.array(one.ids, np.int64), np.ones(len(one.ids), np.float32), 0) for one in some]
        batch = Batch.from_rows([TokenRow(RowRef(self.spec.url, 1), (root, *leaves))])
        with evaluating(self.model.module):
            own = -self.model.token_losses(batch, self.sampling.temperature).double().numpy()
        gap = float(np.abs(own - np.concatenate([one.logps for one in some])).mean())
        self.sink("vllm", weights=self._has, update_seconds=seconds, gap=gap)
        if self._first_gap is None:
            self._first_gap = gap
        if gap > GROWN * self._first_gap + 1e-3:
            far = f"{gap:.2g} nats from the policy's, and were {self._first_gap:.2g} at first"
            text = (
                f"the vLLM server's log-probabilities are {far}: it may not compute with all that is trained"
            )
            self.sink("warning", text=text)
        if not gap <= self.spec.max_gap:
            raise self._error(
                f"says log-probabilities of its tokens that are {gap:.3g} nats from the policy's own in the mean",
                f"at most method.vllm.max_gap={self.spec.max_gap:g}",
                "serve the run's own base (model.base); where method.temperature is not 1, with --logprobs-mode "
                "processed_logprobs; raise max_gap for a server that computes in fewer bits",
            )

    # -- asking ---------------------------------------------------------------------------------------------

    def _at(self, route: str) -> str:
        return self.spec.url.rstrip("/").removesuffix("/v1") + route

    def _post(self, route: str, body: dict[str, Any]) -> None:
        said = self.caller.call(self._at(route), body)
        if isinstance(said, Failed):
            raise self._error(f"did not take the weights ({route}): {said.why}")

    def _get(self, route: str) -> dict[str, Any]:
        said = self.caller.call(self._at(route))
        if isinstance(said, Failed):
            raise self._error(f"does not answer at {route}: {said.why}")
        try:
            found = json.loads(said)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise self._error(f"answers at {route} with {clipped(said)}", "a JSON object, as of vLLM 0.32")
        return found

    def _error(self, what: str, expected: str = "", fix: str = "") -> ModelError:
        return ModelError(
            f"the vLLM server at {self.spec.url} {what}",
            expected or f"a server started by {START[self.tuning]}",
            fix or "see to the server and its log, then start again, or go on with tunesmith resume",
        )


def connect(
    spec: VllmConfig,
    model: Model,
    sampling: Sampling,
    max_new_tokens: int,
    end_ids: Sequence[int],
    folder: Path,
    longest_prompt: int,
    sink: EventSink,
) -> VllmSampler:
    """Raises ConfigError or ModelError where the server cannot be reached, or could not write this run's answers."""
    refuse(model)
    _refuse_adapter(model)
    found = VllmSampler(
        spec, caller_of(spec, "vLLM server"), model, sampling, max_new_tokens, end_ids, folder, "", sink
    )
    match found._get("/v1/models"):
        case {"data": [{"id": str(name), "max_model_len": int(room)}, *_]}:
            found.served = name
        case other:
            raise found._error(f"lists no model as vLLM does: {clipped(str(other))}")
    if room < longest_prompt + max_new_tokens:
        raise found._error(
            f"has room for {room} tokens",
            f"{longest_prompt + max_new_tokens}: the longest prompt and method.max_new_tokens={max_new_tokens}",
            "start it with a larger --max-model-len, or lower method.max_new_tokens or data.max_length",
        )
    route = UPDATE[found.tuning]
    said = found.caller.call(found._at(route), {})  # a server that has the route refuses this as incomplete
    if isinstance(said, Failed) and said.status not in (400, 422):
        raise found._error(f"takes no weights of tuning {found.tuning} ({route}: {said.why})")
    if found.tuning == "full":
        _refuse_packed_head(found)
    version = found._get("/version").get("version")
    sink(
        "note",
        text=f"rollouts are written by vLLM {version} at {spec.url} ({found.served}). What it "
        "writes depends on its batches within rounding: a rollout that is interrupted while it is being written is "
        "written anew, with other answers; finished ones are part of checkpoints",
    )
    return found


def _refuse_packed_head(server: VllmSampler) -> None:
    """Raises ModelError where a server would go on with its first head: on a CPU vLLM 0.32 computes with a copy of it
    that new weights do not reach where the embeddings are the head too."""
    if not server.model.module.config.get_text_config().tie_word_embeddings:
        return
    match server._get("/server_info?config_format=json"):
        case {"vllm_config": {"device_config": {"device": "cpu"}}}:
            raise server._error(
                "runs on a CPU, where all weights would follow but the head's, which is tied to the embeddings",
                "tuning: lora, a server on a GPU, or a model with a head of its own",
                "write method.tuning=lora",
            )


def _refuse_adapter(model: Model) -> None:
    """Raises ModelError for what vLLM would not load, or would load without a part."""
    worn, kind = adapter_of(model.module), kind_of(model.module)
    if kind not in START:
        raise ModelError(
            f"method.vllm with tuning {kind}",
            "lora or full",
            "choose another method.tuning, or leave vllm out",
        )
    if worn is None:
        return
    config = worn.peft_config["default"].to_dict()
    parts = {
        "use_dora": "DoRA",
        "modules_to_save": "embeddings trained beside it (method.lora.train_embeddings)",
        "trainable_token_indices": "rows of the embeddings for tokens that model.template adds",
    }
    said = [words for name, words in parts.items() if config.get(name)]
    if said:
        raise ModelError(
            f"method.vllm with an adapter that has {' and '.join(said)}",
            "plain LoRA, rsLoRA, PiSSA or OLoRA, or all weights (tuning: full)",
            "leave that out, or method.vllm",
        )
