"""What a recipe can say. One `Run` = data + model + method + train + evaluate.

Fields left at null are chosen from the model, the method and the data by `tunesmith.config.defaults`,
which also says why; `tunesmith train recipe.yaml --dry-run` prints them resolved.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Files = Annotated[list[str], BeforeValidator(_listed, json_schema_input_type=str | list[str])]


class Section(BaseModel):
    """Common settings of every section: unknown keys are errors, a field's docstring is its description."""

    model_config = ConfigDict(
        extra="forbid", use_attribute_docstrings=True, validate_assignment=True, allow_inf_nan=False
    )


class DataConfig(Section):
    """Where the rows come from and how they are read and split."""

    train: Files = []
    """Files of training rows: JSONL, CSV or Parquet, plain or .gz, relative to the folder the command is
    started in. One path may be given without a list."""

    validation: Files = []
    """Files for early stopping and for choosing the best step. Empty: split off from `train`."""

    test: Files = []
    """Files scored once, at the end. Empty: split off from `train`."""

    format: Literal["auto", "messages", "prompt", "label", "text"] = "auto"
    """What a row is: `messages` (a conversation), `prompt` (prompt and completion), `label` (a text and
    its class, answered by generation), `text` (plain text). `auto` looks at the columns and says
    what it chose."""

    columns: dict[str, str] = {}
    """Which column plays which part, where the names differ from the usual ones:
    `messages, tools, prompt, completion, system, text, label` -> column name."""

    json_fields: list[str] = []
    """Columns that together are the answer of `prompt` rows, as one JSON object in this order; in place of a
    completion column. A column that a row lacks or leaves empty is left out of its object."""

    instruction: str | None = None
    """Text put before every input of `prompt` and `label` rows, in training and in prediction alike."""

    on_bad_row: Literal["skip", "stop"] = "skip"
    """`skip` counts and lists rows that cannot be used (and stops when they are over 5 %); `stop` stops at
    the first."""

    validation_fraction: Fraction = 0.1
    """Share of `train` split off when `validation` is empty. 0: no validation."""

    test_fraction: Fraction = 0.1
    """Share of `train` split off when `test` is empty. 0: no test, and so no proof."""

    max_length: Positive | None = None
    """Longest row in tokens. Null: the model's context, or what the data needs if that is less."""

    on_long_row: Literal["drop", "cut"] = "drop"
    """A row longer than `max_length`: `drop` it (counted), or `cut` the start of its prompt, never its
    answer; where the answer alone is too long it is cut at the end and counted as a cut answer, without an
    end token."""

    limit: Positive | None = None
    """Use at most this many training rows (a seeded choice); for trials and learning curves."""

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> Self:
        taken = self.validation_fraction * (not self.validation) + self.test_fraction * (not self.test)
        if taken >= 1:
            raise ValueError(
                f"validation_fraction {self.validation_fraction} and test_fraction {self.test_fraction} "
                "leave no rows to train on; make them sum to less than 1"
            )
        return self


class ModelConfig(Section):
    """Which model is tuned, and how its prompts look."""

    base: str = "tunesmith/base-8m"
    """A folder, a hub id, or the embedded `tunesmith/base-8m`. A run folder or an adapter continues that
    run."""

    revision: str | None = None
    """A hub revision (branch, tag or commit)."""

    template: str = "auto"
    """How messages become text. `auto`: the model's own chat template, else `plain`. `plain`: `### User:` and
    `### Assistant:` headings with no new tokens. `raw`: contents joined as they are. Or a path to a Jinja
    file."""

    dtype: Literal["auto", "bfloat16", "float32", "float64"] = "auto"
    """Numbers the model computes in. bfloat16 keeps float32 master weights in the optimizer."""

    path: Literal["auto", "layout", "padded"] = "auto"
    """`layout`: rows lie flat without padding, if the architecture passes the gate; `padded`: one padded row
    each, stock attention. `auto`: the layout where the gate accepts it, else padded, and says which."""

    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Sets every dropout of the architecture. Null: as the model's own configuration. Refused where it has
    none."""


class LoraConfig(Section):
    """Low-rank adapters, arXiv:2106.09685; saved in PEFT's format."""

    rank: Positive = 16
    """Rank of the update."""

    alpha: Annotated[float, Field(gt=0)] | None = None
    """The update is scaled by alpha / rank. Null: 2 x rank."""

    dropout: Fraction = 0.0
    """Dropout on the adapter's input."""

    modules: list[str] = ["all-linear"]
    """Which linear layers: names or regular expressions matched against the full module name;
    `all-linear` is every linear layer but the head."""


class FreezeConfig(Section):
    """Parts that keep their weights in full-parameter tuning (transfer with frozen layers)."""

    layers: Annotated[int, Field(ge=0)] = 0
    """Freeze the first n layers."""

    embeddings: bool = False
    """Freeze the token (and position) embeddings; with tied weights the head too."""

    patterns: list[str] = []
    """Freeze every parameter whose name matches one of these regular expressions."""


