"""Judged rows as every tool writes them: what they are read as, and the reason of each that cannot be used."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.data.judged_spellings import SPELLINGS, TALK, WORSE
from tests.data.spellings import ANSWER, TOOL, USER, A, U
from tunesmith import embedded
from tunesmith.config.run import DataConfig
from tunesmith.data.account import Account
from tunesmith.data.inputs import input_mapping, scored_mapping, to_prompt, to_scored
from tunesmith.data.load import load_splits, read_examples
from tunesmith.errors import DataError
from tunesmith.types import Completion, Example, Message, RowRef


def jsonl(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(path: str, **config: Any) -> tuple[list[Example], Any, Account]:
    account = Account("skip")
    examples, mappings = read_examples([path], DataConfig(**{"format": "judged"} | config), account)
    return examples, mappings[path], account


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_spelling_is_read_as_what_it_means(tmp_path: Path, name: str) -> None:
    row, config, kind, prompt, judged, margin = SPELLINGS[name]
    path = jsonl(tmp_path, [row])
    for format in ("judged", kind):
        (example,), mapping, _ = read(path, format=format, **config)
        assert (mapping.kind, example.prompt, example.margin) == (kind, prompt, margin)
        assert said(example) == list(judged.items())
        assert example.answer == max(judged, key=judged.__getitem__)
        assert example.tools == ((TOOL,) if "tools" in row.get("input", row) else ())


def said(example: Example) -> list[tuple[str, float]]:
    assert all(c.message == Message("assistant", c.message.content) for c in example.completions)
    return [(c.message.content, c.score) for c in example.completions]


def test_the_mapping_says_where_the_margin_comes_from(tmp_path: Path) -> None:
    row = {"prompt": "Q", "chosen": "A", "rejected": "B", "chosen_score": 3, "rejected_score": 1}
    _, mapping, _ = read(jsonl(tmp_path, [row]))
    assert mapping.describe() == (
        "preference rows: prompt = prompt, chosen = chosen, rejected = rejected, margin = chosen_score - rejected_score"
    )
    (example,), mapping, _ = read(jsonl(tmp_path, [row | {"margin": 7}]))
    assert mapping.describe().endswith("rejected = rejected, margin = margin")
    assert example.margin == 7
    with pytest.raises(DataError, match="no margin comes of it"):
        read(jsonl(tmp_path, [row]), columns={"score_chosen": "chosen_score", "margin": "rejected_score"})


@pytest.mark.parametrize(
    ("value", "score"),
    [(True, 1), (False, 0), (1, 1), (0, 0), (1.0, 1), ("True", 1), ("no", 0), ("Good", 1), ("bad", 0), ("0", 0),
     (" yes ", 1)],
)  # fmt: skip
def test_verdicts(tmp_path: Path, value: object, score: float) -> None:
    (example,), _, _ = read(jsonl(tmp_path, [{"prompt": "Q", "completion": "A", "label": value}]))
    assert example.completions == (Completion(A, score),)


PAIR: dict[str, Any] = {"prompt": "Q", "chosen": "A", "rejected": "B"}
RANKING: dict[str, Any] = {"prompt": "Q", "completions": ["A", "B"], "ranks": [1, 2]}
VERDICT: dict[str, Any] = {"prompt": "Q", "completion": "A", "label": True}
RATING: dict[str, Any] = {"prompt": "Q", "completion": "A", "rating": 3}
IMPLICIT = {"chosen": [USER, ANSWER], "rejected": [USER, WORSE]}
OTHER = {"role": "user", "content": "Q "}
BARE: dict[str, Any] = {"prompt": "Q", "completions": [{"text": "A", "score": 1}, {"text": "B", "score": 2}]}

# a row that can be used, what is changed in it, the reason
REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (PAIR, {"rejected": "A"}, "chosen_is_rejected"),
    (PAIR, {"rejected": ["B", "A"]}, "chosen_is_rejected"),
    (PAIR, {"rejected": None}, "nothing_rejected"),
    (PAIR, {"rejected": ""}, "nothing_rejected"),
    (PAIR, {"rejected": []}, "nothing_rejected"),
    (PAIR, {"rejected": ["B", " "]}, "empty_answer"),
    (PAIR, {"chosen": None}, "missing_field"),
    (PAIR, {"chosen": " "}, "empty_answer"),
    (PAIR, {"chosen": 3}, "not_a_string"),
    (PAIR, {"chosen": ["A", "C"]}, "several_chosen"),
    (PAIR, {"chosen": [OTHER, ANSWER]}, "different_prompts"),
    (PAIR, {"chosen": [USER]}, "not_one_turn"),
    (PAIR, {"chosen": [ANSWER, {"role": "tool", "content": "x"}, ANSWER]}, "tool_without_call"),
    (PAIR, {"chosen": [{"role": "system", "content": "S"}, ANSWER]}, "not_one_turn"),
    (PAIR, {"chosen": {**ANSWER, "weight": 0}}, "bad_weight"),
    (PAIR, {"prompt": [USER, ANSWER]}, "prompt_has_answer"),
    (PAIR, {"prompt": [{"role": "system", "content": "S"}]}, "no_user"),
    (PAIR, {"prompt": " "}, "empty_prompt"),
    (IMPLICIT, {"rejected": [OTHER, WORSE]}, "different_prompts"),
    (IMPLICIT, {"rejected": [USER, ANSWER, USER, WORSE]}, "different_prompts"),
    (IMPLICIT, {"rejected": "B"}, "different_prompts"),
    (IMPLICIT, {"chosen": "A", "rejected": "B"}, "no_prompt"),
    (IMPLICIT, {"chosen": TALK + "A", "rejected": TALK.replace("Hi", "Hey") + "B"}, "different_prompts"),
    (IMPLICIT, {"chosen": TALK + "A", "rejected": "B"}, "different_prompts"),
    (IMPLICIT, {"chosen": TALK + "A", "rejected": TALK}, "empty_answer"),
    (IMPLICIT, {"chosen": TALK + "A\n\nHuman: more", "rejected": TALK + "B"}, "not_one_turn"),
    ({**PAIR, "margin": 1}, {"margin": -0.5}, "negative_margin"),
    ({**PAIR, "margin": 1}, {"margin": "much"}, "bad_number"),
    ({**PAIR, "margin": 1}, {"margin": "1e999"}, "bad_number"),
    ({**PAIR, "score_chosen": 2, "score_rejected": 1}, {"score_rejected": 3}, "negative_margin"),
    (VERDICT, {"label": 2}, "bad_verdict"),
    (VERDICT, {"label": -1}, "bad_verdict"),
    (VERDICT, {"label": "maybe"}, "bad_verdict"),
    (VERDICT, {"label": [True]}, "bad_verdict"),
    (VERDICT, {"label": None}, "missing_field"),
    (VERDICT, {"completion": ["A", "B"]}, "not_one_turn"),
    (VERDICT, {"completion": []}, "not_one_turn"),
    (RATING, {"rating": "good"}, "bad_number"),
    (RATING, {"rating": True}, "bad_number"),
    (RATING, {"rating": ""}, "missing_field"),
    ({"messages": [USER, ANSWER], "rating": 1}, {"messages": [USER]}, "not_one_turn"),
    ({"messages": [USER, ANSWER], "rating": 1}, {"messages": [ANSWER]}, "no_user"),
    (RANKING, {"ranks": [1, 1]}, "all_tied"),
    (RANKING, {"ranks": [1]}, "lengths_differ"),
    (RANKING, {"ranks": [1, None]}, "missing_field"),
    (RANKING, {"ranks": [1, "x"]}, "bad_number"),
    (RANKING, {"ranks": 1}, "not_a_list"),
    (RANKING, {"completions": "A"}, "not_a_list"),
    (RANKING, {"completions": ["A"], "ranks": [1]}, "too_few_answers"),
    (RANKING, {"completions": [], "ranks": []}, "too_few_answers"),
    (RANKING, {"completions": ["A", "B", "A"], "ranks": [1, 2, 3]}, "conflicting_scores"),
    (RANKING, {"completions": ["A", [ANSWER, WORSE]]}, "not_one_turn"),
    (BARE, {"completions": [{"text": "A", "score": 1}, {"text": "B"}]}, "missing_field"),
    (BARE, {"completions": [{"text": "A", "score": 1}, {"score": 2}]}, "missing_field"),
]  # fmt: skip


@pytest.mark.parametrize(("good", "change", "reason"), REFUSED, ids=[f"{r} {c}" for _, c, r in REFUSED])
def test_a_row_that_says_nothing_certain_is_dropped_and_counted(
    tmp_path: Path, good: dict[str, Any], change: dict[str, Any], reason: str
) -> None:
    path = jsonl(tmp_path, [*[good] * 19, good | change])
    examples, _, account = read(path)
    assert len(examples) == 19
    assert account.summary()["files"][path] == {"read": 20, "used": 19, "dropped": {reason: 1}}


def test_prompts_guessed_from_texts_are_counted(tmp_path: Path) -> None:
    row = {"chosen": "It is so", "rejected": "It is not"}
    _, _, account = read(jsonl(tmp_path, [row, row, IMPLICIT]))
    assert account.summary()["notes"] == {"prompt_from_texts": 2}


# What the columns decide -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (VERDICT | {"rating": 3}, "rating and unpaired rows.*\n.*\n.*data.format=rating, data.format=unpaired"),
        ({"prompt": "Q", "completion": "A"}, "no judged answers"),
        ({"prompt": "Q", "completions": ["A"]}, "no judged answers"),
        ({"question": "Q", "instruction": "Q", "chosen": "A", "rejected": "B"}, "more than one column"),
    ],
)  # fmt: skip
def test_columns_that_do_not_decide(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(jsonl(tmp_path, [row]))


def test_a_format_decides(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [VERDICT | {"rating": 3}])
    assert [c.score for c in read(path, format="rating")[0][0].completions] == [3]
    assert [c.score for c in read(path, format="unpaired")[0][0].completions] == [1]
    with pytest.raises(DataError, match="preference rows need a chosen column"):
        read(path, format="preference")


@pytest.mark.parametrize(
    ("row", "method"), [(PAIR, "preference"), (VERDICT, "unpaired"), (RANKING, "ranking"), (IMPLICIT, "preference")]
)  # fmt: skip
def test_supervised_learning_is_told_which_method_reads_them(
    tmp_path: Path, row: dict[str, Any], method: str
) -> None:
    with pytest.raises(DataError, match=f"method.type={method}"):
        read(jsonl(tmp_path, [row]), format="auto")


def test_a_description_of_judged_rows(tmp_path: Path) -> None:
    sharegpt: dict[str, Any] = {"formatting": "sharegpt", "file_name": "rows.jsonl"}
    columns = {"messages": "talk", "chosen": "good", "rejected": "bad"}
    tags = {"role_tag": "who", "content_tag": "said", "user_tag": "me", "assistant_tag": "it"}
    ask, good, bad = ({"who": who, "said": said} for who, said in (("me", "Q"), ("it", "A"), ("it", "B")))
    cases: list[tuple[dict[str, Any], dict[str, Any], str, Any]] = [
        (sharegpt | {"ranking": True, "columns": columns, "tags": tags},
         {"talk": [ask], "good": good, "bad": bad}, "preference", [("A", 1), ("B", 0)]),
        ({"file_name": "rows.jsonl", "ranking": True, "columns": {"prompt": "q", "chosen": "c", "rejected": "r"}},
         {"q": "Q", "c": "A", "r": "B"}, "preference", [("A", 1), ("B", 0)]),
        ({"file_name": "rows.jsonl", "columns": {"prompt": "q", "response": "a", "kto_tag": "k"}},
         {"q": "Q", "a": "A", "k": False}, "unpaired", [("A", 0)]),
        (sharegpt | {"columns": {"messages": "talk", "kto_tag": "k"}, "tags": tags},
         {"talk": [ask, good], "k": True}, "unpaired", [("A", 1)]),
    ]  # fmt: skip
    for entry, row, kind, judged in cases:
        jsonl(tmp_path, [row])
        (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": entry}))
        for format in ("judged", kind):
            account = Account("skip")
            config = DataConfig(format=format)  # type: ignore[arg-type]
            (example,), mappings = read_examples([f"{tmp_path}/dataset_info.json#mine"], config, account)
            assert [m.kind for m in mappings.values()] == [kind]
            assert example.prompt == (U,)
            assert said(example) == judged


# Rows to be scored, and to be asked ------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
        {"prompt": "Q", "completions": ["A", "B"]},
        {"prompt": "Q", "completions": ["A", "B"], "ranks": "none yet"},
        IMPLICIT | {"margin": "?"},
        {"messages": [USER, ANSWER], "rejected_response": "B"},
    ],
)
def test_answers_are_scored_without_judgements(row: dict[str, Any]) -> None:
    mapping = scored_mapping([row], DataConfig(format="judged"), "f")
    example = to_scored(mapping, row, RowRef("f", 1))
    assert (example.prompt, example.margin) == ((U,), None)
    assert said(example) == [("A", 0.0), ("B", 0.0)]


def test_one_answer_is_scored_too() -> None:
    trained = DataConfig(format="rating", columns={"prompt": "ask", "rating": "stars given"})
    for row in (
        {"ask": "Q", "completion": "A"},
        {"messages": [USER, ANSWER]},
        {"ask": "Q", "answer": "A", "rating": 9},
    ):
        example = to_scored(scored_mapping([row], trained, "f"), row, RowRef("f", 1))
        assert (example.prompt, example.completions) == ((U,), (Completion(A, 0.0),))
    with pytest.raises(DataError, match="no answers to be scored"):
        scored_mapping([{"ask": "Q"}], trained, "f")
    with pytest.raises(DataError) as error:
        to_scored(scored_mapping([PAIR], trained, "f"), PAIR | {"rejected": ""}, RowRef("f", 9))
    assert "f:9" in str(error.value)


def test_a_tuned_model_is_asked_as_with_prompts() -> None:
    trained = DataConfig(format="preference", columns={"chosen": "good", "rejected": "bad"})
    for row in ({"prompt": "Q", "text": "no"}, {"messages": [USER]}):
        mapping = input_mapping([row], trained, "f")
        assert to_prompt(mapping, row, RowRef("f", 1)).messages == (U,)


# Splits ----------------------------------------------------------------------------------------------


def test_rows_of_one_prompt_stand_in_one_split(tmp_path: Path) -> None:
    """Also where the prompt is only what the answers begin with; and two pairs of one prompt are no repeats."""
    talks = [
        f"\n\nHuman: {['Question', 'QUESTION'][i % 2]} {n}?\n\nAssistant:"
        for n in range(60)
        for i in range(3)
    ]
    rows = [{"chosen": f"{talk} yes {i}", "rejected": f"{talk} no {i}"} for i, talk in enumerate(talks)]
    path = jsonl(tmp_path, rows)
    splits = load_splits(DataConfig(train=[path], format="judged"), 0)
    parts = [splits.train, splits.validation, splits.test]
    asked = [{example.prompt[0].content.lower() for example in part} for part in parts]
    assert all(asked)
    assert sum(map(len, asked)) == len(set.union(*asked)) == 60
    assert sum(map(len, parts)) == 180
    assert not splits.warnings


def test_only_a_pair_whose_answers_are_both_there_is_a_repeat(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [PAIR, PAIR, PAIR | {"rejected": "C"}, PAIR | {"chosen": "B", "rejected": "A"}])
    splits = load_splits(DataConfig(train=[path], format="judged", validation_fraction=0, test_fraction=0), 0)
    assert splits.warnings == ("1 of 4 training rows repeat another (kept)",)


HARMLESS = Path(__file__).parents[3] / "shared" / "data" / "hh_harmless" / "pairs.jsonl.gz"


@pytest.mark.skipif(
    not HARMLESS.is_file(), reason=f"{HARMLESS} is absent: the public transcripts of harmlessness"
)
def test_every_row_of_real_transcripts_is_accounted_for() -> None:
    examples, mapping, account = read(str(HARMLESS))
    assert mapping.describe() == "preference rows: chosen = chosen, rejected = rejected"
    found = account.summary()["files"][str(HARMLESS)]
    assert found == {
        "read": 2312,
        "used": len(examples),
        "dropped": {"different_prompts": 5, "empty_answer": 4},
    }
    assert all(e.prompt[0].role == "user" and len(e.completions) == 2 for e in examples)


def test_the_sample_pairs_are_in_the_house_voice_and_the_rejected_are_not() -> None:
    examples, mapping, account = read(str(embedded.replies()))
    assert mapping.describe() == "preference rows: prompt = prompt, chosen = chosen, rejected = rejected"
    assert (len(examples), account.summary()["dropped"]) == (120, {})
    assert len({example.prompt[0].content for example in examples}) == 120
    for example in examples:
        chosen, rejected = (completion.message.content for completion in example.completions)
        name = example.prompt[0].content.split()[-1]
        assert chosen.endswith(" - Mara, support")
        assert name not in chosen
        assert "Mara" not in rejected


GUIDE = Path(__file__).parents[2] / "docs" / "preferences.md"


def test_the_rows_of_the_guide_are_read_as_it_says(tmp_path: Path) -> None:
    before, *blocks = re.split(r"```json\n", GUIDE.read_text())
    kinds = []
    for block in blocks:
        kinds.append(re.findall(r"\(`(\w+)`\)", before)[-1])
        rows, before = block.split("```", 1)
        for line in rows.splitlines():
            (example,), mapping, account = read(jsonl(tmp_path, [json.loads(line)]))
            assert mapping.kind == kinds[-1]
            assert ("3 * 4" if mapping.kind == "stepwise" else "card?") in example.prompt[-1].content
            assert not account.summary()["dropped"]
    assert kinds == ["preference", "unpaired", "rating", "ranking", "stepwise"]
