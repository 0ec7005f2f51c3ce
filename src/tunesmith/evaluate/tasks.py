"""What a report and a model card say of each task. A new task is a new entry of SHOWN."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.scoring import Task


@dataclass(frozen=True, slots=True)
class PartOf:
    """What an answer consists of, where a table lists it part by part.

    noun: what a part is. measure: what the table shows of it. metric: whose unit that has; `<metric>.<part>`
    names it where parts are metrics of their own. counted: what a part occurs in.
    """

    noun: str
    measure: str
    metric: str
    counted: str = "test rows"


@dataclass(frozen=True, slots=True)
class Shown:
    """title: of the task. answers: what the model does. limit: what a user must know. turned: what became of
    a row that differs between base and tuned, for better and for worse. sure_of: what has a confidence, one right or
    wrong answer each. confidence: what it is, where systems do not give it themselves."""

    title: str
    answers: str
    limit: str
    part: PartOf | None = None
    turned: tuple[str, str] = ("became right", "became wrong")
    sure_of: str = "rows"
    confidence: str = ""


CLASSES = PartOf("class", "F1", "macro_f1")

SHOWN: dict[Task, Shown] = {
    "label": Shown(
        "classification",
        "answers with the class of a text",
        "It always tends to name one of the classes it was taught, also for texts that belong to none of them.",
        CLASSES,
    ),
    "labels": Shown(
        "classification with several classes a text",
        "answers with the classes of a text",
        "It knows the classes it was taught and no others; a class that is rare in its data is often missed.",
        CLASSES,
    ),
    "json": Shown(
        "JSON answers",
        "answers with a JSON object",
        "An answer can be well-formed JSON and still be wrong; check fields that matter.",
        PartOf("field", "accuracy", "accuracy"),
    ),
    "text": Shown(
        "free text",
        "answers in free text",
        "Its answers can be fluent and wrong; have a person check what matters.",
    ),
    "number": Shown(
        "regression",
        "answers with a number",
        "It gives a number for any text, without saying how sure it is; far from its training data it can be far off.",
        PartOf("target", "mean absolute error", "mae"),
        ("came nearer to the reference", "went farther from it"),
    ),
    "spans": Shown(
        "tagging",
        "marks pieces of a text",
        "It marks the kinds of pieces it was taught and no others; a name it never saw can be missed.",
        PartOf("label", "F1", "span_f1", "spans"),
    ),
    "ranking": Shown(
        "ranking by embeddings",
        "gives each text a vector; texts that belong together lie near one another",
        "It always finds something nearest, also where nothing belongs; near in words is not always near in meaning.",
        turned=("came first", "came first no longer"),
    ),
    "judged": Shown(
        "judging answers",
        "prefers the answers that people prefer",
        "It has the taste of the people who judged its data: what it puts first can still be wrong or harmful, or "
        "merely long.",
        turned=("came nearer to what people said", "went farther from it"),
        sure_of="pairs",
        confidence="Its scores are taken as rewards: sigmoid of their difference is how sure it is of a pair. "
        "Log-probabilities of whole answers are no rewards, and by this measure usually far too sure.",
    ),
    "steps": Shown(
        "judging the steps of answers",
        "says of each step of an answer whether it is right",
        "It knows the kind of steps that it was trained on. A step that it finds right can be wrong, and an answer of "
        "such steps too.",
        turned=("has more steps right", "has fewer steps right"),
        sure_of="steps",
        confidence="The probability of what it says of a step.",
    ),
    "rewarded": Shown(
        "learning from rewards",
        "writes answers that its rewards value",
        "It learned what its rewards measure and nothing else: where they can be gamed, it may do so.",
        turned=("got a higher reward", "got a lower reward"),
    ),
}
