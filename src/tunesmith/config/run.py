"""What a recipe can say. One `Run` = data + model + method + train + evaluate.

Fields left at null are chosen from the model, the method and the data by `tunesmith.config.defaults`,
which also says why; `tunesmith train recipe.yaml --dry-run` prints them resolved.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tunesmith.config.files import Files
from tunesmith.config.judged import Judged
from tunesmith.config.machine import DEVICE
from tunesmith.config.methods import Method, SftConfig
from tunesmith.config.rewards import AnyRewardParts
from tunesmith.config.section import Fraction, Positive, Section


class Reading(Section):
    """Where rows come from, and what their columns mean."""

    train: Files = []
    """Training rows, relative to the folder the command is started in; one may be given without a list. Each is a
    file (JSON Lines, a JSON array in .json, CSV, TSV, Parquet, Arrow; plain, .gz or .zst), a folder of such files or
    saved by Hugging Face `datasets`, `dataset_info.json#name` (or its folder) of LLaMA-Factory, or
    `hub:owner/name`, a data set of the hub (`hub:owner/name@revision/folder`); or `logs/*.jsonl`, an archive (.zip,
    .tar, .tar.gz) of such files, `sql:URL#SELECT …` (or `{sql: SELECT …, url: URL}`), or `s3://bucket/folder`.
    `#split` names a split of a folder, archive or hub data set; without it `train`, `validation` and `test` take the
    split of their name.
    `rows.jsonl*0.5` trains on a seeded half of the rows, `*2` on each row twice, `*1.5` on each row once and a
    half of them twice; rows are weighted after the splits are made."""

    validation: Files = []
    """Rows for early stopping and for choosing the best step, as `train` names them but without a weight. Empty:
    split off from `train`."""

    test: Files = []
    """Rows scored once, at the end, as `train` names them but without a weight. Empty: split off from `train`."""

    format: Literal[
        "auto",
        "messages",
        "prompt",
        "label",
        "labels",
        "number",
        "tags",
        "pairs",
        "text",
        "preference",
        "unpaired",
        "rating",
        "ranking",
        "stepwise",
        "judged",
        "asked",
    ] = "auto"
    """What a row is: `messages` (a conversation), `prompt` (prompt and completion), `label` (a text and its
    class), `labels` (a text and a list of names), `number` (a text and numbers), `tags` (words and a tag for each,
    or a text and spans of it), `pairs` (a text, one that belongs to it, perhaps some that do not), `text` (plain
    text), `preference` (chosen and rejected answers), `unpaired` (an answer, good or bad), `rating` (an answer and a
    number), `ranking` (answers and their ranks or scores), `stepwise` (an answer's steps and a verdict on each),
    `judged` (whichever of these five the columns say),
    `asked` (a prompt that the model is to answer, and a reference where there is a completion).
    `auto` looks at the columns and says what it chose: conversations, prompts and labels first, then plain
    text, and `tags` where there are `tokens`; a label column of lists makes `labels`; `number` and `pairs` are never
    guessed. Answers are text: of `labels` the JSON list of the sorted names, of `number` the number or the JSON list
    of them, of `tags` the JSON list of [start, end, label] in characters, end exclusive. Words are joined by one
    space; B- and I- tags (and S-, E-, L-, U-) make spans, an I- without its B- begins one and is counted as
    `tags_repaired`, other tags make a span of each run. Files of preferences are refused, with what to write to learn
    from their good answers alone."""

    columns: dict[str, str] = {}
    """Which column plays which part, where the names differ from the usual ones: `messages, tools, prompt, input,
    completion, system, history, text, pair, label, sample_weight, labels, tokens, tags, spans, anchor, positive,
    negatives, chosen, rejected, margin, score_chosen, score_rejected, completions, ranks, scores, rating` -> column
    name. `input` follows the prompt (instruction + input + output), `history` is earlier turns as [prompt, answer]
    pairs, `pair` is a second text after the first (sentence1 + sentence2, premise + hypothesis), `sample_weight` how
    much a `label` row counts in the loss. The `label` of an answer is true, yes, good or 1, or false, no, bad or 0;
    `labels` of steps are the same, or numbers between 0 and 1, or null; of `ranks` 1 is the best; `score_chosen` less
    `score_rejected` is the margin of rows without one."""

    message_keys: dict[str, str] = {}
    """How a message of a conversation is spelled, where it is not `role` and `content` (or `from` and `value`):
    `role, content, weight` -> key in the message. A weight is a number, or true or false, for an assistant turn's
    loss."""

    roles: dict[str, str] = {}
    """Names of roles in the file, where they are not the usual ones -> `system, user, assistant, tool`, or
    `function_call` for an assistant turn whose content is a call as JSON."""

    targets: list[str] = []
    """Numeric columns that are the answer of `number` rows, in this order. Empty: the one called score, target,
    rating or value."""

    json_fields: list[str] = []
    """Columns that together are the answer of `prompt` rows, as one JSON object in this order; in place of a
    completion column. A column that a row lacks or leaves empty is left out of its object."""


class DataConfig(Reading):
    """Where the rows come from and how they are read and split."""

    instruction: str | None = None
    """Text put before every input of `prompt`, `label`, `labels` and `number` rows, in training and in prediction
    alike."""

    on_bad_row: Literal["skip", "stop"] = "skip"
    """`skip` counts and lists rows that cannot be used (and stops when they are over 5 %); `stop` stops at
    the first."""

    validation_fraction: Fraction = 0.1
    """Share of `train` split off when `validation` is empty and `train` is no data set of the desk that has one.
    0: no validation."""

    test_fraction: Fraction = 0.1
    """Share of `train` split off when `test` is empty and `train` is no data set of the desk that has one. 0: no test,
    and so no proof."""

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

    device: Annotated[str, Field(pattern=DEVICE)] = "auto"
    """Where it computes: `cpu`, `cuda` (the first GPU) or `cuda:N`. `auto`: the first GPU, where PyTorch sees one."""

    path: Literal["auto", "layout", "padded"] = "auto"
    """`layout`: rows lie flat without padding, if the architecture passes the gate; `padded`: one padded row
    each, stock attention. `auto`: the layout where the gate accepts it, else padded, and says which."""

    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Sets every dropout of the architecture. Null: as the model's own configuration; none for methods that compare
    log-probabilities. Refused where it has none."""


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

    layer_lr_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Each layer's rate is that of the layer above it times this, down to the embeddings (discriminative fine-tuning,
    arXiv:1801.06146, 3.2). 1: all alike."""

    unfreeze_every: Annotated[float, Field(gt=0)] | None = None
    """Gradual unfreezing (arXiv:1801.06146, 3.3), in epochs: at first only the head trains (of a language model the
    top layer and what is above it), and after every so many epochs one more layer from the top; the embeddings come
    last. What `method.freeze` names stays frozen. Needs `method.tuning: full`. Null: all train from the start."""

    keep_frozen: bool | None = None
    """Run the frozen layers below the lowest trained one once for each row and keep what leaves them on the disk (2
    or 4 bytes x width a token) for later passes and evaluations. Null: where it holds and rows are seen more than
    once. True: refuse where it does not hold."""

    neftune_alpha: Annotated[float, Field(gt=0)] | None = None
    """NEFTune (arXiv:2310.05914): in training, uniform noise in [-1, 1] x alpha / sqrt(L x d) is added to the token
    embeddings, of size d, of each row, of L tokens. The paper tries 5, 10 and 15. Each row has noise of its own, so
    rows that begin alike are then computed apart. Null: none."""

    schedule: Literal["cosine", "linear", "constant", "wsd", "inverse_sqrt"] = "cosine"
    """Shape after warm-up. cosine and linear fall at once, and wsd (warm-up, stable, decay: arXiv:2404.06395) in the
    last `decay_fraction` of the steps; these end at `final_lr_fraction` of the peak. inverse_sqrt (arXiv:1706.03762,
    5.3) is sqrt(warm-up steps / step) of it."""

    decay_fraction: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of all steps, at the end, over which wsd falls as 1 - sqrt (arXiv:2405.18392, where it beats a straight
    line)."""

    warmup_fraction: Fraction | None = None
    """Share of all steps over which the rate rises linearly from 0. Null: from the number of steps."""

    final_lr_fraction: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Where cosine, linear and wsd end, as a share of the peak."""

    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the training rows. Null: from their number, unless `max_steps` is set."""

    max_steps: Positive | None = None
    """Optimizer steps, of on-policy methods rollouts; instead of `epochs`, which is then not used."""

    batch_size: Positive | None = None
    """Rows in each optimizer step, of on-policy methods prompts in each rollout. Null: from the number of rows. How
    many run at once is `micro_batch_tokens`."""

    order: Literal["shuffled", "given"] = "shuffled"
    """Order of the training rows: shuffled anew in each epoch, or as the files give them (a curriculum: easy rows
    first)."""

    micro_batch_tokens: Positive | None = None
    """Most tokens computed at once; a step's gradient does not depend on it. Null: from a probe of
    the memory."""

    activation_checkpointing: bool | None = None
    """Layers keep their input alone and run again on the way back (arXiv:1604.06174): the same gradient in less memory,
    for about a third more work. Null: only where a probe of the memory finds no room for one row without it."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled decay of AdamW (arXiv:1711.05101), on matrices only: not on norms, biases or adapters."""

    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    """Decay of AdamW's running mean and variance."""

    eps: Annotated[float, Field(gt=0)] = 1e-8
    """AdamW's epsilon."""

    optimizer_state: Literal["float32", "bfloat16"] | None = None
    """What AdamW keeps for weights that compute in bfloat16: `float32` a master and two moments (12 bytes a weight),
    `bfloat16` the 16 bits that a float32 master has more and moments in bfloat16, the second rounded stochastically (6
    bytes). Null: bfloat16 for full tuning on a CPU."""

    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """The gradient is scaled down to this norm when longer. Null: never."""

    eval_every: Positive | None = None
    """Steps between evaluations on validation rows. Null: about ten times a run, at least once an epoch."""

    eval_generate: Annotated[int, Field(ge=0)] = 64
    """Validation rows answered by generation at each evaluation, for task metrics. 0: loss only."""

    watch: str = "loss"
    """What chooses the best step and stops early: `loss` (for on-policy methods that is the reward), or a task metric
    of the evaluation such as `accuracy`, `macro_f1`, `exact_match`, `token_f1`, `rouge_l`, `json_exact`, or one of
    several parts of a reward, `reward.<name>`."""

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

    @model_validator(mode="after")
    def _the_schedule_has_these(self) -> Self:
        fields = TrainConfig.model_fields
        if self.schedule != "wsd" and self.decay_fraction != fields["decay_fraction"].default:
            raise ValueError(
                f"decay_fraction is set but schedule is {self.schedule}; write schedule: wsd, or leave "
                "decay_fraction out"
            )
        ends = self.final_lr_fraction != fields["final_lr_fraction"].default
        if ends and self.schedule in ("constant", "inverse_sqrt"):
            raise ValueError(
                f"final_lr_fraction is set but schedule is {self.schedule}, which does not end at a share of the "
                "peak; write schedule: cosine, linear or wsd, or leave final_lr_fraction out"
            )
        if self.schedule == "wsd" and (self.warmup_fraction or 0) + self.decay_fraction > 1:
            raise ValueError(
                f"warmup_fraction {self.warmup_fraction} and decay_fraction {self.decay_fraction} are more than "
                "the whole run; make them sum to at most 1"
            )
        return self


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

    rewards: AnyRewardParts = []
    """Of preference, unpaired and ranking: what rewards the answers that base and tuned model write to the test
    prompts, for a win rate; parts as of method.rewards (docs/rewards.md). Empty: no win rate."""


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

    method: Method = SftConfig()
    """How the model learns."""

    train: TrainConfig = TrainConfig()
    """The loop."""

    evaluate: EvaluateConfig = EvaluateConfig()
    """The proof."""

    @model_validator(mode="after")
    def _steps_see_what_the_rollout_saw(self) -> Self:
        if self.method.type == "policy" and self.train.neftune_alpha is not None:
            raise ValueError(
                "train.neftune_alpha has no meaning with method.type policy: with its noise a step's probabilities "
                "would not be those of the answers that were written; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _rewards_have_answers(self) -> Self:
        if self.evaluate.rewards and not isinstance(self.method, Judged):
            fix = "write method.rewards" if self.method.type == "policy" else "leave it out"
            raise ValueError(f"evaluate.rewards has no meaning with method.type {self.method.type}; {fix}")
        return self
