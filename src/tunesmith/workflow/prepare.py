"""From a recipe to rows ready to train on: read, split, render, resolve the defaults, say what happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from tunesmith import storage
from tunesmith.config.defaults import Facts, resolve
from tunesmith.config.judged import UnpairedConfig
from tunesmith.config.machine import physical_cores
from tunesmith.config.methods import ClassifyConfig, EmbedConfig, SftConfig
from tunesmith.config.policy import PolicyConfig
from tunesmith.config.rewards import ModelReward
from tunesmith.config.run import Run
from tunesmith.config.tuning import Writes
from tunesmith.config.weights import known_parameters
from tunesmith.core import device as devices
from tunesmith.data import folders
from tunesmith.data.account import Account
from tunesmith.data.ahead import Ahead, accounted, ahead_of_reading
from tunesmith.data.class_pairs import class_pairs
from tunesmith.data.encode import HeadEncoder, heads, span_labels
from tunesmith.data.flat import refs_of, sizes
from tunesmith.data.load import Splits, few_collections, lengths, load_splits, preview
from tunesmith.data.making import Making
from tunesmith.data.others import with_others
from tunesmith.data.pairs import PairEncoder, encode_pairs
from tunesmith.data.render import Renderer
from tunesmith.data.template import TemplateChoice, apply_choice, choose_template
from tunesmith.data.tokens import chats
from tunesmith.data.trees import longest_path, tokenise_trees
from tunesmith.errors import DataError
from tunesmith.models.files import EMBEDDED, locate
from tunesmith.models.heads import HeadSpec, spec_of
from tunesmith.models.load import Source, find, load_tokenizer, read_config
from tunesmith.scoring import Task, detect_task
from tunesmith.scoring.rewards import Rewards
from tunesmith.types import EventSink, Example, TokenRow, silent
from tunesmith.workflow import judged, own
from tunesmith.workflow.heads import (
    TASKS,
    AnyEncoder,
    check_pairs,
    context_of,
    encoder_of,
    with_format,
    with_outputs,
)
from tunesmith.workflow.kept import SPLITS, Kept, keep, key_of, take


@dataclass
class Prepared:
    """Everything that is known before a model is loaded.

    run: resolved. reasons: dotted key -> why. choice: None where a head reads texts as they are.
    rows: split -> token rows; `splits` holds the examples they come from.
    """

    run: Run
    reasons: dict[str, str]
    source: Source
    tokenizer: Any
    choice: TemplateChoice | None
    renderer: AnyEncoder
    splits: Splits
    rows: Mapping[str, Sequence[TokenRow]]
    context: int

    @cached_property
    def rewards(self) -> Rewards:
        """Of answers that the model writes. Reward models are opened once for the whole run."""
        method = self.run.method
        parts = method.rewards if isinstance(method, PolicyConfig) else self.run.evaluate.rewards
        return own.rewards_of(parts, self.tokenizer)

    @property
    def head(self) -> HeadSpec | None:
        return spec_of(self.run.method)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes: of the head (of a tagger, its spans' labels), or those of the training rows."""
        if self.head is None:
            return self.splits.labels
        if self.head.method == "reward":
            return ()
        return span_labels(self.head.labels) if self.head.method == "tag" else self.head.labels

    def task(self, examples: Sequence[Example]) -> Task:
        """How answers are scored: as the head's, or as what these answers are (labels, JSON objects, text)."""
        if judged.is_judged(self.run.method):
            return judged.task_of(self.run.method)
        if isinstance(self.run.method, PolicyConfig):
            return "rewarded"
        if isinstance(self.renderer, HeadEncoder):
            return TASKS[self.renderer.kind]
        known = [*self.splits.train[:1000], *examples]
        return detect_task([e.answer for e in known], [e.label for e in known])

    def examples(self, split: str) -> list[Example]:
        """The examples of a split whose rows are in use."""
        kept = set(refs_of(self.rows[split]))
        examples: Sequence[Example] = vars(self.splits)[split]
        return [e for e in examples if e.ref in kept]


