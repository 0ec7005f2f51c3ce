"""Rows of one judged answer each as rows that compare: the answers to one prompt become one ranking."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from tunesmith.data.account import Account
from tunesmith.types import Completion, Example, RowRef


def joined(examples: Sequence[Example], account: Account) -> tuple[Example, ...]:
    """Ratings and verdicts of several answers to the same prompt as one row, where the first of them stood; rows that
    compare answers already are left as they are.

    An answer that was judged several times has the mean of its scores. A row alone with its prompt, or whose answers
    all have the same score, is withdrawn; the account's notes count joined and scores_averaged. A row that is repeated
    stands as often as the first of those it is joined with.
    """
    groups: dict[str, dict[RowRef, Example]] = {}
    times = Counter(example.ref for example in examples)
    for example in examples:
        if len(example.completions) == 1:
            groups.setdefault(_prompt(example), {})[example.ref] = example
    made: dict[RowRef, Example] = {}
    for members in groups.values():
        first, *others = members.values()
        for other in others:
            for _ in range(times[other.ref] - 1):
                account.withdraw(other.ref, "repeated", "joined once")  # takes out a copy, which is no row
        completions = _completions(list(members.values()), account)
        if problem := _says_nothing(completions, first):
            for ref in members:
                for _ in range(times[ref] if ref == first.ref else 1):
                    account.withdraw(ref, *problem)
            continue
        best = max(completions, key=lambda completion: completion.score)
        account.join(first.ref, [other.ref for other in others])
        made[first.ref] = replace(first, messages=(*first.prompt, best.message), completions=completions)
    return tuple(
        example if len(example.completions) > 1 else made[example.ref]
        for example in examples
        if len(example.completions) > 1 or example.ref in made
    )


def _prompt(example: Example) -> str:
    """What rows of the same prompt have alike: its turns and its tools, to the letter."""
    turns = [[turn.role, turn.content, turn.extra] for turn in example.prompt]
    return json.dumps([turns, example.tools], default=repr)


def _completions(examples: Sequence[Example], account: Account) -> tuple[Completion, ...]:
    """Each answer once, in the order of the rows."""
    judged: dict[str, list[Completion]] = {}
    for example in examples:
        (one,) = example.completions
        judged.setdefault(json.dumps([one.message.content, one.message.extra], default=repr), []).append(one)
    if several := sum(len(same) for same in judged.values() if len(same) > 1):
        account.notes["scores_averaged"] += several
    return tuple(
        Completion(same[0].message, sum(one.score for one in same) / len(same)) for same in judged.values()
    )


def _says_nothing(completions: Sequence[Completion], first: Example) -> tuple[str, str] | None:
    """Reason and message where nothing is compared."""
    if len(completions) < 2:
        return "alone_with_its_prompt", f"no other answer to the prompt of {first.ref}"
    if len({completion.score for completion in completions}) == 1:
        return "all_tied", f"all {len(completions)} answers to the prompt of {first.ref} have the same score"
    return None
