"""Rewards by a function, a pattern, a length, a check and a model."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.scoring.rewards.rows import row
from tunesmith.config.rewards import FunctionReward, LengthReward, RegexReward, VerifierReward
from tunesmith.errors import ConfigError, DataError, RowError
from tunesmith.scoring.rewards.function import function_part
from tunesmith.scoring.rewards.length import length_part
from tunesmith.scoring.rewards.model import ModelPart
from tunesmith.scoring.rewards.patterns import RegexPart
from tunesmith.scoring.rewards.rows import prompt_text, row_of
from tunesmith.scoring.rewards.verifier import VerifierPart
from tunesmith.types import Completion, Example, Message, RowRef

FUNCTIONS = """\
import neighbour_of_rewards
import numpy as np

def lengths(prompts, answers, rows):
    return [len(p) + 10 * len(a) + 100 * len(r["reference"]) for p, a, r in zip(prompts, answers, rows)]

def one(prompt, answer, row):
    return answer == row["reference"]

def array(prompts, answers, rows):
    return np.arange(len(answers), dtype=np.float32)

def too_few(prompts, answers, rows):
    return [1.0]

def texts(prompts, answers, rows):
    return ["1" for _ in answers]

def nothing(prompts, answers, rows):
    return [None for _ in answers]

def ragged(prompts, answers, rows):
    return [[1], [1, 2]]

def breaks(prompts, answers, rows):
    return helper(answers)

def breaks_on_one(prompt, answer, row):
    return helper([answer])

def breaks_inside_a_library(prompts, answers, rows):
    return np.ones(3).reshape(2)

def two_arguments(prompts, answers):
    return [1.0 for _ in answers]

def helper(answers):
    return [1 / (len(a) - 3) for a in answers]