def absolute(run: Run) -> Run:
    """Paths made absolute, so that a run can be resumed from any folder."""
    data = run.data.model_dump()
    for name in ("train", "validation", "test"):
        data[name] = [folders.absolute(entry) for entry in data[name]]
    model = run.model.model_dump()
    model["base"], model["template"] = _model_folder(model["base"]), _absolute(model["template"])
    evaluate = run.evaluate.model_dump()
    evaluate["forgetting"] = [_absolute(path) for path in evaluate["forgetting"]]
    out = run.model_copy(deep=True)
    # Only what was set is set again, so that `resolve` still tells defaults from choices.
    for section, values in ((out.data, data), (out.model, model), (out.evaluate, evaluate)):
        for name in section.model_fields_set & values.keys():
            setattr(section, name, values[name])
    if isinstance(out.method, PolicyConfig) and out.method.critic.base is not None:
        out.method.critic.base = _model_folder(out.method.critic.base)
    if (
        isinstance(out.method, PolicyConfig)
        and out.method.vllm is not None
        and out.method.vllm.folder is not None
    ):
        out.method.vllm.folder = str(Path(out.method.vllm.folder).expanduser().resolve())
    rewards = out.method.rewards if isinstance(out.method, PolicyConfig) else []
    for part in (*rewards, *out.evaluate.rewards):
        if isinstance(part, ModelReward):
            part.path = _absolute(part.path)
    return out


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve()) if Path(path).expanduser().exists() else path


def _model_folder(base: str) -> str:
    """A run's folder becomes its model/, which an adapter's configuration can name to any other software."""
    return str(locate(base).resolve()) if base != EMBEDDED and Path(base).expanduser().is_dir() else base


@few_collections()
def prepare(run: Run, folder: Path, sink: EventSink, now: datetime | None = None) -> Prepared:
    """Read and render the rows; choose what the recipe left open; print the account.

    now: the date that templates see; a resumed run passes its first one.
    """
    now = now or datetime.now()
    sink("phase", name="data", text=", ".join(Path(p).name for p in run.data.train))
    source = find(run.model.base, run.model.revision)
    tokenizer = load_tokenizer(source)
    config = read_config(source)
    context = context_of(config, tokenizer, max(run.method.virtual_tokens(), source.virtual_tokens))
    run = with_format(run)
    limit = min(run.data.max_length or context, context - own.room_for_answers(run.method, context))
    key = key_of(run, tokenizer, [context, limit, config.is_encoder_decoder], now)
    kept = take(key, folder, sink) if key is not None else None
    written = _writer(run, config, tokenizer, context, now)
    choice = written.choice if isinstance(written, Renderer) else None
    if kept is None:
        run, kept = _made(run, tokenizer, written, limit, folder)
        if key is not None:
            kept = keep(key, kept, sink)
    else:
        run = _with_kept(run, kept)
    splits, rows, renderer = kept.splits, kept.rows, written or _encoder(run, tokenizer)
    facts = _facts(run, source, config, tokenizer, renderer, rows, splits.train, context)
    resolved, reasons = resolve(run, facts)
    reasons |= kept.why
    prepared = Prepared(resolved, reasons, source, tokenizer, choice, renderer, splits, rows, context)
    _say(prepared, sink)
    return prepared


def _writer(
    run: Run, config: Any, tokenizer: Any, context: int, now: datetime
) -> Renderer | PairEncoder | None:
    """What makes rows of conversations; None where a head reads texts as they are."""
    if isinstance(run.method, SftConfig) and config.is_encoder_decoder:
        check_pairs(run)
        return PairEncoder(tokenizer, context)
    if not judged.renders(run.method, config):
        return None
    if config.is_encoder_decoder:
        raise judged.no_encoder_decoder(run)
    choice = choose_template(tokenizer, run.model.template)
    apply_choice(tokenizer, choice)
    return Renderer(tokenizer, choice, now)


def _encoder(run: Run, tokenizer: Any) -> HeadEncoder:
    spec = spec_of(run.method)
    assert spec is not None
    return encoder_of(spec, tokenizer)


