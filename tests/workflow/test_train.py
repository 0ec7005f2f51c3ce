"""The main job: rows in, a run folder out that says what happened, with a model that stock transformers loads."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import tunesmith
from tests.workflow.conftest import (
    TOOLS_TEMPLATE,
    label_rows,
    read_jsonl,
    settings,
    tiny_base,
    write_jsonl,
)
from tunesmith.config.load import load_run
from tunesmith.config.run import Run
from tunesmith.errors import ConfigError, DataError, NonFiniteError, RunError
from tunesmith.evaluate.report_model import Report
from tunesmith.train.checkpoint import Checkpoints
from tunesmith.train.folder import RunFolder
from tunesmith.workflow.finish import Result

pytestmark = pytest.mark.usefixtures("quick")


# -- rows of each kind, with two that cannot be used -----------------------------------------------------


def label_file(folder: Path) -> dict[str, Any]:
    lines = [f"{r['text']},{r['label']}" for r in label_rows(48)]
    lines[10] = ",fruit"  # line 12 of the file, after the header
    lines[20] = "a dog with no label,"
    path = folder / "rows.csv"
    path.write_text("text,label\n" + "\n".join(lines) + "\n")
    return {"data": {"train": str(path)}, "bad": [12, 22], "reasons": {"empty_text": 1, "empty_answer": 1}}


def prompt_file(folder: Path) -> dict[str, Any]:
    rows: list[Any] = [
        {"question": r["text"], "response": f"It is a {r['label']}.", "system": "Be short."}
        for r in label_rows(48)
    ]
    rows[10] = "{not json"
    rows[20]["response"] = None
    path = write_jsonl(folder / "rows.jsonl.gz", rows)
    return {"data": {"train": str(path)}, "bad": [11, 21], "reasons": {"missing_field": 1, "bad_json": 1}}


def messages_file(folder: Path) -> dict[str, Any]:
    tool = {"type": "function", "function": {"name": "weigh", "parameters": {"type": "object"}}}
    call = {"type": "function", "function": {"name": "weigh", "arguments": {"what": "it"}}}
    rows: list[Any] = [
        {
            "messages": [
                {"role": "user", "content": r["text"]},
                {"role": "assistant", "content": "wrong", "weight": 0},
                {"role": "user", "content": "No. Weigh it."},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "content": "3 kg"},
                {"role": "assistant", "content": r["label"]},
            ],
            "tools": [tool],
        }
        for r in label_rows(48)
    ]
    rows[10]["messages"][0]["role"] = "robot"
    rows[20]["messages"].pop()
    template = folder / "tools.jinja"
    template.write_text(TOOLS_TEMPLATE)
    return {
        "data": {"train": str(write_jsonl(folder / "rows.jsonl", rows))},
        "model": {"template": str(template)},
        "bad": [11, 21],
        "reasons": {"unknown_role": 1, "trailing_turn": 1},
    }


def json_file(folder: Path) -> dict[str, Any]:
    rows: list[Any] = [
        {"text": r["text"], "kind": r["label"], "size": 3 if r["label"] == "fruit" else None}
        for r in label_rows(48)
    ]
    rows[10] = {"text": "nothing to say", "kind": "", "size": None}
    rows[20]["text"] = 7
    data = {
        "train": str(write_jsonl(folder / "rows.jsonl", rows)),
        "columns": {"prompt": "text"},
        "json_fields": ["kind", "size"],
        "instruction": "As JSON:",
    }
    return {
        "data": data,
        "bad": [11, 21],
        "reasons": {"empty_answer": 1, "not_a_string": 1},
        "evaluate": {"max_new_tokens": 24},
    }


def text_file(folder: Path) -> dict[str, Any]:
    rows: list[Any] = [{"text": f"{r['text']} and it is a {r['label']}"} for r in label_rows(48)]
    rows[10] = {"text": "   "}
    rows[20] = {"text": None}
    return {
        "data": {"train": str(write_jsonl(folder / "rows.jsonl", rows)), "test_fraction": 0.3},
        "method": {"supervise": "all"},
        "bad": [11, 21],
        "reasons": {"empty_text": 1, "missing_field": 1},
    }


KINDS = {
    "label": (label_file, "label"),
    "prompt": (prompt_file, "text"),
    "messages": (messages_file, "text"),
    "json": (json_file, "json"),
    "text": (text_file, "text"),
}
COMBINATIONS = [(kind, *how) for kind in KINDS for how in (("full", "layout"), ("lora", "padded"))]
COMBINATIONS += [("label", "full", "padded"), ("label", "lora", "layout")]


def train_kind(kind: str, tuning: str, path: str, base: Path, folder: Path) -> tuple[Result, dict[str, Any]]:
    made = KINDS[kind][0](folder)
    # Two of 48 rows are bad, which is under 5 %.
    tree = settings(
        base,
        folder / "runs",
        made["data"],
        name=kind,
        model={"path": path, **made.get("model", {})},
        method={"tuning": tuning, **made.get("method", {})},
        evaluate=made.get("evaluate", {}),
    )
    return tunesmith.train(Run.model_validate(tree)), made


@pytest.mark.parametrize(("kind", "tuning", "path"), COMBINATIONS)
def test_rows_of_every_kind_become_a_model_and_its_proof(kind, tuning, path, base, tmp_path):
    result, made = train_kind(kind, tuning, path, base, tmp_path)
    folder, report = result.folder, result.report
    assert report is not None

    assert {p.name for p in folder.iterdir()} == {
        *("config.yaml", "events.jsonl", "dropped.jsonl", "checkpoints", "model", "report", ".lock")
    }
    assert {"report.html", "report.md", "metrics.json"} <= {p.name for p in (folder / "report").iterdir()}
    assert Report.model_validate_json((folder / "report" / "metrics.json").read_text()) == report
    json.dumps(result.as_dict(), allow_nan=False)

    # Every row is accounted for: read = used + dropped, and the dropped ones are listed with file, line, reason.
    data, dropped = report.data, read_jsonl(folder / "dropped.jsonl")
    assert data.read == 48
    assert data.used == 46 == sum(data.splits.values())
    assert data.dropped == made["reasons"]
    assert sorted(d["line"] for d in dropped) == made["bad"]
    assert {d["file"] for d in dropped} == {made["data"]["train"]}
    assert {d["reason"] for d in dropped} == made["reasons"].keys()

    # The configuration is whole (only what does not apply is null) and loads again as what it was.
    run = load_run(folder / "config.yaml")
    assert run.method.tuning == tuning
    assert run.train.batch_size == 8
    assert run.data.max_length is not None
    assert run.train.micro_batch_tokens == 512

    assert report.task == KINDS[kind][1]
    assert report.model.kind == tuning
    assert report.model.path.startswith("flat layout" if path == "layout" else "padded rows")
    assert report.fit is not None
    assert report.fit.words
    assert report.forgetting is None  # not asked for here
    assert report.suspects
    assert report.cost.tokens > 0
    assert {"prepare", "train"} <= report.cost.seconds.keys()
    assert "library_name" in (folder / "model" / "README.md").read_text()
    check_proof(kind, report)
    check_loads_with_stock_libraries(folder / "model", base, tuning)


def check_proof(kind: str, report: Report) -> None:
    systems = {s.name: s.metrics for s in report.systems}
    if kind == "text":
        assert systems.keys() == {"base", "tuned"}
        assert systems["tuned"]["perplexity"].value < systems["base"]["perplexity"].value
        (comparison,) = report.comparisons
        assert (comparison.metric, comparison.tone) == ("perplexity", "better")
        return
    expected = {"base", "few-shot base", "tuned"}
    if kind in ("label", "json"):
        expected |= {"majority", "tfidf"}
    if kind == "label":
        expected |= {"base (choosing a label)", "tuned (choosing a label)"}
    assert systems.keys() == expected
    for name, metrics in systems.items():
        for metric in metrics.values():
            assert metric.n > 0 or metric.low is None
            if metric.low is not None:
                assert metric.low <= metric.value <= metric.high, name
    assert systems["tuned"]["perplexity"].value < systems["base"]["perplexity"].value
    primary = systems["tuned"][report.primary]
    assert primary.low is not None
    assert {c.base for c in report.comparisons} == expected - {"tuned", "tuned (choosing a label)"}
    for comparison in report.comparisons:
        assert comparison.words
        assert 0 <= comparison.p <= 1


def check_loads_with_stock_libraries(model: Path, base: Path, tuning: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "x"}], return_tensors="pt", return_dict=False
    )
    loaded = AutoModelForCausalLM.from_pretrained(model if tuning == "full" else base)
    if tuning == "lora":
        from peft import PeftModel

        loaded = PeftModel.from_pretrained(loaded, model)
    with torch.no_grad():
        assert loaded(input_ids=ids).logits.isfinite().all()


def test_the_training_lowers_the_loss_and_every_event_is_kept(trained):
    folder = trained("full").folder
    events = read_jsonl(folder / "events.jsonl")
    steps = [e for e in events if e["kind"] == "step"]
    assert [e["step"] for e in steps] == list(range(1, 49))
    assert steps[-1]["loss"] < 0.5 * steps[0]["loss"]
    assert [e["step"] for e in events if e["kind"] == "evaluation"] == [0, 16, 32, 48]
    assert {"start", "phase", "note", "table", "estimate", "plan", "checkpoint", "done"} <= {
        e["kind"] for e in events
    }


def test_the_best_step_is_what_is_saved_and_scored(trained):
    result = trained("full")
    evaluations = [e for e in read_jsonl(result.folder / "events.jsonl") if e["kind"] == "evaluation"]
    best = min(evaluations, key=lambda e: e["metrics"]["loss"])["step"]
    assert result.report.fit.best_step == best
    weights = Checkpoints(result.folder / "checkpoints", 2).load(best).groups["weights"]
    saved = AutoModelForCausalLM.from_pretrained(result.folder / "model").state_dict()
    for name, weight in weights.items():
        assert torch.equal(saved[name], weight), name


@pytest.mark.usefixtures("quick")
def test_where_no_step_beats_the_base_its_own_weights_are_kept_and_it_is_said(base, labels, tmp_path):
    wild = {"learning_rate": 10.0, "max_steps": 4, "eval_every": 2, "watch": "loss"}
    tree = settings(base, tmp_path, {"train": str(labels)}, train=wild)
    result = tunesmith.train(Run.model_validate(tree))
    assert result.report.fit.best_step == 0
    warnings = [e["text"] for e in read_jsonl(result.folder / "events.jsonl") if e["kind"] == "warning"]
    assert "no step was better than the base by loss: its own weights are kept" in warnings
    ids = torch.arange(5, 25)[None]
    ours = AutoModelForCausalLM.from_pretrained(result.folder / "model")(input_ids=ids).logits
    theirs = AutoModelForCausalLM.from_pretrained(base)(input_ids=ids).logits
    assert torch.equal(ours, theirs)


def test_the_reports_page_needs_nothing_else_and_names_what_was_asked_for(trained):
    page = (trained("full").folder / "report" / "report.html").read_text()
    for word in ("TF-IDF", "few-shot", "forgett", "Wilson", "worth a second look", "perplexity"):
        assert word.lower() in page.lower(), word
    assert "<link" not in page
    assert 'src="http' not in page


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_forgetting_is_measured_on_general_text_and_said_in_words(tuning, trained):
    found = trained(tuning).report.forgetting
    assert found.texts == "the built-in general sample"
    assert found.before > 1
    assert found.after > 1
    assert found.words


def test_a_test_row_that_is_also_a_training_row_is_withdrawn_from_training(base, tmp_path):
    rows = label_rows(40)
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    test = write_jsonl(tmp_path / "test.jsonl", rows[:6])
    tree = settings(base, tmp_path, {"train": str(train), "test": str(test)}, train={"max_steps": 1})
    report = tunesmith.train(Run.model_validate(tree)).report
    assert report.data.dropped == {"in_test": 6}
    assert report.data.splits["test"] == 6


# -- the loop --------------------------------------------------------------------------------------------


def losses(folder: Path) -> list[float]:
    return [e["loss"] for e in RunFolder(folder).read_events("step")]


@pytest.mark.parametrize("path", ["layout", "padded"])
def test_results_do_not_depend_on_how_many_tokens_are_computed_at_once(path, base, labels, tmp_path):
    found = []
    for tokens in (64, 4096):
        tree = settings(
            base,
            tmp_path,
            {"train": str(labels), "test_fraction": 0, "validation_fraction": 0},
            name=f"at-{tokens}",
            model={"path": path},
            train={"micro_batch_tokens": tokens, "max_steps": 6},
        )
        found.append(losses(tunesmith.train(Run.model_validate(tree)).folder))
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    assert found[0] != found[0][:1] * 6


def test_without_test_or_validation_rows_the_report_says_so(base, labels, tmp_path):
    data = {"train": str(labels), "test_fraction": 0, "validation_fraction": 0}
    report = tunesmith.train(Run.model_validate(settings(base, tmp_path, data))).report
    assert report.systems == []
    assert "no test rows" in report.absent["systems"]
    assert "no validation rows" in report.absent["fit"]
    assert report.suspects


@pytest.mark.parametrize("fractions", [{}, {"validation_fraction": 0}])
def test_an_unknown_metric_to_watch_lists_those_that_are_measured_and_starts_nothing(
    fractions, base, labels, tmp_path
):
    tree = settings(base, tmp_path, {"train": str(labels), **fractions}, train={"watch": "rouge_l"})
    with pytest.raises(ConfigError, match=r"train\.watch=rouge_l") as caught:
        tunesmith.train(Run.model_validate(tree))
    assert "loss" in caught.value.expected
    assert ("accuracy" in caught.value.expected) == (fractions == {})
    tree["train"]["watch"] = "loss"
    tree["train"]["max_steps"] = 1
    assert tunesmith.train(Run.model_validate(tree)).report is not None  # the folder was not taken


def test_a_task_metric_can_choose_the_best_step(base, labels, tmp_path):
    tree = settings(base, tmp_path, {"train": str(labels)}, train={"watch": "accuracy"})
    assert tunesmith.train(Run.model_validate(tree)).report.fit.watch == "accuracy"


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_a_sound_checkpoint(base, labels, tmp_path):
    """A rate at which the weights overflow: the run stops, names rows, and the last checkpoint is finite."""
    tree = settings(
        base,
        tmp_path,
        {"train": str(labels)},
        train={
            "learning_rate": 3e37,
            "warmup_fraction": 0.9,
            "max_steps": 40,
            "max_grad_norm": None,
            "eval_every": 1,
            "early_stopping": None,
        },
    )
    with pytest.raises(NonFiniteError, match="not a finite number") as caught:
        tunesmith.train(Run.model_validate(tree))
    assert caught.value.exit_code == 6
    assert str(labels) in caught.value.fix
    folder = tmp_path / "tiny"
    latest = Checkpoints(folder / "checkpoints", 2).load_latest()
    if latest is not None:
        assert all(w.isfinite().all() for w in latest[1].groups["weights"].values())
    assert RunFolder(folder).read_events("non_finite")


def test_a_poisoned_weight_stops_the_run_before_a_checkpoint_is_written(base, labels, tmp_path):
    poisoned = tmp_path / "poisoned"
    model = AutoModelForCausalLM.from_pretrained(base)
    model.model.layers[1].mlp.up_proj.weight.data[3, 3] = math.nan
    model.save_pretrained(poisoned)
    AutoTokenizer.from_pretrained(base).save_pretrained(poisoned)
    tree = settings(poisoned, tmp_path, {"train": str(labels)})
    with pytest.raises(NonFiniteError, match="of step 1 "):
        tunesmith.train(Run.model_validate(tree))
    assert Checkpoints(tmp_path / "tiny" / "checkpoints", 2).steps() == []


# -- more than one run -----------------------------------------------------------------------------------


def test_several_seeds_make_several_runs_and_the_first_report_shows_their_spread(base, labels, tmp_path):
    tree = settings(base, tmp_path, {"train": str(labels)}, seed=3)
    result = tunesmith.train(Run.model_validate(tree), seeds=2)
    assert [(s.seed, s.run) for s in result.report.seeds] == [(3, "tiny"), (4, "tiny-seed4")]
    assert load_run(tmp_path / "tiny-seed4" / "config.yaml").seed == 4
    saved = Report.model_validate_json((tmp_path / "tiny" / "report" / "metrics.json").read_text())
    assert saved.seeds == result.report.seeds
    own = {s.name: s for s in result.report.systems}["tuned"].metrics["perplexity"].value
    assert saved.seeds[0].metrics["perplexity"] == own
    assert "over 2 seeds" in (tmp_path / "tiny" / "report" / "report.md").read_text()


def test_with_several_seeds_a_folder_that_is_taken_is_refused_before_the_first_run(base, labels, tmp_path):
    tree = settings(base, tmp_path, {"train": str(labels)})
    tunesmith.train(Run.model_validate({**tree, "name": "tiny-seed1"}))
    with pytest.raises(RunError, match="tiny-seed1"):
        tunesmith.train(Run.model_validate(tree), seeds=2)
    assert not (tmp_path / "tiny" / "events.jsonl").exists()


@pytest.mark.parametrize(
    ("first", "then"), [("full", "full"), ("full", "lora"), ("lora", "lora"), ("lora", "full")]
)
def test_a_run_goes_on_from_an_earlier_one_and_says_so(first, then, trained, labels, label_test, tmp_path):
    parent = trained(first)
    data = {"train": str(labels), "test": str(label_test), "instruction": "Which kind?"}
    tree = settings(parent.folder, tmp_path, data, method={"tuning": then}, train={"learning_rate": 1e-3})
    result = tunesmith.train(Run.model_validate(tree))
    assert result.report.model.parent_run == first
    before = {s.name: s for s in result.report.systems}["base"].metrics["perplexity"].value
    ended = {s.name: s for s in parent.report.systems}["tuned"].metrics["perplexity"].value
    assert before == pytest.approx(ended, rel=1e-4)
    assert next(iter(tunesmith.load(result.folder).predict(["a dog is here"], max_new_tokens=4))) is not None
    if then == "lora":
        from peft import AutoPeftModelForCausalLM

        stock = AutoPeftModelForCausalLM.from_pretrained(result.folder / "model")
        assert stock.peft_config["default"].r == 16


# -- a dry run -------------------------------------------------------------------------------------------


def test_a_dry_run_prints_the_plan_and_writes_nothing(base, labels, tmp_path):
    tree = settings(base, tmp_path / "runs", {"train": str(labels)}, train={"max_steps": None, "epochs": 2})
    result = tunesmith.train(Run.model_validate(tree), dry_run=True)
    assert not (tmp_path / "runs").exists()
    assert result.report is None
    assert result.plan["steps"] == 24
    assert "micro_batch_tokens" in result.text
    assert "estimated: 24 steps" in result.text
    json.dumps(result.as_dict(), allow_nan=False)


def test_what_a_dry_run_refuses_rows_for_can_be_read_afterwards(base, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "passing"))
    (tmp_path / "passing").mkdir()
    rows = [*({"text": r["text"], "label": r["label"]} for r in label_rows(16)), *[{"text": "no label"}] * 8]
    data = {"train": str(write_jsonl(tmp_path / "rows.jsonl", rows)), "format": "label"}
    run = Run.model_validate(settings(base, tmp_path / "runs", data))
    with pytest.raises(DataError, match="8 of 24 rows cannot be used") as refused:
        tunesmith.train(run, dry_run=True)
    listed = Path(refused.value.fix.rpartition("all are listed in ")[2])
    assert [json.loads(line)["line"] for line in listed.read_text().splitlines()] == list(range(17, 25))
    assert not (tmp_path / "runs").exists()
    shutil.rmtree(listed.parent)
    tree = settings(base, tmp_path / "runs", {"train": str(tmp_path / "gone.jsonl")})
    with pytest.raises(DataError, match="no such file"):
        tunesmith.train(Run.model_validate(tree), dry_run=True)
    assert not list((tmp_path / "passing").iterdir())


# -- a bare base -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_base_without_template_padding_and_end_gets_them_and_keeps_them(tuning, labels, tmp_path):
    bare = tiny_base(tmp_path / "bare", template=False)
    said: list[str] = []

    def sink(kind: str, /, **fields: Any) -> None:
        said.append(str(fields.get("text", "")))

    tree = settings(bare, tmp_path, {"train": str(labels)}, method={"tuning": tuning})
    result = tunesmith.train(Run.model_validate(tree), sink=sink)
    assert any("no end token; <|end|> is added" in text for text in said)
    assert result.report.model.template == "plain"
    tokenizer = AutoTokenizer.from_pretrained(result.folder / "model")
    assert tokenizer.eos_token == "<|end|>"
    assert tokenizer.pad_token is not None
    assert "### Assistant:" in tokenizer.chat_template
    opened = tunesmith.load(result.folder)
    assert len(list(opened.predict(["a dog is here", "iron"], max_new_tokens=4))) == 2
    if tuning == "full":
        model = AutoModelForCausalLM.from_pretrained(result.folder / "model")
        assert model.get_input_embeddings().num_embeddings > tokenizer.eos_token_id
        assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_a_runs_config_is_a_recipe_for_other_rows(base, labels, tmp_path, quick):
    """Of the same number of steps, whatever the number of rows."""
    tree = settings(base, tmp_path, {"train": str(labels)}, train={"max_steps": 2})
    first = tunesmith.train(Run.model_validate(tree))
    other = write_jsonl(tmp_path / "other.jsonl", label_rows(47, seed=5))
    second = load_run(first.folder / "config.yaml", ["name=second", f"data.train={other}"])
    plans = []
    tunesmith.train(second, sink=lambda kind, /, **fields: plans.append(fields) if kind == "plan" else None)
    (plan,) = plans
    assert plan["total_steps"] == 2
    assert plan["epochs"] == 16 / plan["rows"]
