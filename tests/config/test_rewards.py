"""Rewards in a recipe: what is taken, and what is refused in which words."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from tunesmith.config import rewards
from tunesmith.config.rewards import JUDGE_PROMPT, Reward, RewardParts, called

PARTS: TypeAdapter[list[Any]] = TypeAdapter(RewardParts)
JUDGE = {"kind": "judge", "url": "http://localhost:8000/v1", "model": "m"}


def refused(*parts: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as found:
        PARTS.validate_python(list(parts))
    return str(found.value.errors(include_url=False)[0]["msg"])


def test_a_list_of_every_kind() -> None:
    parts = PARTS.validate_python(
        [
            {"kind": "function", "path": "mine.rewards:brief"},
            {"kind": "regex", "pattern": "^ok", "weight": -0.5, "name": "opens"},
            {"kind": "length", "target": 30, "curve": {"shape": "step", "low": 0.5}},
            {"kind": "verifier", "check": "number"},
            {"kind": "model", "path": "runs/reward"},
            JUDGE,
        ]
    )
    assert [called(p) for p in parts] == ["function", "opens", "length", "verifier", "model", "judge"]
    assert (parts[1].weight, parts[2].curve.shape, parts[3].tolerance) == (-0.5, "step", 1e-6)
    assert PARTS.validate_python(PARTS.dump_python(parts, mode="json")) == parts


def test_every_field_says_what_it_is() -> None:
    sections = [c for c in vars(rewards).values() if isinstance(c, type) and issubclass(c, rewards.Section)]
    assert Reward in sections
    bare = [f"{c.__name__}.{n}" for c in sections for n, f in c.model_fields.items() if not f.description]
    assert not bare


def test_names_are_unique() -> None:
    length = {"kind": "length"}
    assert "2 rewards are called 'length'; give each a name" in refused(length, length)
    assert "called 'length'" in refused(length, {"kind": "regex", "pattern": "a", "name": "length"})
    assert len(PARTS.validate_python([length, {**length, "name": "other"}])) == 2
    assert "at least 1" in refused()


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"kind": "lenght"}, "does not match any of the expected tags"),
        ({"kind": "length", "weight": float("nan")}, "finite"),
        ({"kind": "length", "weight": float("-inf")}, "finite"),
        ({"kind": "length", "targets": 3}, "Extra inputs"),
        ({"kind": "length", "name": "two words"}, "pattern"),
        ({"kind": "length", "tolerance": 3}, "write target, or leave tolerance out"),
        ({"kind": "length", "curve": {"low": 1.0}}, "low has no meaning with shape linear"),
        ({"kind": "length", "curve": {"shape": "step", "high": 2.0}}, "high has no meaning with shape step"),
        ({"kind": "length", "curve": {"shape": "log", "high": 2.0}}, "high has no meaning with shape log"),
        ({"kind": "length", "curve": {"shape": "clip", "low": 1.0}}, "low 1.0 is not below high 1.0"),
        ({"kind": "length", "curve": {"shape": "sigmoid", "low": float("inf")}}, "finite"),
        ({"kind": "function", "path": "brief"}, "write package.module:function"),
        ({"kind": "function", "path": "mine:"}, "write package.module:function"),
        ({"kind": "function", "path": "./mine.py:brief"}, "write package.module:function"),
        ({"kind": "function", "path": "a:b:c"}, "write package.module:function"),
        ({"kind": "regex", "pattern": "(a"}, "'(a' is no regular expression"),
        ({"kind": "regex", "pattern": "a", "count": True, "full": True}, "leave one of them out"),
        ({"kind": "regex", "pattern": "a", "timeout": 0}, "greater than 0"),
        ({"kind": "verifier"}, "Field required"),
        ({"kind": "verifier", "check": "exact", "tolerance": 1}, "tolerance has no meaning with check exact"),
        (
            {"kind": "verifier", "check": "number", "required_keys": ["a"]},
            "required_keys has no meaning with check number",
        ),
        ({"kind": "model", "path": ""}, "at least 1 character"),
        ({"kind": "model", "path": "a", "label": ""}, "at least 1 character"),
        ({"kind": "model", "path": "a", "reads": "prompt_and_answer"}, "write its class as label"),
        (
            {"kind": "model", "path": "a", "label": "good", "reads": "prompt"},
            "'answer' or 'prompt_and_answer'",
        ),
        ({**JUDGE, "url": "localhost:8000"}, "begins with http://"),
        ({**JUDGE, "url": "http://localhost/v1?key=1"}, "begins with http://"),
        ({**JUDGE, "prompt": "How good is it?"}, "write {answer} where it belongs"),
        ({**JUDGE, "low": 10}, "low 10.0 is not below high 10.0"),
        ({**JUDGE, "retries": -1}, "greater than or equal to 0"),
        ({**JUDGE, "concurrency": 0}, "greater than 0"),
    ],
)
def test_refused(part: dict[str, Any], words: str) -> None:
    assert words in refused(part)


def test_a_key_in_the_place_of_its_variables_name_is_refused_and_not_shown() -> None:
    said = refused({**JUDGE, "api_key_env": "sk-secret"})
    assert "write the name, never the key itself" in said
    assert "secret" not in said


def test_the_default_prompt_shows_everything() -> None:
    assert all(place in JUDGE_PROMPT for place in ("{prompt}", "{answer}", "{low}", "{high}"))
