"""Repeated rows are found, exactly and nearly, within and across splits and in benchmarks; which one stays is fixed."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.desk.test_make import quiet, written

from tunesmith.config.desk import Desk
from tunesmith.data.shares import Sharing
from tunesmith.data.split import normalised
from tunesmith.desk import alike
from tunesmith.desk.alike import CROWD, SHINGLE, Sketches, shape_of_bands, shingles
from tunesmith.desk.make import Made, make

BANKING77 = Path(__file__).parents[3] / "shared" / "data" / "banking77"
WORDS = (
    "account address amount answer balance bank branch button call card change charge check city clerk code company "
    "contract cost country customer date delay desk device door email error evening failure family fee field file "
    "floor form friend garden glass group hour house idea invoice island job key kitchen lamp letter light line list "
    "machine market meal menu message minute money month morning mountain music name night number office order page "
    "paper parcel park part phone picture plan plate point price printer problem question reader reason receipt refund "
    "river road room rule screen service shop signal station store street summer system table team ticket time town "
    "train tree update value village voice wall water week window winter wire word work year"
).split()


def sentences(count: int, words: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choice(WORDS) for _ in range(words)) for _ in range(count)]


def jaccard(one: str, other: str) -> float:
    a, b = ({text[i : i + SHINGLE] for i in range(len(text) - SHINGLE + 1)} for text in (one, other))
    return len(a & b) / len(a | b)


def test_sketches_estimate_jaccard_similarity() -> None:
    draw = random.Random(0)
    texts: list[str] = []
    for text in sentences(60, 40, 1):
        words = text.split()
        for at in draw.sample(range(len(words)), draw.randint(0, 12)):
            words[at] = draw.choice(WORDS)
        texts += [text, " ".join(words)]
    sketches = Sketches(0.3, 256).of(texts)
    low = sketches[:, :256]
    same = (low[::2] == low[1::2]).mean(1)
    found = (same - 1 / 256) / (1 - 1 / 256)
    exact = np.array([jaccard(a, b) for a, b in zip(texts[::2], texts[1::2], strict=True)])
    error = found - exact
    assert abs(error.mean()) < 0.01
    assert np.sqrt((error**2).mean()) < 1.3 * np.sqrt(exact * (1 - exact) / 256).mean() + 0.01


def test_shingles_are_of_each_text_alone() -> None:
    texts = ["abcdefg", "", "abc", "cdefghi"]
    hashes, starts = shingles(texts)
    assert starts.tolist() == [0, 3, 4, 5, 8]
    assert hashes[2] == hashes[5], "'cdefg' is the same sequence wherever it stands"
    alone = [shingles([text])[0].tolist() for text in texts]
    assert hashes.tolist() == [one for of in alone for one in of]
    assert len(set(hashes.tolist())) == 7


def test_sketches_do_not_depend_on_the_rows_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["", *sentences(20, 12, 2), "abc", "x" * 3000, "é" * 7]
    whole = Sketches(0.8, 128).of(texts)
    monkeypatch.setattr(alike, "BLOCK", 100)
    assert np.array_equal(Sketches(0.8, 128).of(texts), whole)
    assert Sketches(0.8, 128).of([]).shape == (0, whole.shape[1])


@given(st.lists(st.text(st.sampled_from("aBİßſ é\u0301\u0327ᄀ\u1161\n\x1e\u3000"), max_size=8), max_size=4))
def test_texts_normalised_one_by_one_are_those_of_the_whole(texts: list[str]) -> None:
    assert " ".join(filter(None, map(normalised, texts))) == normalised("\n".join(texts))


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_bands_find_pairs_at_the_threshold(threshold: float) -> None:
    bands, width = shape_of_bands(threshold, 128)
    assert bands * width <= 128
    assert 1 - (1 - threshold**width) ** bands >= 0.999


def test_every_pair_of_a_band_is_met() -> None:
    rows = (
        ["the very same text of this row"] * 5 + sentences(3, 20, 2) + ["another text that stands twice"] * 2
    )
    sketches = Sketches(0.8, 64)
    found = {tuple(pair) for pairs, _ in sketches.pairs(sketches.of(rows)) for pair in pairs.tolist()}
    assert found == {(a, b) for a in range(5) for b in range(a + 1, 5)} | {(8, 9)}
    crowd = ["the very same text of this row"] * (CROWD + 20)
    joined = {b for pairs, _ in sketches.pairs(sketches.of(crowd)) for a, b in pairs.tolist() if a == 0}
    assert joined == set(range(1, CROWD + 20))


def dedup(folder: Path, train: Sequence[Any], test: Sequence[Any] = (), **settings: Any) -> Made:
    data = {"train": [written(folder, list(train), "train.jsonl")]}
    if test:
        data["test"] = [written(folder, list(test), "test.jsonl")]
    desk = Desk.model_validate({"output": str(folder / "out"), "data": data, "dedup": settings})
    return make(desk, quiet, sharing=Sharing(1))


def gone(made: Made) -> dict[tuple[str, int], list[str]]:
    assert made.version is not None
    with (made.version.folder / "changes.jsonl").open(encoding="utf-8") as file:
        entries = [json.loads(line) for line in file]
    return {(Path(one["file"]).stem, one["line"]): one["rules"] for one in entries}


def test_the_first_row_stays_and_test_rows_before_training_rows(tmp_path: Path) -> None:
    a, b, c = sentences(3, 30, 3)
    rows = [
        {"text": text, "label": label}
        for text, label in ((a, "x"), (b, "x"), (a.upper(), "x"), (b, "y"), (c, "x"))
    ]
    test = [{"text": f"{c} ", "label": "x"}, {"text": f" {c}", "label": "x"}]
    made = dedup(tmp_path, rows, test)
    assert gone(made) == {("train", 3): ["exact"], ("train", 5): ["exact_in_test"], ("test", 2): ["exact"]}


def perturbed(text: str, draw: random.Random) -> str:
    """As people write the same thing again: a typo, a word more or less, another greeting, case."""
    words = text.split()
    for _ in range(2):
        at = draw.randrange(len(words))
        way = draw.randrange(4)
        if way == 0:
            words[at] = words[at][::-1]
        elif way == 1:
            words.insert(at, draw.choice(("please", "really", "just")))
        elif way == 2:
            del words[at]
        else:
            words[at] = words[at].upper()
    return " ".join(words)


def test_planted_near_duplicates_are_found_and_others_are_not(tmp_path: Path) -> None:
    draw = random.Random(4)
    originals = sentences(1500, 60, 5)
    planted = [perturbed(draw.choice(originals), draw) for _ in range(500)]
    # Texts that share half of their words with another one are none.
    half = [
        " ".join(text.split()[:30] + sentence.split())
        for text, sentence in zip(originals, sentences(300, 30, 6), strict=False)
    ]
    texts = [*originals, *planted, *half]
    rows = [{"text": text, "label": "x"} for text in texts]
    found = {
        line - 1 for (_, line), rules in gone(dedup(tmp_path, rows)).items() if rules in (["near"], ["exact"])
    }
    wanted = set(range(1500, 2000))
    assert len(found & wanted) / len(wanted) >= 0.95, "recall"
    assert len(found & wanted) / len(found) >= 0.95, "precision"


def test_a_dropped_row_is_alike_to_one_that_stays(tmp_path: Path) -> None:
    """A chain: each text is like the next one, the ends are not like each other. Its middle may not take both along."""
    base = sentences(1, 60, 7)[0].split()
    chain = [" ".join(["new"] * shift * 3 + base[shift * 3 :]) for shift in range(4)]
    rows = [{"text": text, "label": "x"} for text in chain]
    lost = {line - 1 for _, line in gone(dedup(tmp_path, rows, near=0.75))}
    assert lost
    kept = set(range(4)) - lost
    assert all(any(jaccard(chain[one], chain[other]) > 0.65 for other in kept) for one in lost)


def test_near_duplicates_with_another_label_are_no_duplicates(tmp_path: Path) -> None:
    text = sentences(1, 40, 8)[0]
    rows = [{"text": text, "label": "x"}, {"text": f"{text} thanks", "label": "y"}]
    assert gone(dedup(tmp_path, rows)) == {}
    assert list(gone(dedup(tmp_path, rows, by="prompt")).values()) == [["near"]]


@pytest.mark.skipif(not BANKING77.is_dir(), reason=f"no {BANKING77}")
def test_leaks_planted_across_splits_of_banking77_are_all_found(tmp_path: Path) -> None:
    def read(name: str) -> list[dict[str, str]]:
        with (BANKING77 / name).open(encoding="utf-8", newline="") as file:
            return [{"text": row["text"], "label": row["category"]} for row in csv.DictReader(file)]

    draw = random.Random(9)
    train, test = read("train.csv")[:4000], read("test.csv")
    leaks = draw.sample([row for row in test if len(row["text"]) > 60], 200)
    planted = [
        *leaks[:100],
        *({**row, "text": f"  {row['text'].upper()}"} for row in leaks[100:150]),
        *({**row, "text": f"{row['text'].rstrip('?.!')} !"} for row in leaks[150:]),
    ]
    found = gone(dedup(tmp_path, [*train, *planted], test))
    lines = {
        line for (file, line), rules in found.items() if file == "train" and rules[0].endswith("_in_test")
    }
    assert {len(train) + 1 + at for at in range(200)} <= lines


def test_a_contaminated_benchmark_is_named(tmp_path: Path) -> None:
    asked = sentences(3, 30, 10)
    short = "how many legs has a spider of the garden"
    bench = tmp_path / "spiders.jsonl"
    bench.write_text(
        "".join(json.dumps({"prompt": text, "completion": "8"}) + "\n" for text in (*asked, short))
    )
    inside = " ".join(asked[1].split()[5:20])
    texts = [
        f"they wrote: {inside.upper()}, and went",
        " ".join(asked[1].split()[:12]),
        f"Tell me, {short}?",
        asked[0][:40],
    ]
    made = dedup(tmp_path, [{"text": text, "label": "x"} for text in texts], against=[str(bench)])
    assert gone(made) == {("train", 1): ["contaminated"], ("train", 3): ["contaminated"]}
    assert "spiders.jsonl" in made.as_text()


def test_rows_of_two_sets_that_are_alike_all_meet() -> None:
    """Also where one band brings so many together that within one set not all would be compared."""
    sketches = Sketches(0.8, 128)
    ours = sketches.of(
        [f"the card reader in room {n} does not start since Monday at noon" for n in range(60)]
    )
    theirs = sketches.of(
        [f"the card reader in room {n} does not start since Monday at noon" for n in range(60)]
    )
    found = {tuple(pair) for pairs, _ in sketches.between(ours, theirs) for pair in pairs.tolist()}
    same = (ours[:, None, :128] == theirs[None, :, :128]).mean(2)
    wanted = {tuple(pair) for pair in np.argwhere((same - 1 / 256) / (1 - 1 / 256) >= 0.8).tolist()}
    assert len(wanted) > 1000
    assert len(found & wanted) / len(wanted) > 0.99
    assert found <= wanted
