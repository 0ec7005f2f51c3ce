"""Judges, asked over HTTP: a real server on this machine that answers as it is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tests.endpoints import Endpoint, Reply, says, served
from tests.scoring.rewards.rows import row
from tunesmith.config.rewards import JudgeReward, LengthReward, RewardParts
from tunesmith.errors import ConfigError, ModelError
from tunesmith.scoring.endpoint import retry_after
from tunesmith.scoring.rewards import Rewards, build_rewards
from tunesmith.scoring.rewards.judge import judge_part, question, read_mark

PROMPT = "Q {prompt} A {answer} R {reference} from {low} to {high} as {json}"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with served() as here:
        yield here


def judge(endpoint: Endpoint, answers: list[str], **settings: Any) -> list[float]:
    spec = {"url": endpoint.url, "model": "m", "prompt": "{answer}", "backoff": 0.0, "retries": 2, **settings}
    part = judge_part(JudgeReward.model_validate({"kind": "judge", **spec}))
    found = part([row(line=i + 1) for i in range(len(answers))], answers)
    assert found.dtype == np.float64
    return list(found)


def test_a_question_and_its_mark(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_OF_TEST", "k3y\n")
    endpoint.reply = lambda asked, before: says("Mark: 7/10")
    assert judge(endpoint, ["yes"], prompt=PROMPT, api_key_env="KEY_OF_TEST", low=2, high=12) == [0.5]
    ((path, body, headers),) = endpoint.requests
    assert path == "/v1/chat/completions"
    text = "Q What is 2 + 2? A yes R 4 from 2 to 12 as {json}"
    assert body == {"model": "m", "messages": [{"role": "user", "content": text}], "temperature": 0.0}
    assert {k.lower(): v for k, v in headers.items()}["authorization"] == "Bearer k3y"


def test_what_is_not_asked_for_is_not_sent(endpoint: Endpoint) -> None:
    assert judge(endpoint, ["yes"], temperature=None) == [0.5]
    ((_, body, headers),) = endpoint.requests
    assert "temperature" not in body
    assert "authorization" not in {k.lower() for k in headers}


def test_an_answer_can_not_fill_in_places() -> None:
    spec = JudgeReward(url="http://x", model="m", prompt=PROMPT)
    asked = question(spec, row("{answer}", "secret"), "{reference}")
    assert asked == "Q {answer} A {reference} R secret from 0 to 10 as {json}"


def test_any_text_can_be_asked_about(endpoint: Endpoint) -> None:
    assert judge(endpoint, ["half a pair \ud83d, \x00, ü"]) == [0.5]


def test_order_is_kept_and_no_more_are_asked_at_once_than_allowed(endpoint: Endpoint) -> None:
    def reply(asked: str, before: int) -> Reply:
        time.sleep(0.02 * (10 - int(asked)) / 10)  # the later, the faster
        return says(asked)

    endpoint.reply = reply
    assert judge(endpoint, [str(i) for i in range(10)], concurrency=3) == pytest.approx(np.arange(10) / 10)
    assert 1 < endpoint.most_busy <= 3


@pytest.mark.parametrize(
    "first",
    [
        (429, {"Retry-After": "0"}, "slow down"),
        (500, {}, "oops"),
        (503, {}, ""),
        (200, {}, "{not json"),
        (200, {}, "[]"),
        (200, {}, '{"choices": []}'),
        (200, {}, '{"choices": [{"message": {"content": null}}]}'),
        (200, {}, '{"error": {"message": "busy"}}'),
        says("no idea"),
        says("11 of 10"),
        says("-1"),
    ],
)
def test_what_is_asked_again(endpoint: Endpoint, first: Reply) -> None:
    endpoint.reply = lambda asked, before: says("9") if before == 2 else first
    assert judge(endpoint, ["a"]) == [0.9]
    assert len(endpoint.requests) == 3


def test_it_waits_as_long_as_it_is_told(endpoint: Endpoint) -> None:
    endpoint.reply = lambda asked, before: says("9") if before else (429, {"Retry-After": "1"}, "")
    assert judge(endpoint, ["a"]) == [0.9]
    assert endpoint.times[1] - endpoint.times[0] > 0.9


def test_waits_double(endpoint: Endpoint) -> None:
    endpoint.reply = lambda asked, before: says("9") if before == 2 else (500, {}, "")
    judge(endpoint, ["a"], backoff=0.1)
    waits = np.diff(endpoint.times)
    assert waits[0] == pytest.approx(0.1, abs=0.08)
    assert waits[1] == pytest.approx(0.2, abs=0.08)


def test_a_reply_that_does_not_come(endpoint: Endpoint) -> None:
    def reply(asked: str, before: int) -> Reply:
        if not before:
            time.sleep(0.4)
        return says("9")

    endpoint.reply = reply
    assert judge(endpoint, ["a"], timeout=0.15) == [0.9]
    with pytest.raises(ModelError, match=r"no word within 0.05 s"):
        judge(endpoint, ["b"], timeout=0.05, retries=0)


def test_failures_are_counted_and_never_zero(endpoint: Endpoint) -> None:
    endpoint.reply = lambda asked, before: (500, {}, "out of memory") if "bad" in asked else says("1")
    with pytest.raises(ModelError) as found:
        judge(endpoint, ["good", "bad one", "good too", "bad two"])
    said = str(found.value)
    assert "gave no mark to 2 of 4 answers; the first, to rows.jsonl:2: status 500, 'out of memory'" in said
    assert len(endpoint.requests) == 2 + 2 * 3


@pytest.mark.parametrize("status", [400, 401, 404])
def test_what_asking_again_can_not_mend_is_asked_once(endpoint: Endpoint, status: int) -> None:
    endpoint.reply = lambda asked, before: (status, {}, "no such model")
    with pytest.raises(ModelError, match=f"status {status}, 'no such model'"):
        judge(endpoint, ["a"])
    assert len(endpoint.requests) == 1


def test_no_server(endpoint: Endpoint) -> None:
    endpoint.url = "http://127.0.0.1:9/v1"
    with pytest.raises(ModelError, match=r"gave no mark to 1 of 1 answers.*ConnectError"):
        judge(endpoint, ["a"])


def test_a_key_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEY_OF_TEST", raising=False)
    with pytest.raises(ConfigError, match="KEY_OF_TEST is not set"):
        judge_part(JudgeReward(url="http://x", model="m", api_key_env="KEY_OF_TEST"))
    monkeypatch.setenv("KEY_OF_TEST", "sec\nret")
    with pytest.raises(ConfigError, match="KEY_OF_TEST has blanks") as found:
        judge_part(JudgeReward(url="http://x", model="m", api_key_env="KEY_OF_TEST"))
    assert "ret" not in str(found.value)


def test_an_address_that_is_none() -> None:
    with pytest.raises(ConfigError, match="the judge's url"):
        judge_part(JudgeReward(url="http://host:port/v1", model="m"))


@pytest.mark.parametrize(
    ("reply", "mark"),
    [
        ("7", 7),
        ("Score: 7.5 of 10", 7.5),
        ("**7**", 7),
        (".5", 0.5),
        ("8/10", 8),
        ("<think>maybe 3?</think>\n9", 9),
        ("gpt4 says 6", 6),
        ("-2", None),
        ("12", None),
        ("seven", None),
        ("", None),
        ("9" * 400, None),
    ],
)
def test_the_first_number_of_a_reply(reply: str, mark: float | None) -> None:
    assert read_mark(reply, 0, 10) == mark


@given(st.text())
def test_no_reply_breaks_the_reading(reply: str) -> None:
    mark = read_mark(reply, 0, 10)
    assert mark is None or 0 <= mark <= 10
    wait = retry_after(reply, 0.0)
    assert wait is None or wait >= 0


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after("120", 0) == retry_after(" 120\x1f", 0) == 120
    assert retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 20) == 40
    assert retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 90) == 0
    assert retry_after("soon", 0) is retry_after(None, 0) is retry_after("-5", 0) is None


def both(endpoint: Endpoint) -> Rewards:
    """A judge, and a rule that needs all answers at once."""
    parts = [
        {
            "kind": "judge",
            "url": endpoint.url,
            "model": "m",
            "prompt": "{answer}",
            "backoff": 0.0,
            "retries": 0,
        },
        {"kind": "length", "unit": "characters", "weight": 0.5},
    ]
    return build_rewards(TypeAdapter(RewardParts).validate_python(parts), lambda path: pytest.fail(path))


def test_a_judge_is_asked_while_answers_come_and_says_what_it_says_at_the_end(endpoint: Endpoint) -> None:
    endpoint.reply = lambda asked, before: says(asked[0])
    examples, answers = [row(line=i + 1) for i in range(5)], ["3", "14", "1", "59", "2"]
    rewards = both(endpoint)
    with rewards.ahead() as ahead:
        assert ahead.waits
        for number, place in enumerate((4, 0, 2, 1, 3)):  # as they are finished
            ahead.put(place, examples[place], answers[place])
            until(lambda asked=number + 1: len(endpoint.requests) == asked)  # while others are still written
        found = ahead.scored(examples, answers)
    after = rewards(examples, answers)
    assert np.array_equal(found.total, after.total)
    assert found.parts.keys() == after.parts.keys() == {"judge", "length"}
    assert found.parts["judge"].tolist() == [0.3, 0.1, 0.1, 0.5, 0.2]
    assert len(endpoint.requests) == 10  # each answer once


def test_what_a_judge_could_not_say_is_raised_where_the_rewards_are_needed(endpoint: Endpoint) -> None:
    endpoint.reply = lambda asked, before: says("no idea")
    examples = [row(line=1), row(line=2)]
    with both(endpoint).ahead() as ahead:
        ahead.put(1, examples[1], "b")
        ahead.put(0, examples[0], "a")
        until(lambda: len(endpoint.requests) == 2)
        with pytest.raises(ModelError, match=r"no mark to 2 of 2 answers; the first, to rows.jsonl:1"):
            ahead.scored(examples, ["a", "b"])


def test_questions_that_nobody_waits_for_are_not_asked(endpoint: Endpoint) -> None:
    """The writing failed: what was not begun is let go."""
    free = threading.Event()

    def reply(asked: str, before: int) -> Reply:
        free.wait(5)
        return says("5")

    def write() -> None:
        with both(endpoint).ahead() as ahead:
            for place in range(30):
                ahead.put(place, row(line=place + 1), str(place))
            until(lambda: endpoint.busy == 8)
            threading.Timer(0.05, free.set).start()
            raise KeyError("writing")

    endpoint.reply = reply
    with pytest.raises(KeyError):
        write()
    assert len(endpoint.requests) <= 8


def test_without_a_judge_nothing_begins_early() -> None:
    with build_rewards([LengthReward()], lambda path: pytest.fail(path)).ahead() as ahead:
        assert not ahead.waits
        assert ahead.scored([row()], ["two words"]).total.tolist() == [2.0]


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)
