"""A model behind one call: logits at the loss positions of a batch, or what its head says of each row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from peft import PeftModel
from torch import Tensor, nn

from tunesmith.core.batch import Batch, PaddedBatch
from tunesmith.core.device import CPU
from tunesmith.core.frozen import FrozenStates
from tunesmith.core.heads import Head, pool, tagged
from tunesmith.core.loss import cross_entropy
from tunesmith.core.native.cache import Decode, Prefill
from tunesmith.core.native.head import fuses, linear_cross_entropy, linear_losses
from tunesmith.core.noise import EmbeddingNoise, flat_places, padded_places
from tunesmith.core.seq2seq import seq2seq_logits
from tunesmith.errors import ModelError

ROUND_TO = 64
ROUND_DECODE_TO = 8
LEAST = 8


@dataclass
class Model:
    """module: a transformers model, or a PEFT model around one. path: how rows reach it. head: None for a language
    model. start_id: what the decoder of an encoder-decoder model begins with; None for all others.

    `layout` needs the module to run under the attention of `tunesmith.core.attention`, for an architecture that
    `tunesmith.core.gate` accepted; `padded` runs on any.

    Batches are on the CPU, and so is what is said of them, but for logits and hidden states.
    """

    module: Any
    path: Literal["layout", "padded"]
    num_layers: int
    head: Head | None = None
    start_id: int | None = None
    device: torch.device = field(default=CPU, init=False)
    """Where the module is; see `to`."""
    noise: EmbeddingNoise | None = field(default=None, init=False)
    """On the token embeddings; only inside `noisy`."""
    frozen: FrozenStates | None = field(default=None, init=False)
    """What the lowest layers say of known rows, where it is kept; see `tunesmith.core.frozen`."""
    value: nn.Linear | None = field(default=None, init=False)
    """What a state is worth, in PPO; a part of the module, which trains it."""
    critic: Model | None = field(default=None, init=False)
    """Another model that says it in place of this one, with its own `value`; a part of this one's module."""
    fast_head: bool = field(default=False, init=False)
    """The family's logits are one product of the last states, `lm_head(model(...))`; see `tunesmith.models.fast`."""
    step: Callable[[Any, Tensor, Decode, int], Tensor] | None = field(default=None, init=False)
    """The backbone's states of one token of each of some rows, where that has a faster way; see
    `tunesmith.models.fast_step`."""
    together: Callable[[], AbstractContextManager[None]] = field(default=nullcontext, init=False)
    """Around layers whose kernels wait for one another; see `tunesmith.models.fast`."""
    virtual_tokens: int = field(default=0, init=False)
    """Learned tokens that PEFT puts before each row (prompt and prefix tuning)."""
    virtual_columns: int = field(default=0, init=False)
    """How many of them are columns of what the module returns: all (prompt tuning), or none (prefix tuning)."""

    def to(self, device: torch.device) -> None:
        """Move the module with all that belongs to it."""
        self.module.to(device)
        self.device = device
        if self.critic is not None:
            self.critic.device = device

    def logits(self, batch: Batch) -> Tensor:
        """(M, V) on the model's device: the head runs on loss positions only (layout), or on the columns that hold any
        (padded)."""
        batch = batch.to(self.device)
        if self.start_id is not None:
            return seq2seq_logits(self.module, batch, self.start_id)
        if self.path == "layout":
            kept = _filled(batch.predict_from)
            return self._flat(self.module, batch, logits_to_keep=kept).logits[0, : len(batch.predict_from)]  # type: ignore[no-any-return]
        padded = PaddedBatch.of(batch)
        columns, flat = _columns(padded)
        output = self._padded(self.module, batch, padded, logits_to_keep=columns + self.virtual_columns)
        return output.logits.flatten(0, 1).index_select(0, flat)  # type: ignore[no-any-return]

    def losses_and_states(self, batch: Batch, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """`token_losses`, and (M, H) the states that they were read from, on the model's device."""
        batch = batch.to(self.device)
        plain = self._plain_head() if self.fast_head and self.path == "layout" else None
        if plain is not None:
            backbone, weight = plain
            states = self._flat(backbone, batch).last_hidden_state[0].index_select(0, batch.predict_from)
            scaled = states if temperature == 1 else states / temperature
            return linear_losses(scaled, weight, batch.targets).cpu(), states
        logits, states = self._logits_and_states(batch)
        losses = cross_entropy(logits if temperature == 1 else logits / temperature, batch.targets)[0]
        return losses.cpu(), states

    def target_states(self, batch: Batch) -> Tensor:
        """(M, H) on the model's device: the states that the batch's targets are drawn from, computed without logits
        where layers are fast."""
        batch = batch.to(self.device)
        plain = self._plain_head() if self.fast_head and self.path == "layout" else None
        if plain is None:
            return self._logits_and_states(batch)[1]
        return self._flat(plain[0], batch).last_hidden_state[0].index_select(0, batch.predict_from)  # type: ignore[no-any-return]

    def _logits_and_states(self, batch: Batch) -> tuple[Tensor, Tensor]:
        with _read_by(self.module.get_output_embeddings()) as seen:
            logits = self.logits(batch)
        (read,) = seen
        if self.path == "layout":
            return logits, read[0, : len(batch.predict_from)]
        return logits, read.flatten(0, 1).index_select(0, _columns(PaddedBatch.of(batch))[1])

    def token_losses(self, batch: Batch, temperature: float = 1.0) -> Tensor:
        """(M,) the negative log-probability of each of the batch's targets under softmax(logits / temperature), in
        nats, each with its own gradient."""
        batch = batch.to(self.device)
        plain = self._plain_head() if self.fast_head and self.path == "layout" else None
        if plain is None:
            logits = self.logits(batch)
            return cross_entropy(logits if temperature == 1 else logits / temperature, batch.targets)[0].cpu()
        backbone, weight = plain
        states = self._flat(backbone, batch).last_hidden_state[0].index_select(0, batch.predict_from)
        return linear_losses(
            states if temperature == 1 else states / temperature, weight, batch.targets
        ).cpu()

    def nll(self, batch: Batch, smoothing: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
        """The weighted sum () of the losses of the batch's targets; each loss (M,) in nats and the likeliest token
        (M,), without gradient. Label smoothing as in `tunesmith.core.loss`."""
        batch = batch.to(self.device)
        plain = self._plain_head() if self.fast_head and self.path == "layout" else None
        if plain is None:
            losses, best = cross_entropy(self.logits(batch), batch.targets, smoothing)
            return (losses * batch.weights).sum().cpu(), losses.detach().cpu(), best.cpu()
        backbone, weight = plain
        states = self._flat(backbone, batch).last_hidden_state[0].index_select(0, batch.predict_from)
        total, losses, best = linear_cross_entropy(states, weight, batch.targets, batch.weights, smoothing)
        return total.cpu(), losses.cpu(), best.cpu()

    @property
    def writes_by_slots(self) -> bool:
        """Whether `next_logits` can be asked: fast layers and a plain head."""
        return self.fast_head and self.path == "layout" and self._plain_head() is not None

    def next_logits(
        self, ids: Tensor, positions: Tensor, state: Prefill | Decode, kept: Tensor | None
    ) -> Tensor:
        """ids, positions (T,) -> (K, V) on the model's device, what follows each token, or those at the indices `kept`
        (K,)."""
        ids, positions = ids.to(self.device), positions.to(self.device)
        plain = self._plain_head()
        assert plain is not None, "a model that writes by slots"
        backbone, weight = plain
        if isinstance(state, Decode) and self.step is not None:
            states = self.step(backbone, ids, state, len(ids) + -len(ids) % ROUND_DECODE_TO)
        else:
            states = self._by_layers(backbone, ids, positions, state)
        if kept is not None:
            states = states[kept]
        return state.slots.ready(weight, partial(state.slots.product, weight, None))(states)

    def _by_layers(self, backbone: Any, ids: Tensor, positions: Tensor, state: Prefill | Decode) -> Tensor:
        """(T, H)"""
        step = ROUND_TO if isinstance(state, Prefill) else ROUND_DECODE_TO
        output = backbone(
            input_ids=_filled(ids, step)[None],
            position_ids=_filled(positions, step)[None],
            attention_mask=_no_mask(self.device),
            layout=state,
            use_cache=False,
        )
        assert state.calls == self.num_layers, "every layer is a fast one"
        return output.last_hidden_state[0, : len(ids)]  # type: ignore[no-any-return]

    def outputs(self, batch: Batch) -> Tensor:
        """(R, C), (M, C) or (K, C): what the head says; see `Head.outputs`."""
        assert self.head is not None, "a model with a head"
        batch = batch.to(self.device)
        return self.head.outputs(self.states(batch), batch).cpu()

    def features(self, batch: Batch) -> Tensor:
        """(R, H), (M, H) or (K, H): the states that the head reads."""
        assert self.head is not None, "a model with a head"
        batch = batch.to(self.device)
        states = self.states(batch)
        if self.head.kind == "token":
            return states[tagged(batch)].cpu()
        pooled = pool(states, batch, self.head.pooling)
        return (pooled[batch.completions] if self.head.kind == "completion" else pooled).cpu()

    def states(self, batch: Batch) -> Tensor:
        """(T, H) on the model's device: the backbone's last hidden states."""
        assert self.head is not None, "a model with a head"
        batch = batch.to(self.device)
        more: dict[str, Any] = {}
        if self.path == "layout":
            output = self._flat(self.head.backbone, batch, **self._types(batch))
            return output.last_hidden_state[0, : batch.layout.num_tokens]  # type: ignore[no-any-return]
        padded = PaddedBatch.of(batch)
        place = (padded.row_of_token, batch.layout.positions)
        if batch.token_types is not None:
            more["token_type_ids"] = torch.zeros_like(padded.input_ids).index_put(place, batch.token_types)
            if self.virtual_tokens:
                raise ModelError(
                    "pairs of texts for a model that tells them apart by token types, with prompt or prefix tuning, "
                    "for which PEFT drops them",
                    "another tuning, such as lora, or single texts",
                )
        states = self._padded(self.head.backbone, batch, padded, **more).last_hidden_state
        return states[:, self.virtual_columns :][place]  # type: ignore[no-any-return]

    def _plain_head(self) -> tuple[Any, Tensor] | None:
        """The backbone and the head's weight, where the head is a plain layer: one that wears an adapter is not."""
        module = self.module.get_base_model() if isinstance(self.module, PeftModel) else self.module
        head = module.get_output_embeddings()
        plain = type(head) is torch.nn.Linear and "bias" not in dict(head.named_parameters())
        return (module.model, head.weight) if plain and fuses(head.weight) else None

    def frozen_states(self, frozen: FrozenStates, batch: Batch) -> Tensor:
        """(T, H): what leaves the frozen layers, computed."""
        batch = batch.to(self.device)
        module = self.module if self.head is None else self.head.backbone
        return frozen.computed(
            lambda: self._flat(module, batch, **self._types(batch)), len(batch.input_ids)
        ).cpu()

    def _types(self, batch: Batch) -> dict[str, Any]:
        return {} if batch.token_types is None else {"token_type_ids": _filled(batch.token_types)[None]}

    def _flat(self, module: Any, batch: Batch, **more: Any) -> Any:
        layout = batch.layout
        calls = layout.calls
        if self.head is None or self.head.causal:
            more["use_cache"] = False
        input_ids = _filled(batch.input_ids)[None]
        kept = self.frozen.of(batch, input_ids.shape[1]) if self.frozen is not None else None
        given = None if kept is None else kept.to(self.device)
        giving = nullcontext() if self.frozen is None else self.frozen.giving(given)
        with self._noised(batch, flat_places(layout, input_ids.shape[1])), giving, self.together():
            output = module(
                input_ids=input_ids,
                position_ids=_filled(layout.positions)[None] + (self.head.offset if self.head else 0),
                attention_mask=_no_mask(self.device),
                layout=layout,
                **more,
            )
        needed = self.num_layers - (0 if self.frozen is None or kept is None else len(self.frozen.layers))
        if layout.calls - calls != needed:
            raise ModelError(
                f"the layout reached {layout.calls - calls} of {needed} attention layers",
                "every attention layer sees the layout",
                "set model.path=padded",
            )
        return output

    def _padded(self, module: Any, batch: Batch, padded: PaddedBatch, **more: Any) -> Any:
        if self.head is None or self.head.causal:
            more["use_cache"] = False
        with self._noised(batch, padded_places(batch.layout)):
            return module(input_ids=padded.input_ids, attention_mask=padded.attention_mask, **more)

    @contextmanager
    def noisy(self, noise: EmbeddingNoise | None) -> Iterator[None]:
        """Inside, forward passes are those of training with this noise; evaluation and generation stay outside.

        Raises ModelError where there is noise and an encoder-decoder model, whose two stacks share their embeddings.
        """
        if noise is not None and self.start_id is not None:
            raise ModelError(
                "train.neftune_alpha with an encoder-decoder model",
                "a decoder, or a model with a head",
                "leave train.neftune_alpha out, or choose another model",
            )
        self.noise = noise
        try:
            yield
        finally:
            self.noise = None

    def _noised(self, batch: Batch, places: Tensor) -> AbstractContextManager[None]:
        if self.noise is None:
            return nullcontext()
        module = self.module if self.head is None else self.head.backbone
        return self.noise.on(module.get_input_embeddings(), batch, places)


@contextmanager
def _read_by(head: Any) -> Iterator[list[Tensor]]:
    """What the head is given inside."""
    seen: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    try:
        yield seen
    finally:
        handle.remove()


def _columns(padded: PaddedBatch) -> tuple[Tensor, Tensor]:
    """The columns that hold any loss position, and where each position stands among rows x columns."""
    columns, column_of = padded.column.unique(return_inverse=True)
    return columns, padded.row * len(columns) + column_of


def _filled(x: Tensor, step: int = ROUND_TO) -> Tensor:
    """(n,) -> (n rounded up,) with zeros: kernels are compiled and kept for each shape, so there should be few. Few
    tokens are rounded to a finer step, so that filler stays below a sixteenth.

    Filler tokens belong to no segment: no token sees them, and no loss position reads them.
    """
    while step > LEAST and 16 * step > len(x):
        step //= 2
    return torch.nn.functional.pad(x, (0, -len(x) % step))


def _no_mask(device: torch.device) -> Tensor:
    """An empty 4-D mask: transformers hands a 4-D mask on as it is, so no T x T mask is built."""
    return torch.empty(1, 1, 0, 0, device=device)


def token_logps(logits: Tensor, targets: Tensor) -> Tensor:
    """(M, V), (M,) -> (M,) log-probability of each target, in float32 or better."""
    return -cross_entropy(logits, targets)[0]
