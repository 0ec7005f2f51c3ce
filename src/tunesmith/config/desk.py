"""What a recipe of the data desk can say: the rows, and the steps that they go through.

A step that is named runs, in this order whatever the order in the file: review, clean, scrub, dedup, split, balance.
Decisions are of rows as they are read, so they come first; then cleaning, so that personal data are written as
recognisers know them, and rows that are alike can be seen to be; the split, so that it is of the rows that are left;
and last what makes training rows even, which adds rows.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tunesmith.config.files import Files
from tunesmith.config.run import DataConfig, Reading
from tunesmith.config.section import Positive, Section

Share = Annotated[float, Field(ge=0, le=1)]
STEPS = ("review", "clean", "scrub", "dedup", "split", "balance")
"""In the order in which they run."""


class DeskData(Reading):
    """Where the rows come from, and what their columns mean; as in a training recipe."""

    def files(self, split: str) -> list[str]:
        return list(dict(self)[split])

    def as_data_config(self) -> DataConfig:
        return DataConfig(**self.model_dump())


class Making(Section):
    """What every run of the desk that adds a version is told."""

    output: str = "dataset"
    """Folder of the data set. Each run of the desk adds a version to it; earlier ones stay."""

    format: Literal["jsonl", "parquet"] = "jsonl"
    """How rows are written."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Of everything that is drawn."""

    data: DeskData = DeskData()
    """Where the rows come from."""


class Review(Section):
    """Carries out what a person decided about rows with `tunesmith data review`: drops and relabels them."""

    decisions: str
    """The file of decisions."""

    stale: Literal["refuse", "skip"] = "refuse"
    """A decision on a row that is not there, or is another by now: `refuse` stops, `skip` counts it and leaves it
    out."""


class Clean(Section):
    """Mends texts and drops rows that teach nothing. Each rule is on or off, and counted by its name."""

    html: bool = True
    """Tags and entities of HTML become the text that a browser shows. Tags that are none of HTML's, and code between
    ```, are left alone."""

    encoding: bool = True
    """Text that was decoded by the wrong table, such as `cafÃ©` for `café`, is mended where ftfy is certain."""

    unicode: bool = True
    """Characters composed (NFC), line ends as one line feed; control characters, directional marks and characters of no
    width are taken out, but for the joiners that emoji and some scripts are written with."""

    special_tokens: bool = True
    """Marks by which templates tell turns apart (`<|im_end|>`, `[INST]`, `</s>` …) and tokenisers texts (`[SEP]`,
    `<pad>` …) are taken out of contents, where they would end the turn."""

    boilerplate: bool = True
    """Lines that stand under mails and pages whatever these say (sent from my phone, unsubscribe, all rights reserved,
    confidentiality notices) are taken out."""

    whitespace: bool = True
    """No blanks at ends of lines and texts, no runs of them within a line, at most one empty line. Code between ``` is
    left alone."""

    labels: bool = True
    """Labels alike but for case, blanks, `_` and `-` become the commonest of them; one of five letters or more that is
    a single letter from one ten times as frequent becomes that one. Digits are never mistyped."""

    label_in_text: bool = True
    """Lines that state the row's own label (`Category: billing`) are taken out of its text; a row of which nothing
    would be left is dropped."""

    usable: bool = True
    """Rows that training would refuse are dropped for the same reasons."""

    repetition: Share = 0.5
    """Rows with a text of which more than this share are words of sequences of five that stood in it before are
    dropped. 1: never."""

    refusals: bool = True
    """Rows whose answer is a refusal (`As an AI language model, I cannot …`) are dropped."""

    placeholders: bool = True
    """Rows with an answer or prompt that nobody filled in (lorem ipsum, TODO, N/A, [insert name]) are dropped."""

    min_words: Annotated[int, Field(ge=0)] = 0
    """Rows with a prompt and answer of fewer words together are dropped."""

    max_words: Positive | None = None
    """Rows with a prompt and answer of more words together are dropped. Null: none."""

    languages: list[str] = []
    """Rows in other languages than these (ISO 639-1, such as en) are dropped, as py3langid tells them. Empty: none.
    Texts of fewer than five words are kept."""


class Scrub(Section):
    """Personal data in every text of a row but its labels, also in columns that training does not read. Numbers that a
    file holds as numbers are not looked at."""

    kinds: list[str] = []
    """What is looked for. Empty: all that `tunesmith data kinds` lists, PERSON where a model is named."""

    how: Literal["mask", "hash", "pseudonym"] = "mask"
    """`mask`: the kind in its place, `<EMAIL>`. `hash`: the kind and a keyed hash (HMAC-SHA256) of what stood there, so
    that equal values stay equal. `pseudonym`: an invented value of the same kind, the same for equal values."""

    key: str | None = None
    """Of hash and pseudonym: the name of the environment variable that holds the key. Without the key nobody can try
    values until a hash fits."""

    names_model: str | None = None
    """Folder of a run of `method.type=tag` that learned names of people; what it calls `PER`, `PERSON` or `NAME`
    counts. Null: names are not looked for."""

    columns_kept: list[str] = []
    """Columns that are left as they are."""

    min_score: Annotated[float, Field(ge=0, le=1)] = 0.4
    """How sure a recogniser must be (Presidio's scores: a pattern's own, raised by words nearby and by checksums)."""

    keep_originals: bool = False
    """Keep in changes.jsonl what was scrubbed, beside the scrubbed rows. Otherwise the ledger shows masks as well, and
    `tunesmith data restore` reads originals from the files that the rows came from, if these are as they were."""

    @model_validator(mode="after")
    def _a_key_where_one_is_needed(self) -> Self:
        if self.how != "mask" and self.key is None:
            raise ValueError(
                f"how {self.how} needs a key; put one into an environment variable, and its name into key"
            )
        if self.how == "mask" and self.key is not None:
            raise ValueError("key has no meaning with how mask; leave it out")
        return self