def _made(
    run: Run, tokenizer: Any, written: Renderer | PairEncoder | None, limit: int, folder: Path
) -> tuple[Run, Kept]:
    """From the files; and the run with what the method takes from its training rows."""
    with ahead_of_reading(_beforehand(run, tokenizer, written, limit)) as ahead:
        splits = _read(run, folder, ahead)
        run, why = _with_outputs(run, splits)
        rows = _rows_of(run, splits, written or _encoder(run, tokenizer), limit, folder, ahead)
    return run, Kept(splits, rows, _outputs(run), why)


def _beforehand(
    run: Run, tokenizer: Any, written: Renderer | PairEncoder | None, limit: int
) -> Making | None:
    """How rows are made before it is known which are of what split; None where that decides more of a row than the
    number of its class."""
    method, long = run.method, run.data.on_long_row
    if isinstance(method, SftConfig) and isinstance(written, Renderer):
        return chats(written, method.supervise, limit, long)
    if isinstance(method, ClassifyConfig) and not method.multi_label:
        return heads(HeadEncoder(tokenizer, "classify", ()), limit, long)
    return None


def _read(run: Run, folder: Path, ahead: Ahead | None) -> Splits:
    splits = load_splits(run.data, run.seed, folder, ahead)
    if judged.is_judged(run.method):
        return judged.as_the_method_takes(run, splits)
    if isinstance(run.method, EmbedConfig) and run.data.format == "label":
        return _paired(splits, run.seed)
    return splits


def _with_outputs(run: Run, splits: Splits) -> tuple[Run, dict[str, str]]:
    """What the method takes from the training rows."""
    if judged.is_judged(run.method):
        return judged.with_rewards(run, splits.mapping.kind, splits.train)
    return (run, {}) if isinstance(run.method, Writes) else with_outputs(run, splits.train)


def _outputs(run: Run) -> dict[str, Any]:
    """What `_with_outputs` fills in."""
    filled = {"labels", "scale", "class_weights", "loss", "levels", "thresholds"}
    return run.method.model_dump(mode="json", include=filled)


def _with_kept(run: Run, kept: Kept) -> Run:
    """As `_with_outputs`, from what it gave before."""
    filled = type(run.method).model_validate(run.method.model_dump() | kept.outputs)
    changed = {
        name: vars(filled)[name] for name, value in _outputs(run).items() if value != kept.outputs[name]
    }
    return run.model_copy(update={"method": run.method.model_copy(update=changed)})


def _rows_of(
    run: Run, splits: Splits, renderer: AnyEncoder, limit: int, folder: Path, ahead: Ahead | None
) -> dict[str, Sequence[TokenRow]]:
    """Split -> token rows. Raises DataError where training has none."""
    rows = {name: _rows(run, vars(splits)[name], renderer, limit, splits.account, ahead) for name in SPLITS}
    if not rows["train"]:
        raise DataError(
            "no training row is left", "at least one usable row", f"see {folder / 'dropped.jsonl'}"
        )
    return rows


def _paired(splits: Splits, seed: int) -> Splits:
    """Rows of classes as pairs of texts of one class, in each split."""
    made = {name: class_pairs(getattr(splits, name), seed, splits.account) for name in SPLITS}
    splits.account.flush()
    return replace(splits, train=made["train"], validation=made["validation"], test=made["test"])


def _rows(
    run: Run,
    examples: Sequence[Example],
    renderer: AnyEncoder,
    limit: int,
    account: Account,
    ahead: Ahead | None,
) -> Sequence[TokenRow]:
    if isinstance(renderer, HeadEncoder):
        return accounted(examples, heads(renderer, limit, run.data.on_long_row), account, ahead=ahead)
    if isinstance(renderer, PairEncoder):
        return encode_pairs(examples, renderer, limit, run.data.on_long_row, account)
    if judged.is_judged(run.method):
        rows = tokenise_trees(examples, renderer, limit, run.data.on_long_row, account)
        return with_others(rows, run.seed, limit) if isinstance(run.method, UnpairedConfig) else rows
    if isinstance(run.method, PolicyConfig):
        return tokenise_trees(examples, renderer, limit, run.data.on_long_row, account)
    assert isinstance(run.method, SftConfig)
    making = chats(renderer, run.method.supervise, limit, run.data.on_long_row)
    return accounted(examples, making, account, ahead=ahead)