constant = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module in the working directory, beside another that it imports."""
    (tmp_path / "rewards_of_test.py").write_text(FUNCTIONS)
    (tmp_path / "neighbour_of_rewards.py").write_text("")
    (tmp_path / "broken_rewards.py").write_text("import no_such_thing_at_all")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    yield "rewards_of_test"
    for name in ("rewards_of_test", "neighbour_of_rewards"):
        sys.modules.pop(name, None)


def scores(path: str, answers: list[str], batched: bool = True) -> list[float]:
    part = function_part(FunctionReward(path=path, batched=batched))
    examples = [row("p" * (i + 1), "ref", line=i + 1) for i in range(len(answers))]
    found = part(examples, answers)
    assert found.dtype == np.float64
    return list(found)


# -- functions ----------------------------------------------------------------------------------------


def test_a_function_of_the_working_directory(module: str) -> None:
    assert scores(f"{module}:lengths", ["", "ab"]) == [301, 322]
    assert scores(f"{module}.lengths", ["a"]) == [311]
    assert scores(f"{module}:array", ["", "", ""]) == [0, 1, 2]
    assert scores(f"{module}:lengths", []) == []
    assert scores(f"{module}:one", ["ref", "other"], batched=False) == [1, 0]


def test_installed_packages_come_before_the_working_directory(module: str) -> None:
    Path("json.py").write_text("loads = 3")
    assert callable(function_part(FunctionReward(path="json:loads")).function)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("no_such_module:f", "'no_such_module' can not be imported: ModuleNotFoundError"),
        ("broken_rewards:f", "No module named 'no_such_thing_at_all'"),
        ("rewards_of_test:length", "did you mean 'lengths'"),
        ("rewards_of_test:constant", "no function 'constant'"),
    ],
)
def test_what_can_not_be_imported(module: str, path: str, words: str) -> None:
    with pytest.raises(ConfigError) as found:
        function_part(FunctionReward(path=path))
    assert words in str(found.value)


@pytest.mark.parametrize("name", ["too_few", "texts", "nothing", "ragged"])
def test_what_is_no_list_of_numbers(module: str, name: str) -> None:
    with pytest.raises(
        DataError, match=rf"{name} returned '\[(.|\n)*expected: 2 numbers, one for each answer"
    ):
        scores(f"{module}:{name}", ["a", "b"])


def test_an_error_says_where_and_on_which_row(module: str) -> None:
    line = FUNCTIONS.splitlines().index("    return [1 / (len(a) - 3) for a in answers]") + 1
    with pytest.raises(DataError) as found:
        scores(f"{module}:breaks_on_one", ["ab", "abc", "abcd"], batched=False)
    said = str(found.value)
    assert f"rewards_of_test.py:{line} (return [1 / (len(a) - 3) for a in answers])" in said
    assert "ZeroDivisionError: division by zero; row rows.jsonl:2, answer 'abc'" in said
    assert isinstance(found.value.__cause__, ZeroDivisionError)
    with pytest.raises(DataError, match=r"2 answers, rows.jsonl:1 to rows.jsonl:2, the first 'ab'"):
        scores(f"{module}:breaks", ["ab", "abc"])


@pytest.mark.parametrize(
    ("name", "line", "words"),
    [
        ("breaks_inside_a_library", "    return np.ones(3).reshape(2)", "with ValueError: cannot reshape"),
        ("two_arguments", "def two_arguments(prompts, answers):", "with TypeError: two_arguments() takes 2"),
    ],
)
def test_an_error_is_placed_in_the_functions_own_file(module: str, name: str, line: str, words: str) -> None:
    with pytest.raises(DataError) as found:
        scores(f"{module}:{name}", ["a"])
    number = FUNCTIONS.splitlines().index(line) + 1
    assert f"rewards_of_test.py:{number} " in str(found.value)
    assert words in str(found.value)


def test_an_error_of_compiled_code_is_placed_too() -> None:
    with pytest.raises(DataError, match=r"operator:truediv failed at .*function.py:\d+ .*TypeError"):
        scores("operator:truediv", ["a"])


def test_prompts_and_rows_as_functions_see_them() -> None:
    turns = (
        Message("system", "Be brief."),
        Message("user", "Hi"),
        Message("assistant", "Yes?", extra={"name": "x"}),
        Message("user", "Bye"),
        Message("assistant", "Bye"),
    )
    best = Completion(turns[-1], 2.0)
    example = Example(RowRef("a.jsonl", 7), turns, completions=(best,), label="end")
    assert prompt_text(example) == "system: Be brief.\n\nuser: Hi\n\nassistant: Yes?\n\nuser: Bye"
    assert prompt_text(row("Hi")) == "Hi"
    assert prompt_text(Example(RowRef("a", 1), text="plain")) == "plain"
    told = row_of(example)
    assert told["messages"][2] == {"role": "assistant", "content": "Yes?", "name": "x"}
    assert len(told["messages"]) == 4
    assert told["reference"] == "Bye"
    assert told["completions"] == [{"content": "Bye", "score": 2.0}]
    assert (told["file"], told["line"], told["label"], told["pair"]) == ("a.jsonl", 7, "end", None)


# -- patterns -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "answer", "number"),
    [
        ({"pattern": "b+"}, "abba", 1),
        ({"pattern": "b+"}, "aa", 0),
        ({"pattern": "b", "count": True}, "abba", 2),
        ({"pattern": "aba", "count": True}, "ababa", 1),
        ({"pattern": "b", "full": True}, "abba", 0),
        ({"pattern": "(?is)<a>.*</a>", "full": True}, "<A>x\ny</A>", 1),
        ({"pattern": "^", "count": True}, "", 1),
    ],
)
def test_patterns(settings: dict[str, object], answer: str, number: int) -> None:
    part = RegexPart(RegexReward.model_validate({"kind": "regex", **settings}))
    assert list(part([row()], [answer])) == [number]


@pytest.mark.parametrize("settings", [{}, {"count": True}, {"full": True}])
def test_a_pattern_that_would_take_ages_is_an_error_in_time(settings: dict[str, bool]) -> None:
    part = RegexPart(RegexReward(pattern=r"(x+x+)+y", timeout=0.05, **settings))
    start = time.perf_counter()
    with pytest.raises(
        RowError, match=r"rows.jsonl:4: pattern .* took more than 0.05 s on an answer of 5000"
    ):
        part([row(), row(line=4)], ["", "x" * 5000])
    assert time.perf_counter() - start < 2


# -- lengths ------------------------------------------------------------------------------------------


def test_lengths() -> None:
    def of(**settings: object) -> list[float]:
        spec = LengthReward.model_validate({"kind": "length", **settings})
        return list(
            length_part(spec, lambda text: len(text) // 2)([row()] * 3, ["", "two words", "a  b c, 北京"])
        )

    assert of() == of(unit="words") == [0, 2, 5]
    assert of(unit="characters") == [0, 9, 10]
    assert of(unit="tokens") == [0, 4, 5]
    assert of(target=2) == [0, 1, 0]
    assert of(target=4) == [0, 0.5, 0.75]
    assert of(target=4, tolerance=1) == [0.25, 0.75, 1]


def test_tokens_need_a_tokenizer() -> None:
    with pytest.raises(ConfigError, match="no tokenizer"):
        length_part(LengthReward(unit="tokens"), None)


# -- checks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "reference", "right", "wrong"),
    [
        ({"check": "number"}, "2 + 2 = <<2+2=4>>4\n#### 4", "It is 4.0.", "It is 5."),
        ({"check": "number", "tolerance": 0.5}, "4", "4.5", "4.6"),
        ({"check": "exact"}, "Paris", "paris", "Paris!"),
        ({"check": "contains"}, "Paris", "To Paris!", "compari"),
        ({"check": "json", "required_keys": ["a"]}, "", '{"a": 1}', "[]"),
        ({"check": "json_equal"}, '{"a": 1}', '{"a": 1.0}', '{"a": 2}'),
        ({"check": "choice"}, "(B)", "The answer is B.", "The answer is C."),
    ],
)
def test_answers_against_the_rows_own(
    settings: dict[str, object], reference: str, right: str, wrong: str
) -> None:
    part = VerifierPart(VerifierReward.model_validate({"kind": "verifier", **settings}))
    assert list(part([row(answer=reference)] * 3, [right, wrong, ""])) == [1, 0, 0]


@pytest.mark.parametrize(
    ("check", "reference", "words"),
    [
        ("number", "", "no answer to compare with; expected a number"),
        ("exact", " ", "no answer to compare with; expected a text"),
        ("contains", "", "no answer to compare with"),
        ("number", "none", "the row's answer is 'none'; expected a number"),
        ("json_equal", "{", "expected a JSON value"),
        ("choice", "Paris", "expected a letter from A to E"),
    ],
)
def test_rows_without_such_an_answer_are_errors(check: str, reference: str, words: str) -> None:
    part = VerifierPart(VerifierReward.model_validate({"kind": "verifier", "check": check}))
    with pytest.raises(RowError, match=words) as found:
        part([row(answer=reference, line=9)], ["4"])
    assert str(found.value).startswith("rows.jsonl:9: ")


def test_a_reward_model_gives_one_number_for_each_answer() -> None:
    part = ModelPart("runs/r", lambda examples, answers: [float(len(a)) for a in answers])
    assert list(part([row()] * 2, ["a", "bc"])) == [1, 2]
    with pytest.raises(DataError, match="runs/r gave 1 numbers"):
        ModelPart("runs/r", lambda examples, answers: [1.0])([row()] * 2, ["a", "b"])
