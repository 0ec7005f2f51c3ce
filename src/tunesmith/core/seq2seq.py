"""Encoder-decoder models: the prompt goes to the encoder, each completion to the decoder.

A row is the same tree as everywhere: its root is the source, its children are targets. The source is encoded once
for all of its targets. Shapes: R sources of S tokens, K targets of L tokens, M loss positions, V words.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.modeling_outputs import BaseModelOutput

from tunesmith.core.batch import Batch


def seq2seq_logits(module: Any, batch: Batch, start_id: int) -> Tensor:
    """(M, V): every target's tokens from those before it, the first from `start_id` (teacher forcing)."""
    layout = batch.layout
    leaves = layout.leaves()
    roots = [s for s, parent in enumerate(layout.parents) if parent < 0]
    row_of = {root: row for row, root in enumerate(roots)}
    assert all(layout.parents[leaf] in row_of for leaf in leaves), "a source and its targets"
    sources = [_tokens(batch, root) for root in roots]
    source_ids, source_mask = _padded(sources)
    encoded = module.get_encoder()(input_ids=source_ids, attention_mask=source_mask).last_hidden_state
    device = layout.device
    of_leaf = torch.tensor([row_of[layout.parents[leaf]] for leaf in leaves], device=device)
    start = torch.tensor([start_id], device=device)
    target_ids, target_mask = _padded([torch.cat([start, _tokens(batch, leaf)[:-1]]) for leaf in leaves])
    output = module(
        encoder_outputs=BaseModelOutput(last_hidden_state=encoded.index_select(0, of_leaf)),
        attention_mask=source_mask.index_select(0, of_leaf),
        decoder_input_ids=target_ids,
        decoder_attention_mask=target_mask,
        use_cache=False,
    )
    place = torch.empty(len(layout.parents), dtype=torch.long)
    place[torch.tensor(leaves)] = torch.arange(len(leaves))
    depth = torch.tensor(layout.depth, device=device)[batch.segment_of]
    column = layout.positions[batch.predict_from] + 1 - depth
    return output.logits[place.to(device)[batch.segment_of], column]  # type: ignore[no-any-return]


def _tokens(batch: Batch, segment: int) -> Tensor:
    return batch.input_ids[batch.layout.offsets[segment] : batch.layout.offsets[segment + 1]]


def _padded(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """ids and mask, padded on the right; padding is masked, so any id will do."""
    ids = pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, (torch.arange(ids.shape[1])[None] < lengths[:, None]).long().to(ids.device)