class SftConfig(Section):
    """Supervised fine-tuning: maximise the likelihood of the supervised tokens."""

    type: Literal["sft"] = "sft"
    """The training method."""

    supervise: Literal["completion", "assistant", "all"] = "assistant"
    """Which tokens carry loss: the last assistant turn, every assistant turn, or all text (continued
    pre-training)."""

    label_smoothing: Fraction = 0.0
    """Share of the target probability spread evenly over the vocabulary."""

    tuning: Literal["full", "lora"] | None = None
    """All weights, or low-rank adapters. Null: full for small models, LoRA where full does not pay or fit."""

    lora: LoraConfig = LoraConfig()
    """Used when `tuning` is `lora`."""

    freeze: FreezeConfig = FreezeConfig()
    """Used when `tuning` is `full`."""

    @model_validator(mode="after")
    def _no_part_is_ignored(self) -> Self:
        lora, freeze = self.lora != LoraConfig(), self.freeze != FreezeConfig()
        if lora and self.tuning == "full":
            raise ValueError("lora has settings but tuning is full; write tuning: lora, or leave lora out")
        if freeze and self.tuning == "lora":
            raise ValueError(
                "freeze has settings but tuning is lora; write tuning: full, or leave freeze out"
            )
        if lora and freeze:
            raise ValueError(
                "lora and freeze both have settings; LoRA freezes every weight, so leave one out"
            )
        return self


class EarlyStopping(Section):
    """Stop when the watched metric has not improved."""

    patience: Positive = 3
    """Evaluations without improvement before stopping."""

    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """An improvement smaller than this does not count."""


class TrainConfig(Section):
    """The loop: how long, how fast, how often it looks at validation rows and saves."""

    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Peak learning rate. Null: from method and model size."""

    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape after warm-up; cosine and linear end at `final_lr_fraction` of the peak."""

    warmup_fraction: Fraction | None = None
    """Share of all steps over which the rate rises linearly from 0. Null: from the number of steps."""

    final_lr_fraction: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Where cosine and linear end, as a share of the peak."""

    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the training rows. Null: from their number, unless `max_steps` is set."""

    max_steps: Positive | None = None
    """Optimizer steps, instead of `epochs`, which is then not used."""

    batch_size: Positive | None = None
    """Rows in each optimizer step. Null: from the number of rows. How many run at once is
    `micro_batch_tokens`."""

    order: Literal["shuffled", "given"] = "shuffled"
    """Order of the training rows: shuffled anew in each epoch, or as the files give them (a curriculum: easy rows
    first)."""

    micro_batch_tokens: Positive | None = None
    """Most tokens computed at once; a step's gradient does not depend on it. Null: from a probe of
    the memory."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled decay of AdamW (arXiv:1711.05101), on matrices only: not on norms, biases or LoRA."""

    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    """Decay of AdamW's running mean and variance."""

    eps: Annotated[float, Field(gt=0)] = 1e-8
    """AdamW's epsilon."""

    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """The gradient is scaled down to this norm when longer. Null: never."""

    eval_every: Positive | None = None
    """Steps between evaluations on validation rows. Null: about ten times a run, at least once an epoch."""

    eval_generate: Annotated[int, Field(ge=0)] = 64
    """Validation rows answered by generation at each evaluation, for task metrics. 0: loss only."""

    watch: str = "loss"
    """What chooses the best step and stops early: `loss`, or a task metric of the evaluation such as
    `accuracy`, `macro_f1`, `exact_match`, `token_f1`, `rouge_l`, `json_exact`."""

    early_stopping: EarlyStopping | None = EarlyStopping()
    """Null: always run to the end."""

    save_every: Positive | None = None
    """Steps between checkpoints. Null: at each evaluation."""

    keep_checkpoints: Positive = 2
    """Newest checkpoints kept besides the best one."""

    max_minutes: Annotated[float, Field(gt=0)] | None = None
    """Stop training after this long, save, and report on the best step so far."""

    threads: Positive | None = None
    """CPU threads. Null: the machine's physical cores. Bit-identical resuming needs the same number."""


class EvaluateConfig(Section):
    """The proof: what is measured on the test rows."""

    max_new_tokens: Positive | None = None
    """Longest answer generated. Null: 1.5 times the longest training answer, at least 16."""

    batch_size: Positive = 64
    """Rows generated at once."""

    few_shot: Annotated[int, Field(ge=0)] = 3
    """Training examples shown to the base model in its few-shot row. 0: no such row."""

    baselines: bool = True
    """Majority class and TF-IDF + logistic regression, where answers are labels or JSON fields."""

    label_scoring: bool = True
    """For labels: also choose the label of highest likelihood among the known ones (constrained)."""

    bootstrap: Positive = 2000
    """Resamples of the paired bootstrap."""

    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Level of every interval."""

    forgetting: list[str] = ["embedded"]
    """Texts whose perplexity is measured before and after: .txt files (one text a line), files of rows with a
    `text` column, or `embedded` for the built-in general sample. Empty: not measured."""

    limit: Positive | None = None
    """Score at most this many test rows (a seeded choice)."""


class Run(Section):
    """A whole run, as a recipe describes it."""

    name: str = Field(default="run", pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    """Name of the run's folder: small letters, digits, dot, dash and underscore."""

    output: str = "runs"
    """Folder that holds the runs."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seeds everything: splits, order, dropout, adapters, resampling."""

    data: DataConfig = DataConfig()
    """Where the rows come from and how they are read and split."""

    model: ModelConfig = ModelConfig()
    """Which model is tuned, and how its prompts look."""

    method: SftConfig = SftConfig()
    """How the model learns."""

    train: TrainConfig = TrainConfig()
    """The loop."""

    evaluate: EvaluateConfig = EvaluateConfig()
    """The proof."""
