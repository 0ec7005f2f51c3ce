"""Rows of texts and classes as pairs for embeddings: each text with another of its class, drawn by the seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tunesmith.data.account import Account
from tunesmith.errors import DataError
from tunesmith.types import Example, Message


def class_pairs(examples: Sequence[Example], seed: int, account: Account) -> tuple[Example, ...]:
    """The label stays with the row, so that no text of its class is held against it. A row whose class has no other
    text is withdrawn. Raises DataError for rows of two texts, or with weights of their own."""
    texts: dict[str, dict[str, None]] = {}
    for example in examples:
        assert example.label is not None, "rows of classes"
        if example.pair is not None:
            raise DataError(
                f"{example.ref}: a second text beside a class, for embeddings",
                "one text and its class, or the two texts as anchor and positive",
                "write data.format=pairs, or take the second text's column out",
            )
        if example.messages[-1].weight is not None:
            raise DataError(
                f"{example.ref}: a weight of the row (sample_weight), for embeddings",
                "rows that count alike",
                "take the column out, or train with method.type=classify or sft",
            )
        texts.setdefault(example.label, {})[example.texts[0]] = None
    generator = np.random.default_rng((seed, 5))
    pairs = []
    for example in examples:
        own = example.texts[0]
        others = [text for text in texts[str(example.label)] if text != own]
        if not others:
            account.withdraw(example.ref, "alone_in_its_class", f"'{example.label}' has no other text")
            continue
        positive = others[int(generator.integers(len(others)))]
        pairs.append(replace(example, messages=(Message("user", own), Message("assistant", positive))))
    return tuple(pairs)