def resolved(run: Run) -> tuple[Run, dict[str, str]]:
    """The recipe with every default worked out from its rows and its model, and why; nothing is kept on disk."""
    with storage.passing_folder() as scratch:
        prepared = prepare(run, scratch, silent)
    return prepared.run, prepared.reasons


def _facts(
    run: Run,
    source: Source,
    config: Any,
    tokenizer: Any,
    renderer: AnyEncoder,
    rows: Mapping[str, Sequence[TokenRow]],
    examples: Sequence[Example],
    context: int,
) -> Facts:
    train = rows["train"]
    tokens, supervised = sizes(train)
    plain = examples[0].text is not None
    longest_answer = 0 if plain else int(supervised.max())
    longest = max(int(sizes(split)[0].max()) for split in rows.values() if split)
    if judged.is_judged(run.method):
        size = renderer.size if isinstance(renderer, HeadEncoder) else longest_path
        longest = max(size(row) for split in rows.values() for row in split)
        longest_answer = max(len(leaf.ids) for row in train for leaf in row.segments)
    if (
        isinstance(run.method, SftConfig) and run.method.supervise == "all" and not plain
    ):  # prompts are supervised too: measure the answers themselves
        longest_answer = max(len(tokenizer(e.answer)["input_ids"]) for e in examples[:2000])
    text, device = config.get_text_config(), devices.choose(run.model.device)
    return Facts(
        num_parameters=known_parameters(source.base_folder),
        hidden_size=text.hidden_size,
        vocab_size=len(tokenizer),
        context_length=context,
        num_train_rows=len(train),
        num_validation_rows=len(rows["validation"]),
        mean_tokens=int(tokens.sum()) / len(tokens),
        # Of all splits: a resumed run reads its rows again under the length that this becomes.
        max_tokens=longest,
        mean_supervised_tokens=int(supervised.sum()) / len(supervised),
        longest_answer_tokens=longest_answer,
        is_pretraining=plain,
        has_head=not isinstance(run.method, Writes),
        has_template=judged.renders(run.method, config) and not config.is_encoder_decoder,
        available_memory_bytes=devices.free_memory(device),
        physical_cores=physical_cores(),
        has_bf16=devices.has_bf16(device),
        device=str(device),
    )


def _say(prepared: Prepared, sink: EventSink) -> None:
    splits, rows = prepared.splits, prepared.rows
    sink("note", text=splits.mapping.describe())
    sink("note", text=prepared.renderer.describe())
    summary = splits.account.summary()
    dropped = ", ".join(f"{n:,} {reason}" for reason, n in summary["dropped"].items()) or "none"
    sink(
        "note",
        text=f"{summary['read']:,} rows read = {summary['used']:,} used + "
        f"{sum(summary['dropped'].values()):,} dropped ({dropped})",
    )
    for what, count in summary["notes"].items():
        if count:
            sink("note", text=f"{count:,} rows: {what.replace('_', ' ')}")
    if judged.is_judged(prepared.run.method) and (
        text := judged.margin_note(prepared.run.method, splits.mapping)
    ):
        sink("note", text=text)
    for text in splits.warnings:
        sink("warning", text=text)
    table = [
        [name, f"{len(rows[name]):,}", *_length_cells(rows[name])]
        for name in ("train", "validation", "test")
        if rows[name]
    ]
    sink(
        "table",
        title="rows, and their lengths in tokens",
        columns=["split", "rows", "shortest", "mean", "95 %", "longest", "supervised"],
        rows=table,
    )
    shown = preview(prepared.renderer, rows["train"][0])
    sink("note", text=f"one training row, supervised tokens in [[ ]]:\n{shown}")


def _length_cells(rows: Sequence[TokenRow]) -> list[str]:
    found = lengths(rows)
    return [
        f"{found['min']:,}",
        f"{found['mean']:,.0f}",
        f"{found['p95']:,.0f}",
        f"{found['max']:,}",
        f"{found['supervised']:.0%}",
    ]
