"""What the numbers mean, in plain words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tunesmith.evaluate.stats import Interval
from tunesmith.evaluate.wins import Wins
from tunesmith.scoring import digits, metric

Tone = Literal["better", "worse", "none"]
Curve = Sequence[tuple[int, float]]
"""(step, value), in order of steps."""

RISE = 0.01
"""A validation loss that rises by less than this share counts as level."""

LEANS = 0.05
"""A preference for length that differs from people's by less than this is none."""


def p_words(p: float) -> str:
    """'p < 0.001' or 'p = 0.042'."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def amount(name: str, value: float) -> str:
    """A difference with its sign: in points (hundredths) for shares, three digits otherwise."""
    if metric(name).is_share:
        return f"{100 * value:+.1f}".replace("-", "−")
    return digits(value, "+")


def verdict(name: str, found: Interval, p: float, confidence: float = 0.95) -> tuple[Tone, str]:
    """What may be claimed of a difference tuned - base, and in which words.

    'better' or 'worse' only when the interval excludes zero and the test agrees (p < 1 - confidence).
    """
    unit = " points" if metric(name).is_share else ""
    low, high = (amount(name, v).removeprefix("+") for v in (found.low, found.high))
    facts = (
        f"{amount(name, found.value)}{unit} ({100 * confidence:g} % interval {low} to {high}), {p_words(p)}"
    )
    if p < 1 - confidence and (found.low > 0 or found.high < 0):
        better = (found.value > 0) == metric(name).higher_is_better
        return ("better", f"better: {facts}") if better else ("worse", f"worse: {facts}")
    return "none", f"no difference can be claimed: {facts}, {found.n} row{'s' * (found.n != 1)}"


def describe_fit(train_curve: Curve, val_curve: Curve, best_step: int) -> str:
    """How training went, from the training and validation loss: too short, overfitting, unstable or level.

    best_step: the step whose weights are kept (chosen on validation rows, by loss or by a task metric).
    """
    if any(not math.isfinite(v) for _, v in [*train_curve, *val_curve]):
        step = next(s for s, v in sorted([*train_curve, *val_curve]) if not math.isfinite(v))
        return (
            f"A loss was not a finite number at step {step}: training was unstable; lower the learning rate."
        )
    if len(val_curve) < 2:
        return "There were too few validation losses to say whether the model overfits."
    lowest_step, lowest = min(val_curve, key=lambda point: point[1])
    last_step, last = val_curve[-1]
    kept = _kept(best_step, lowest_step, last_step)
    if lowest_step == val_curve[0][0]:
        return (
            f"Validation loss never fell below its first value ({lowest:.3g} at step {lowest_step}): "
            f"training did not help on unseen rows; check the data, or lower the learning rate{kept}"
        )
    if lowest_step == last_step:
        return (
            f"Validation loss was still at its lowest ({lowest:.3g}) at the last measured step, {last_step}: "
            f"no overfitting; more steps may help{kept}"
        )
    rise = last / lowest - 1 if lowest > 0 else math.inf
    start = f"Validation loss was lowest at step {lowest_step} of {last_step}"
    if rise < RISE:
        return f"{start} and then stayed level (within {100 * RISE:g} %): more steps would not help{kept}"
    change = _train_change(train_curve, val_curve, lowest_step)
    rose = f"{start}; after that it rose {100 * rise:.0f} %"
    if math.isnan(change):
        return f"{rose}: the later steps overfit or were unstable (no training loss to tell them apart){kept}"
    if change < 0:
        return f"{rose} while training loss fell {-100 * change:.0f} %: the later steps overfit{kept}"
    return f"{rose} and training loss did not fall either: the later steps were unstable, not overfit{kept}"


def describe_rewards(curve: Curve) -> str:
    """How training went, from the mean reward of the answers to validation prompts. curve: not empty."""
    (_, first), (last_step, last) = curve[0], curve[-1]
    highest_step, highest = max(curve, key=lambda point: point[1])
    if highest_step == curve[0][0]:
        return (
            f"The reward of validation prompts never rose above its first value ({first:.3g} at step {highest_step}): "
            "training did not help on unseen prompts; hold the policy less near, or raise the learning rate."
        )
    rose = f"The reward of validation prompts rose from {first:.3g} to {highest:.3g}"
    if highest_step == last_step:
        return f"{rose} at the last measured step, {last_step}: more steps may help."
    return f"{rose} at step {highest_step}, and was {last:.3g} at the last measured step, {last_step}."


def describe_wins(found: Wins, base_tokens: float, tuned_tokens: float) -> str:
    """Whose answers to the same prompts are rewarded more; tokens: the mean length of an answer of each."""
    win, lose, tie = (f"{100 * share:.0f} %" for share in (found.win, found.lose, found.tie))
    rate = found.rate
    return (
        f"The tuned model is rewarded more than the base in {win} of {found.num_pairs:,} prompts, less in {lose}, the "
        f"same in {tie}: a win rate of {100 * rate.value:.1f} % ({100 * rate.low:.1f} to {100 * rate.high:.1f}). Its "
        f"answers have {tuned_tokens:.0f} tokens in the mean, those of the base {base_tokens:.0f}."
    )


def describe_forgetting(before: float, after: float, ratio: Interval | None = None) -> str:
    """What tuning cost on general text, from the perplexity there before and after.

    ratio: after / before with its interval, where row losses are known (`stats.perplexity_ratio`).
    """
    change = after / before - 1
    moved = "rose" if change > 0 else "fell"
    facts = f"Perplexity on general text {moved} from {before:.3g} to {after:.3g} ({100 * change:+.1f} %"
    facts = facts.replace("(-", "(−")
    if ratio is not None:
        low, high = (
            f"{100 * (v - 1):+.1f}".replace("-", "−").removeprefix("+") for v in (ratio.low, ratio.high)
        )
        facts += f", interval {low} to {high} %"
    facts += ")"
    if not math.isfinite(change) or change >= 0.5:
        return f"{facts}: severe forgetting; use a lower learning rate or LoRA, or mix in general rows."
    if change >= 0.1:
        return f"{facts}: clear forgetting; it matters if the model is used for anything but this task."
    if change >= 0.02:
        return f"{facts}: slight forgetting."
    return f"{facts}: no forgetting to speak of."


def describe_agreement(name: str, found: Interval, confidence: float = 0.95) -> str:
    """How often a system puts two completions in the same order as people. found: its `pair_accuracy`."""
    facts = (
        f"{name} agrees with people in {100 * found.value:.1f} % of pairs ({100 * confidence:g} % interval "
        f"{100 * found.low:.1f} to {100 * found.high:.1f}); one who guesses agrees in 50 %"
    )
    if found.low > 0.5:
        return f"{facts}."
    return f"{facts}, so it does worse." if found.high < 0.5 else f"{facts}, from which this cannot be told."


def describe_length(name: str, prefers: float, people: float, correlation: float) -> str:
    """Whether a system goes by length. prefers, people: how often each prefers the longer of two completions."""
    facts = (
        f"{name} prefers the longer answer in {100 * prefers:.1f} % of pairs; people do in {100 * people:.1f} %. "
        f"Its scores and length have a rank correlation of {digits(correlation)}"
    )
    if abs(prefers - people) < LEANS:
        return f"{facts}."
    lean = "long" if prefers > people else "short"
    return f"{facts}: it leans to {lean} answers more than people do."


def describe_alarms(alarms: Sequence[Sequence[str]]) -> str:
    """A warning where answers showed signs of a gamed reward; empty where none did. alarms: of each rollout."""
    found = [(number, signs) for number, signs in enumerate(alarms, 1) if signs]
    if not found:
        return ""
    first, last = (f"rollout {number}: {'; '.join(signs)}" for number, signs in (found[0], found[-1]))
    times = f"{len(found)} of {len(alarms)} rollouts"
    then = f", last in {last}" if len(found) > 1 else ""
    showed = f"Answers showed signs of a gamed reward in {times}, first in {first}{then}."
    return f"{showed} Read the samples before and after."


def describe_chosen(chosen: Curve, rejected: Curve) -> str:
    """A warning where chosen completions became less likely in training, from the mean log-probability of a
    completion at each step; empty where there is nothing to say.

    The first fifth of the steps is held against the last. Steps have other rows, so a fall counts only where it is
    more than twice its standard error.
    """
    width = max(len(chosen) // 5, 2)
    if len(chosen) < 2 * width or len(rejected) != len(chosen):
        return ""
    before, after = _ends(chosen, width)
    error = math.sqrt((before.var(ddof=1) + after.var(ddof=1)) / width)
    if not before.mean() - after.mean() > 2 * error:
        return ""
    start, end = _ends(rejected, width)
    gained = (after.mean() - end.mean()) - (before.mean() - start.mean())
    fell = (
        f"Chosen answers became less likely than they were (log-probability {digits(float(before.mean()))} → "
    )
    fell += f"{digits(float(after.mean()))})"
    if gained <= 0:
        return (
            f"{fell} and did not gain on the rejected ones: lower train.learning_rate, or look at the data."
        )
    return (
        f"{fell} although they gained on the rejected ones: add method.sft_weight, lower train.learning_rate, or raise "
        "method.beta."
    )


def _kept(best_step: int, lowest_step: int, last_step: int) -> str:
    if best_step == 0:
        return "; the base's own weights are kept, no step was better by the watched metric."
    if best_step == lowest_step:
        return "." if best_step == last_step else "; the best step is kept."
    return f"; step {best_step} is kept, which was best by the watched metric."


def _train_change(train_curve: Curve, val_curve: Curve, step: int) -> float:
    """Relative change of the training loss from `step` to the end. Each level is a mean over as many steps as
    lie between two evaluations, since the loss of one batch is noise. NaN (unknown) without points."""
    steps = [s for s, _ in val_curve]
    width = float(np.median(np.diff(steps)))
    ends = (step, steps[-1])
    levels = [[v for s, v in train_curve if end - width < s <= end] for end in ends]
    if not all(levels):
        return math.nan
    before, after = (float(np.mean(level)) for level in levels)
    return after / before - 1 if before > 0 else math.nan


def _ends(curve: Curve, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    values = np.array([value for _, value in curve], np.float64)
    return values[:width], values[-width:]
