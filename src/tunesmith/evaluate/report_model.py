"""What a report holds. This is metrics.json; report.html and report.md show the same facts.

Everything is plain data: numbers that are not finite are written as the texts "NaN", "Infinity".
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tunesmith.scoring import Task

Points = list[tuple[int, float]]
"""(step, value), in order of steps."""


class Part(BaseModel):
    """Common settings: unknown keys are errors, NaN survives JSON."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="strings")


class Lineage(Part):
    """Where the tuned model comes from."""

    base: str
    """Folder or hub id of the base model."""
    base_hash: str = ""
    """Hash of its weights."""
    kind: str
    """`full`: all weights; else the kind of adapter on the base, such as `lora`."""
    architecture: str = ""
    """Class name, such as LlamaForCausalLM."""
    parameters: int = 0
    trainable: int = 0
    template: str = ""
    """Which chat template: the model's own, plain, raw, or a file."""
    template_hash: str = ""
    parent_run: str = ""
    """The run this one continues."""
    path: str = ""
    """How rows are computed: layout or padded, and why."""
    base_licence: str = ""


class Span(Part):
    """A piece of the preview example."""

    text: str
    supervised: bool
    """Whether its tokens carry loss."""


class DataAccount(Part):
    """What became of the rows."""

    read: int
    used: int
    dropped: dict[str, int] = {}
    """reason -> rows."""
    cut: int = 0
    """Rows used, but shortened to the greatest length."""
    splits: dict[str, int] = {}
    """train, validation, test -> rows."""
    lengths: dict[str, float] = {}
    """Such as median, p95, longest -> tokens of a training row."""
    files: dict[str, str] = {}
    """file -> hash of its content."""
    mapping: str = ""
    """How columns became conversations, in one line."""
    warnings: list[str] = []
    preview: list[Span] = []
    """One training example as the model sees it."""


class Measured(Part):
    """A metric with its interval."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int = 0
    """Rows it was measured on."""
    method: str = ""
    """bootstrap, Wilson; empty: no interval."""


class System(Part):
    """Something that answers the test rows."""

    name: str
    """base, tuned, few-shot base, base (choosing a label), majority, tfidf ..."""
    note: str = ""
    """How its answers came about."""
    metrics: dict[str, Measured]


class Comparison(Part):
    """tuned minus another system, on one metric and the same rows."""

    metric: str
    base: str
    """Name of the other system."""
    tuned: str = "tuned"
    difference: Measured
    p: float
    test: str
    tone: Literal["better", "worse", "none"]
    words: str


class Confusion(Part):
    """Which classes were taken for which, by one system."""

    system: str
    labels: list[str]
    counts: list[list[int]]
    """(L, L + 1): rows are references, columns answers, the last column no valid label."""


class ReliabilityBin(Part):
    """The rows whose confidence lies in (low, high]."""

    low: float
    high: float
    confidence: float
    """Their mean confidence: the probability of the class chosen."""
    accuracy: float
    """The share that is right."""
    count: int


class Threshold(Part):
    """Answering only where confidence is at least `threshold`."""

    threshold: float
    coverage: float
    """Share of rows that are answered."""
    accuracy: float
    """Share of those that is right; NaN where none is answered."""


class Calibration(Part):
    """Whether the probabilities of one system can be believed."""

    system: str
    ece: float
    """Expected calibration error, over equal-width bins."""
    bins: list[ReliabilityBin]
    """Those that have rows, from low to high confidence."""
    thresholds: list[Threshold] = []


class LengthGroup(Part):
    """Pairs of completions of which one is longer by about as many characters."""

    characters: float
    """The median difference."""
    prefers_longer: float
    people_prefer_longer: float
    count: int


class Judgement(Part):
    """How one system agrees with the people who judged completions, and whether it goes by length."""

    system: str
    words: list[str]
    lengths: list[LengthGroup] = []
    """Of rows of several completions: from the least difference to the greatest."""


class ClassScore(Part):
    """One class, label of spans, field of JSON answers or target, before and after."""

    name: str
    support: int
    """Test rows that have it; of a label of spans, how many spans."""
    base: float | None = None
    tuned: float | None = None
    """F1 of a class or a label; accuracy of a field; mean absolute error of a target."""


class Judged(Part):
    """A completion, or a step, with what people and systems gave it; None where they gave no number."""

    text: str
    people: float | None
    base: float | None = None
    tuned: float | None = None


class Sample(Part):
    """A test row with what was asked, what was right and what came."""

    where: str = ""
    """file:line."""
    prompt: str
    reference: str
    base: str = ""
    tuned: str = ""
    note: str = ""
    completions: list[Judged] = []
    """Where people judged completions; they stand for reference, base and tuned then."""


class Written(Part):
    """What base and tuned model wrote to some test prompts, chosen by the seed alone."""

    how: str
    """How the answers came about."""
    samples: list[Sample]


class Flips(Part):
    """Rows on which base and tuned differ in being right; for numbers, in how near they are."""

    fixed: int
    broken: int
    fixed_examples: list[Sample] = []
    broken_examples: list[Sample] = []


class Suspect(Part):
    """A training row that the tuned model still finds hard: often a wrong label."""

    where: str
    loss: float
    text: str
    answer: str


class Curves(Part):
    """What was measured during training."""

    loss: str = "Loss"
    """What the loss is, with its unit where it has one."""
    train_loss: Points = []
    validation_loss: Points = []
    validation: dict[str, Points] = {}
    """metric -> points."""
    learning_rate: Points = []
    grad_norm: Points = []
    train_metrics: dict[str, Points] = {}
    """What the method measured of each training step besides its loss -> points."""
    rollouts: dict[str, Points] = {}
    """What was measured of the answers of each rollout -> points, at the step before which they were written."""
    warnings: list[str] = []
    """What these say against the run, and what to do."""


class Fit(Part):
    """How training went."""

    best_step: int
    last_step: int
    watch: str = "loss"
    """What chose the best step."""
    words: str


class Forgetting(Part):
    """Perplexity on general text."""

    before: float
    after: float
    words: str
    texts: str = ""
    """Which texts."""


class Estimate(Part):
    """What was foretold and what came."""

    what: str
    unit: str = ""
    estimate: float
    measured: float


class StepProfile(Part):
    """Where the time of some training steps went."""

    steps: int
    seconds: float
    parts: dict[str, float]
    """part -> seconds, the longest first."""
    flops: float
    """Operations of the matrix products, a multiplication with its addition as two."""
    limit: float
    """Operations a second of the largest product by itself."""
    fraction: float | None
    """Of the limit, over the steps' whole time; None where there was no product."""