class Meaning(Section):
    """Rows that say the same in other words, as a sentence encoder tells."""

    encoder: str
    """Folder of a sentence encoder such as all-MiniLM-L6-v2, or of a run of `method.type=embed`."""

    similarity: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Cosine of the embeddings from which on two rows mean the same. What is right depends on the encoder: try it with
    --dry-run, and look at the examples."""


class Dedup(Section):
    """Rows that say what another one says: the first one stays, of test before validation before training rows."""

    id: str | None = None
    """Column whose value names a row: of rows with the same value the first one stays, whatever they say. Null:
    none."""

    exact: bool = True
    """Rows equal in prompt and answer but for case and white space."""

    near: Share | None = 0.8
    """Rows whose sets of five-letter sequences are alike: Jaccard similarity of at least this, estimated by MinHash.
    Null: not looked for."""

    by: Literal["row", "prompt"] = "row"
    """What must be alike: prompt and answer, or the prompt alone."""

    permutations: Annotated[int, Field(ge=16, le=1024)] = 128
    """Hashes of each row. More make the estimate finer: its standard error is sqrt(s (1 - s) / permutations)."""

    meaning: Meaning | None = None
    """Rows whose embeddings are alike. Null: not looked for."""

    against: Files = []
    """Files of evaluation rows (benchmarks, other test sets). Rows that share a sequence of `ngram` words with one of
    them are dropped, and the file is named."""

    ngram: Annotated[int, Field(ge=3)] = 13
    """Words of a sequence that counts as contamination (13 as of arXiv:2005.14165, C)."""


class Split(Section):
    """Train, validation and test, with rows that belong together on one side."""

    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the rows."""

    test: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the rows."""

    folds: Annotated[int, Field(ge=2)] | None = None
    """Deal the rows out to so many folds: those of `fold` are test, those of the next one validation, so that over all
    folds each row is test once. Null: one split, by the shares above."""

    fold: Annotated[int, Field(ge=0)] | None = None
    """Which of the folds is test, from 0."""

    group: str | None = None
    """Column (a customer, a document) whose rows stay together. Null: rows with the same prompt do."""

    time: str | None = None
    """Column of times (ISO 8601, or numbers): the last rows are test, those before validation. Null: at random."""

    stratify: bool = True
    """Labels in the same shares in all parts, as nearly as groups let them."""

    near: Share | None = 0.8
    """Rows whose prompts are that alike (as in dedup) stand on one side. Null: only equal ones."""

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation {self.validation} and test {self.test} leave no rows to train on; "
                "make them sum to less than 1"
            )
        if (self.folds is None) != (self.fold is None) or (self.fold or 0) >= (self.folds or 1):
            raise ValueError(
                f"folds {self.folds} with fold {self.fold}; write both, fold from 0 to folds - 1"
            )
        if self.folds == 2:
            raise ValueError("two folds leave no rows to train on; write folds: 3 or more")
        if self.folds is not None and self.time is not None:
            raise ValueError("folds shuffle times; leave folds or time out")
        return self


class Balance(Section):
    """Training rows whose labels do not depend on a group of people: against a bias that `data audit` found."""

    how: Literal["reweigh", "sample", "counterfactual"] = "reweigh"
    """`reweigh` writes a weight into each row (column sample_weight, which training reads); `sample` repeats rows of
    groups that have a label too seldom, and drops some where one has it more than twice too often; `counterfactual`
    adds each row that has words of a group again, with the words of every other group in their place."""

    group: str
    """A dimension of word lists (gender, first_name, name_origin, nationality, or one of `lists`), else a column."""

    lists: str | None = None
    """A YAML file of word lists: dimension -> group -> words; beside those that come with the package."""


class Desk(Making):
    """A recipe of the data desk: rows, and the steps that they go through."""

    ray: str | None = None
    """host:port of the head of a Ray cluster whose machines work on the rows; this one must be part of it. Null:
    processes here, one for each core."""

    review: Review | None = None
    """Decisions on rows. Absent: none."""

    clean: Clean | None = None
    """Mend texts, drop rows that teach nothing. Absent: not done; empty: as by default."""

    scrub: Scrub | None = None
    """Personal data. Absent: not looked for; empty: as by default."""

    dedup: Dedup | None = None
    """Rows that repeat others. Absent: not done; empty: as by default."""

    split: Split | None = None
    """Train, validation and test. Absent: as the files say; empty: as by default."""

    balance: Balance | None = None
    """Training rows made even. Absent: not done."""

    @field_validator(*STEPS, mode="before")
    @classmethod
    def _named_is_wanted(cls, value: Any) -> Any:
        return {} if value is None else value

    @model_validator(mode="after")
    def _files_are_split_once(self) -> Self:
        if self.split is not None and (self.data.validation or self.data.test):
            raise ValueError(
                "split makes validation and test rows of data.train; leave it out, or name them all there"
            )
        return self

    @model_validator(mode="after")
    def _a_model_stays_here(self) -> Self:
        if self.ray is not None and self.scrub is not None and self.scrub.names_model is not None:
            raise ValueError(
                "scrub.names_model runs on this machine alone; leave ray out, or make it two runs"
            )
        return self

    def steps(self) -> list[str]:
        return [name for name in STEPS if dict(self)[name] is not None]
