"""The layout: positions, predecessors, and attention against a dense mask written out here."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import fakes
from tunesmith.core.attention import layout_attention
from tunesmith.core.batch import Batch, PaddedBatch
from tunesmith.core.layout import Layout
from tunesmith.errors import ModelError
from tunesmith.types import RowRef, Segment, TokenRow

FOREST = Layout.of([6, 5, 7, 3, 9, 1, 4], [-1, 0, 0, 1, -1, 4, 4])


class Module(torch.nn.Module):
    is_causal = True


def dense_mask(layout: Layout, window: int | None, causal: bool) -> torch.Tensor:
    """(T, T): a token sees those on its own root-to-segment path, up to itself (independent of Layout.groups)."""
    seen = torch.zeros(layout.num_tokens, layout.num_tokens, dtype=torch.bool)
    segment_of = [s for s in range(len(layout.parents)) for _ in range(layout.length(s))]
    for q, own in enumerate(segment_of):
        ancestors, s = set(), own
        while s >= 0:
            ancestors.add(s)
            s = layout.parents[s]
        for k, other in enumerate(segment_of):
            near = window is None or abs(int(layout.positions[q] - layout.positions[k])) < window
            seen[q, k] = other in ancestors and near and (k <= q or not causal)
    return seen


def flash_attention(query, key, value, query_starts, key_starts, most_queries, most_keys, **how):
    """What PyTorch's documentation says of it: (left, right) are how far before and after its own place a query sees,
    -1 all; its place is counted from the end of the keys."""
    (left, right), out = how["window_size"], torch.zeros_like(query)
    assert how.get("enable_gqa", False) == (query.shape[1] != key.shape[1])
    assert query_starts.dtype == key_starts.dtype == torch.int32
    for first, last, begin, end in zip(
        query_starts, query_starts[1:], key_starts, key_starts[1:], strict=False
    ):
        assert last - first <= most_queries
        assert end - begin <= most_keys
        place = torch.arange(last - first)[:, None] + (end - begin) - (last - first)
        gap = torch.arange(end - begin)[None] - place
        seen = (gap >= -left if left >= 0 else gap == gap) & (gap <= right if right >= 0 else gap == gap)
        for head in range(query.shape[1]):
            own = head * key.shape[1] // query.shape[1]
            scores = query[first:last, head] @ key[begin:end, own].T * how["scale"]
            out[first:last, head] = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ value[begin:end, own]
    return out


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("forest", [FOREST, Layout.of([6, 1, 9], [-1, -1, -1])], ids=["trees", "roots"])
@pytest.mark.parametrize("known", [{"window_size"}, {"window_size", "enable_gqa"}])
def test_spans_for_flash_attention_say_what_groups_say(window, causal, forest, known, monkeypatch):
    """The kernel itself is for a GPU (tests/gpu); here stands its documented formula."""
    monkeypatch.setattr("tunesmith.core.varlen.KNOWN", known)
    monkeypatch.setattr("tunesmith.core.varlen.varlen_attn", flash_attention)
    torch.manual_seed(0)
    tokens = forest.num_tokens + 3  # filler at the end
    query = torch.randn(1, 4, tokens, 8, dtype=torch.float64)
    key, value = (torch.randn(1, 2, tokens, 8, dtype=torch.float64) for _ in range(2))
    how = {"is_causal": causal, "sliding_window": window, "layout": forest}
    groups, _ = layout_attention(Module(), query, key, value, None, **how)
    monkeypatch.setattr("tunesmith.core.plain.flashes", lambda query, dropout: True)
    spans, _ = layout_attention(Module(), query, key, value, None, **how)
    assert torch.allclose(spans[:, :-3], groups[:, :-3], rtol=1e-10, atol=1e-12)
    assert not spans[:, -3:].any()


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("extra", ["plain", "softcap", "sinks"])
@pytest.mark.parametrize("short", [0, 1000], ids=["sdpa", "written out"])
def test_attention_equals_the_formula_with_a_dense_mask(window, extra, short, monkeypatch):
    monkeypatch.setattr("tunesmith.core.plain.SHORT", short)
    torch.manual_seed(0)
    heads, kv_heads, dim = 4, 2, 8
    query = torch.randn(1, heads, FOREST.num_tokens, dim, dtype=torch.float64)
    key, value = (torch.randn(1, kv_heads, FOREST.num_tokens, dim, dtype=torch.float64) for _ in range(2))
    sinks = torch.randn(heads, dtype=torch.float64) if extra == "sinks" else None
    softcap = 3.0 if extra == "softcap" else None
    out, _ = layout_attention(
        Module(), query, key, value, None, sliding_window=window, softcap=softcap, s_aux=sinks, layout=FOREST
    )
    mask = dense_mask(FOREST, window, causal=True)
    for head in range(heads):
        scores = query[0, head] @ key[0, head // 2].T / dim**0.5
        scores = softcap * torch.tanh(scores / softcap) if softcap else scores
        weights = scores.masked_fill(~mask, -torch.inf).exp()
        total = weights.sum(-1, keepdim=True) + (sinks[head].exp() if sinks is not None else 0)
        expected = weights / total @ value[0, head // 2]
        assert torch.allclose(out[0, :, head], expected, rtol=1e-10, atol=1e-12)


def test_a_bidirectional_module_sees_its_whole_document():
    layout = Layout.of([5, 3, 9], [-1, -1, -1])
    query, key, value = (torch.randn(1, 2, 17, 4, dtype=torch.float64) for _ in range(3))
    out, _ = layout_attention(Module(), query, key, value, None, is_causal=False, layout=layout)
    scores = (query[0] @ key[0].transpose(1, 2) / 2).masked_fill(~dense_mask(layout, None, False), -torch.inf)
    assert torch.allclose(out[0].transpose(0, 1), scores.softmax(-1) @ value[0], rtol=1e-10, atol=1e-12)


def test_an_unknown_keyword_raises_and_a_harmless_one_does_not():
    query = torch.randn(1, 2, 4, 4)
    layout = Layout.of([4], [-1])
    layout_attention(Module(), query, query, query, None, layout=layout, use_cache=False, position_ids=query)
    layout_attention(Module(), query, query, query, None, layout=layout, new_feature=None)
    with pytest.raises(ModelError, match="new_feature"):
        layout_attention(Module(), query, query, query, None, layout=layout, new_feature=1)


def test_rows_that_begin_alike_compute_the_beginning_once():
    rows = fakes.rows(4, begin=6)
    batch = Batch.from_rows(rows)
    assert batch.layout.num_tokens == sum(r.num_tokens for r in rows) - 3 * 6
    assert batch.layout.parents == [-1, 0, 0, 0, 0]
    assert batch.num_tokens == sum(r.num_tokens for r in rows)
    for index, row in enumerate(rows):
        path = batch.layout.path_tokens(index + 1)
        assert batch.input_ids[path].tolist() == row.segments[0].ids.tolist()
        assert batch.layout.positions[path].tolist() == list(range(row.num_tokens))
        assert (
            batch.targets[batch.row_of == index].tolist()
            == row.segments[0].ids[row.segments[0].weights > 0].tolist()
        )


def test_a_beginning_is_shared_up_to_the_first_supervised_token_and_where_it_is_worth_it():
    like = [fakes.row([5, 6, 7, 8, 9], start, i) for i, start in enumerate([3, 2, 4])]
    assert Batch.from_rows(like).layout.offsets[1] == 2
    same = [fakes.row([5, 6, 7, 8], 3, i) for i in range(3)]
    assert Batch.from_rows(same).layout.offsets[1] == 3
    assert Batch.from_rows(same[:1]).layout.parents == [-1]
    prompts = [
        TokenRow(RowRef("f", i), (Segment(np.array([4, 4, 4]), np.zeros(3, np.float32)),)) for i in range(2)
    ]
    assert Batch.from_rows(prompts).layout.offsets == [0, 2, 3, 4]
    long = [fakes.row([5, 6, *range(10 + i, 50 + i)], 20, i) for i in range(3)]
    assert Batch.from_rows(long).layout.parents == [-1, -1, -1]


def test_positions_continue_from_the_parent():
    assert FOREST.positions.tolist() == [
        *range(6),
        *range(6, 11),
        *range(6, 13),
        *range(11, 14),
        *range(9),
        9,
        *range(9, 13),
    ]
    assert FOREST.leaves() == [2, 3, 5, 6]
    assert FOREST.path_tokens(3).tolist() == [*range(11), *range(18, 21)]


def tree_row() -> TokenRow:
    def segment(ids, weights, parent=-1):
        return Segment(np.array(ids), np.array(weights, dtype=np.float32), parent)

    return TokenRow(
        RowRef("t", 1),
        (
            segment([5, 6, 7], [0, 0, 1]),
            segment([8, 9], [1, 1], 0),
            segment([10], [1], 0),
            segment([11, 12], [0, 2], 1),
        ),
    )


def test_a_batch_pairs_each_target_with_the_state_before_it():
    batch = Batch.from_rows([fakes.row([20, 21, 22], 1), tree_row()])
    # flat: 20 21 22 | 5 6 7 | 8 9 | 10 | 11 12
    assert batch.targets.tolist() == [21, 22, 7, 8, 9, 10, 12]
    assert batch.predict_from.tolist() == [0, 1, 4, 5, 6, 5, 9]
    assert batch.row_of.tolist() == [0, 0, 1, 1, 1, 1, 1]
    assert batch.segment_of.tolist() == [0, 0, 1, 2, 2, 3, 4]
    assert batch.weights.tolist() == [1, 1, 1, 1, 1, 1, 2]


def test_the_padded_batch_holds_one_root_to_leaf_row_a_completion():
    batch = Batch.from_rows([fakes.row([20, 21, 22], 1), tree_row()])
    padded = PaddedBatch.of(batch)
    assert padded.input_ids.tolist() == [
        [20, 21, 22, 0, 0, 0, 0],
        [5, 6, 7, 10, 0, 0, 0],
        [5, 6, 7, 8, 9, 11, 12],
    ]
    assert padded.attention_mask.sum(1).tolist() == [3, 4, 7]
    for m, target in enumerate(batch.targets.tolist()):
        assert padded.input_ids[padded.row[m], padded.column[m] + 1] == target


def test_the_first_token_of_a_root_cannot_be_supervised():
    with pytest.raises(AssertionError):
        Batch.from_rows([fakes.row([3, 4], 0)])


def test_turns_are_in_float32_and_made_once_a_pass() -> None:
    layout = Layout.of([2, 3], [-1, -1])
    first, other = (tuple(torch.randn(1, 5, 4).bfloat16() for _ in range(2)) for _ in range(2))
    made = layout.turns(first[0][0], first[1][0])
    assert all(torch.equal(a, b[0].float()) for a, b in zip(made, first, strict=True))
    assert layout.turns(first[0][0], first[1][0]) is made
    again = layout.turns(other[0][0], other[1][0])
    assert all(torch.equal(a, b[0].float()) for a, b in zip(again, other, strict=True))