class Cost(Part):
    """What the run took."""

    seconds: dict[str, float] = {}
    """phase -> wall seconds."""
    tokens: int = 0
    tokens_per_second: float = 0.0
    peak_memory_bytes: int = 0
    machine: str = ""
    estimates: list[Estimate] = []
    rollouts: dict[str, float] = {}
    """Of training on the model's own answers: what its steps did -> seconds."""
    profile: StepProfile | None = None


class SeedRun(Part):
    """The same recipe with another seed."""

    seed: int
    run: str = ""
    metrics: dict[str, float]


class Report(Part):
    """All that is known about a run. Parts that are absent say why in `absent`."""

    version: Literal[1] = 1
    name: str
    created: str
    """ISO 8601, with time zone."""
    software: dict[str, str] = {}
    """package -> version."""
    task: Task
    primary: str
    """The metric on which the headline stands."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    model: Lineage
    data: DataAccount
    systems: list[System] = []
    """Empty: nothing was scored."""
    comparisons: list[Comparison] = []
    confusions: list[Confusion] = []
    calibrations: list[Calibration] = []
    """Of the systems that give probabilities."""
    judgements: list[Judgement] = []
    """Of base and tuned, where people judged completions."""
    classes: list[ClassScore] = []
    """Classes or labels of spans with their F1, fields with their accuracy, or targets with their error."""
    flips: Flips | None = None
    good: list[Sample] = []
    bad: list[Sample] = []
    suspects: list[Suspect] = []
    curves: Curves = Curves()
    fit: Fit | None = None
    forgetting: Forgetting | None = None
    written: Written | None = None
    """Where answers are judged or rewarded: such as were written."""
    wins: str = ""
    """How often the tuned model's answers are rewarded more than those of the base, in words."""
    cost: Cost = Cost()
    config: str = ""
    """The resolved recipe as YAML."""
    reasons: dict[str, str] = {}
    """setting -> why it has its value, where the recipe left it open."""
    seeds: list[SeedRun] = []
    absent: dict[str, str] = {}
    """part (systems, confusions, flips, suspects, fit, forgetting ...) -> why it is not here."""
