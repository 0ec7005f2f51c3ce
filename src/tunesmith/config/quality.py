"""What scoring the quality of rows can be told."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tunesmith.config.desk import DeskData, Share
from tunesmith.config.section import Section


class Quality(Section):
    """Which rows, and by which models they are scored."""

    output: str | None = None
    """Folder of the table. Null: of a data set of the desk `quality/` beside its versions; of files, none is
    written."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Of everything that is drawn."""

    data: DeskData = DeskData()
    """Where the rows come from."""

    encoder: str | None = None
    """Of rows with a class: a pre-trained model (such as a sentence encoder's folder) whose states the probe reads.
    Null: TF-IDF of words and pairs of words."""

    model: str | None = None
    """Of rows with an answer: the model or run whose loss on it is measured. Null: the embedded base model."""

    folds: Annotated[int, Field(ge=2)] = 5
    """Each row is judged by a probe that saw the rows of the other folds alone."""

    repeats: Annotated[int, Field(ge=1)] = 2
    """Times that the rows are dealt into folds anew: by how far a row's probability moves, it is difficult."""

    strength: Annotated[float, Field(gt=0)] = 0.03
    """Of the probe, a logistic regression on standardised features: scikit-learn's C. Less keeps it from learning
    wrong labels by heart."""

    near: Share | None = 0.8
    """Prompts that are that alike (as in dedup) are judged by the same fold, and contradict one another where their
    answers differ. Null: equal ones alone."""
