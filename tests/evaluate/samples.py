"""Reports made from scores of made-up answers, for the tests of this room."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tunesmith.evaluate import report as build
from tunesmith.evaluate.judged import judged_completions, judgement_of
from tunesmith.evaluate.report_model import (
    Cost,
    Curves,
    DataAccount,
    Estimate,
    Fit,
    Forgetting,
    Lineage,
    Report,
    Sample,
    SeedRun,
    Span,
    Suspect,
)
from tunesmith.evaluate.stats import Settings
from tunesmith.scoring import PRIMARY, Task, score
from tunesmith.types import Completion, Example, Message, RowRef

QUICK = Settings(resamples=100, permutations=99)
ATTACK = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'`|{{ 7*7 }}](javascript:x)"
LABELS = ["charge", "login", ATTACK]


def answers(task: Task) -> tuple[list[str], list[str], list[str]]:
    """(references, base answers, tuned answers) of 30 rows; the base is right on 6, the tuned model on 27."""
    references = [LABELS[i % 3] for i in range(30)]
    base = [r if i % 5 == 0 else "I think " + ATTACK for i, r in enumerate(references)]
    tuned = [r if i % 10 else LABELS[(i + 1) % 3] for i, r in enumerate(references)]
    if task == "label":
        return references, base, tuned
    if task == "judged":
        order = [[0.5, 0, -1], [0, 0.25, 2]]
        said = [
            [json.dumps(order[a != r]) for a, r in zip(x, references, strict=True)] for x in (base, tuned)
        ]
        wanted = [json.dumps([[2, 60 - i], [1, 80 + 2 * i], [0, 50]]) for i in range(30)]
        return wanted, [ATTACK if i == 1 else text for i, text in enumerate(said[0])], said[1]
    if task == "steps":
        said = [
            ["[0.9, 0.2, 0.7]" if a == r else "[0.2, 0.6, null]" for a, r in zip(x, references, strict=True)]
            for x in (base, tuned)
        ]
        return ["[1, 0, null]"] * 30, [ATTACK if i == 1 else text for i, text in enumerate(said[0])], said[1]
    wrap = {
        "json": lambda t: json.dumps({ATTACK: t}),
        "text": lambda t: f"An answer about {t}.",
        "labels": lambda t: json.dumps([t, "charge"]),
        "number": lambda t: json.dumps([len(t), 2 * len(t)]),
        "spans": lambda t: json.dumps([[0, len(t), t], [200, 210, "charge"]]),
    }[task]
    return [*map(wrap, references)], [*map(wrap, base)], [*map(wrap, tuned)]


def classes(task: Task) -> list[str]:
    """What `score` takes as labels."""
    return [ATTACK, "size"] if task == "number" else LABELS


def probabilities(texts: list[str]) -> np.ndarray:
    """(30, 3): 0.6 to 0.9 on the class that each answer names."""
    rows = np.full((len(texts), 3), 0.0)
    for i, text in enumerate(texts):
        rows[i] = (0.4 - 0.1 * (i % 4)) / 2
        rows[i, LABELS.index(text)] = 0.6 + 0.1 * (i % 4)
    return rows


def full_report(task: Task = "label", **changes: Any) -> Report:
    """A report with every part; ATTACK stands wherever a user's text can."""
    references, base_answers, tuned_answers = answers(task)
    sure = probabilities(tuned_answers) if task == "label" else None
    base = score(task, references, base_answers, classes(task))
    tuned = score(task, references, tuned_answers, classes(task), probabilities=sure)
    said = {"judged": (2, 1, 0), "steps": (1, 0, float("nan"))}.get(task, ())
    judged = [Completion(Message("assistant", f"{ATTACK} {n}"), n) for n in said]
    row = Example(RowRef(ATTACK, 1), completions=tuple(judged), stepwise=task == "steps")
    samples = [
        Sample(
            where=f"{ATTACK}:{i}",
            prompt=f"{ATTACK} {i}",
            reference=r,
            base=b,
            tuned=t,
            note=ATTACK,
            completions=judged_completions(row, b, t),
        )
        for i, (r, b, t) in enumerate(zip(references, base_answers, tuned_answers, strict=True))
    ]
    tokens = np.full(30, 4)
    losses = [build.Losses(np.linspace(low, low + 4, 30), tokens) for low in (8.0, 1.0)]
    good, bad = build.pick_examples(tuned, samples, 3)
    every: dict[str, Any] = {
        "name": ATTACK,
        "created": ATTACK,
        "software": {"torch": ATTACK},
        "task": task,
        "primary": PRIMARY[task],
        "model": Lineage(
            base=ATTACK,
            base_hash=ATTACK,
            kind="lora",
            architecture=ATTACK,
            parameters=8_400_000,
            trainable=100_000,
            template=ATTACK,
            template_hash=ATTACK,
            parent_run=ATTACK,
            path=ATTACK,
            base_licence=ATTACK,
        ),
        "data": DataAccount(
            read=100,
            used=90,
            dropped={ATTACK: 10},
            cut=2,
            splits={"train": 50, "test": 30},
            lengths={"median": 40},
            files={ATTACK: ATTACK},
            mapping=ATTACK,
            warnings=[ATTACK],
            preview=[Span(text=ATTACK, supervised=False), Span(text=ATTACK, supervised=True)],
        ),
        "systems": [
            build.system("base", base, note=ATTACK, losses=losses[0], settings=QUICK),
            build.system("tuned", tuned, losses=losses[1], settings=QUICK),
        ],
        "comparisons": build.compare("base", base, tuned, losses=(losses[0], losses[1]), settings=QUICK),
        "confusions": [c for c in [build.confusion_of("tuned", tuned)] if c],
        "calibrations": [c for c in [build.calibration_of(ATTACK, tuned)] if c],
        "judgements": [j for f, s in (("base", base), ("tuned", tuned)) if (j := judgement_of(f, s, QUICK))],
        "classes": build.class_scores(base, tuned),
        "flips": build.flips_of(base, tuned, samples, 2),
        "good": good,
        "bad": bad,
        "suspects": [Suspect(where=ATTACK, loss=7.1, text=ATTACK, answer=ATTACK)],
        "curves": Curves(
            train_loss=[(1, 2.0), (2, 1.0), (3, float("nan"))],
            validation_loss=[(1, 2.0), (3, 1.5)],
            validation={PRIMARY[task]: [(1, 0.2), (3, 0.9)]},
            learning_rate=[(1, 1e-4), (3, 1e-5)],
            grad_norm=[(1, 1.0), (3, 0.4)],
        ),
        "fit": Fit(best_step=3, last_step=3, watch=ATTACK, words=ATTACK),
        "forgetting": Forgetting(before=10, after=10.4, words=ATTACK, texts=ATTACK),
        "cost": Cost(
            seconds={ATTACK: 75.0},
            tokens=12345,
            tokens_per_second=99,
            peak_memory_bytes=2**31,
            machine=ATTACK,
            estimates=[Estimate(what=ATTACK, unit=ATTACK, estimate=1, measured=2)],
        ),
        "config": ATTACK,
        "reasons": {ATTACK: ATTACK},
        "seeds": [SeedRun(seed=i, metrics={PRIMARY[task]: 0.9 - i / 100}) for i in range(2)],
    }
    return Report(**(every | changes))


def bare_report() -> Report:
    """A report of a run without test rows, validation rows or anything else that may be missing."""
    return Report(
        name="bare",
        created="2025-01-02T03:04:05+00:00",
        task="text",
        primary="rouge_l",
        model=Lineage(base="folder/of-base", kind="full"),
        data=DataAccount(read=3, used=3),
    )
