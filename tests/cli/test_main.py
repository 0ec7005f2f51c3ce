"""The command line as a person or a script meets it: what goes where, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.cli import work
from tunesmith.cli.main import main
from tunesmith.errors import ConfigError, DataError, Interrupted, TunesmithError


class Result:
    def as_dict(self) -> dict[str, Any]:
        return {"accuracy": 0.5, "näme": [1]}

    def as_text(self) -> str:
        return "accuracy 0.5 \x1b[2J"


class Answer:
    """Runs one command and keeps what it printed and how it ended."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        self.code = ended.value.code or 0
        self.out, self.err = capsys.readouterr()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    return lambda *arguments: Answer(capsys, *arguments)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[tuple[Any, ...], dict[str, Any]]]:
    """Stands in for the work itself; keeps what each verb handed over."""
    kept: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def stand_in(name: str) -> Callable[..., Result]:
        def call(*args: Any, **kwargs: Any) -> Result:
            kept[name] = (args, kwargs)
            return Result()

        return call

    for name in ("quickstart", "train", "resume", "evaluate", "compare", "predict", "export"):
        monkeypatch.setattr(work, name, stand_in(name))
    return kept


def test_help_loads_what_draws_it_and_nothing_else() -> None:
    """So it comes at once; what takes long to load is for the verbs."""
    code = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
    code += "sys.argv = ['tunesmith', '--help']; from tunesmith.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = {name.partition(".")[0] for name in done.stderr.split()} - set(sys.stdlib_module_names)
    drawing = {"typer", "click", "rich", "markdown_it", "mdurl", "pygments", "shellingham", "annotated_doc"}
    drawing |= {"attr"}  # which rich looks into where something else has installed it
    assert "tunesmith" in loaded
    assert {name for name in loaded if not name.startswith("_")} <= drawing | {"tunesmith"}


def test_every_verb_has_help(run: Callable[..., Answer]) -> None:
    verbs = "quickstart train resume evaluate compare predict runs export config".split()
    page = run("--help")
    assert page.code == 0
    for verb in [*verbs, "runs list", "runs show", "config schema", "config show", "config docs"]:
        assert verb.split()[0] in page.out
        assert run(*verb.split(), "--help").code == 0


def test_version(run: Callable[..., Answer]) -> None:
    assert run("--version").out == "tunesmith 0.1.0\n"


def test_a_wrong_option_is_a_usage_error(run: Callable[..., Answer]) -> None:
    answer = run("train", "--sedes", "3")
    assert (answer.code, answer.out) == (2, "")
    assert "--sedes" in answer.err


# -- train --------------------------------------------------------------------------------------------


def test_train_takes_recipe_settings_and_options(
    run: Callable[..., Answer], calls: dict[str, Any], tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: file\ntrain: {epochs: 1}\n")
    arguments = "train.epochs=2 --model m --data a.jsonl --data b.jsonl --name n --output o --seeds 3"
    answer = run(
        "train", str(recipe), *arguments.split(), "--max-minutes", "1.5", "--dry-run", "--profile", "-q"
    )
    assert answer.code == 0
    (made,), options = calls["train"]
    assert (made.name, made.output, made.model.base, made.train.epochs) == ("n", "o", "m", 2.0)
    assert made.data.train == ["a.jsonl", "b.jsonl"]
    options.pop("sink")
    assert options == {"max_minutes": 1.5, "seeds": 3, "resume": None, "dry_run": True, "profile": True}


@pytest.mark.parametrize(("flag", "resume"), [("--resume", True), ("--force", False)])
def test_an_existing_run_is_continued_or_replaced(
    run: Callable[..., Answer], calls: dict[str, Any], flag: str, resume: bool
) -> None:
    run("train", "data.train=a.jsonl", flag)
    assert calls["train"][1]["resume"] is resume


def test_train_without_rows_says_how_to_give_them(run: Callable[..., Answer], calls: dict[str, Any]) -> None:
    answer = run("train")
    assert (answer.code, answer.out, calls) == (2, "", {})
    assert answer.err.startswith("error: no rows to train on\n")
    assert "--data FILE" in answer.err


def test_two_recipes_are_refused(run: Callable[..., Answer], calls: dict[str, Any]) -> None:
    assert "several recipes: a.yaml, b.yaml" in run("train", "a.yaml", "b.yaml").err


# -- the other verbs ----------------------------------------------------------------------------------


def test_what_the_other_verbs_hand_over(
    run: Callable[..., Answer], calls: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "tickets"
    folder.mkdir()
    (folder / "config.yaml").write_text("data: {instruction: Sort.}\n")
    assert run("quickstart", "-o", "there", "--seed", "5").code == 0
    assert calls["quickstart"][0][:2] == (Path("there"), 5)
    assert run("resume", str(folder)).code == 0
    assert calls["resume"][0][0] == folder
    assert run("evaluate", str(folder), "--data", "t.jsonl", "evaluate.batch_size=2").code == 0
    model, data, settings, output, _ = calls["evaluate"][0]
    assert (model, data, output) == (str(folder), [Path("t.jsonl")], None)
    assert (settings.data.instruction, settings.evaluate.batch_size) == ("Sort.", 2)
    assert run("compare", "base", str(folder), "-d", "t.jsonl", "-o", "r").code == 0
    assert calls["compare"][0][:3] == ("base", str(folder), [Path("t.jsonl")])
    assert calls["compare"][0][3].data.instruction == "Sort."
    assert calls["compare"][0][4] == Path("r")
    assert run("predict", "m", "in.csv", "-o", "out.jsonl", "--batch-size", "4", "--column", "body").code == 0
    assert calls["predict"][0] == ("m", Path("in.csv"), Path("out.jsonl"))
    assert calls["predict"][1].items() >= {"batch_size": 4, "max_new_tokens": None, "column": "body"}.items()
    assert run("export", "r", "out", "--merged").code == 0
    assert calls["export"][0] == (Path("r"), Path("out"), True)


def test_evaluate_needs_data(run: Callable[..., Answer], calls: dict[str, Any]) -> None:
    answer = run("evaluate", "m")
    assert answer.code == 2
    assert "--data" in answer.err


# -- results and errors -------------------------------------------------------------------------------


def test_results_are_text_or_one_json_document_on_standard_output(
    run: Callable[..., Answer], calls: dict[str, Any]
) -> None:
    answer = run("resume", "r")
    assert (answer.out, answer.err) == ("accuracy 0.5 \\x1b[2J\n", "")
    answer = run("resume", "r", "--json")
    assert json.loads(answer.out) == {"accuracy": 0.5, "näme": [1]}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("got", "expected", "fix"), 2),
        (DataError("got", "expected", "fix"), 3),
        (Interrupted("got", "fix", 130), 130),
    ],
)
def test_errors_end_with_their_code(
    run: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, error: TunesmithError, code: int
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(work, "resume", fail)
    answer = run("resume", "r")
    assert (answer.code, answer.out, answer.err) == (code, "", f"error: {error}\n")
    answer = run("resume", "r", "--json")
    assert json.loads(answer.err) == {
        "error": {"type": type(error).__name__, "got": "got", "expected": error.expected, "fix": "fix"}
    }
    assert answer.out == ""


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(work, "resume", fail)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        main(["resume", "r"])


def test_errors_are_a_panel_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tunesmith.cli.output import show_error

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    show_error(DataError("row [red]7[/red] \x1b[2J", "text"), as_json=False)
    err = capsys.readouterr().err
    assert "DataError" in err
    assert "row [red]7[/red] \\x1b[2J" in err, "data is shown as it is: no markup, no control characters"


# -- config -------------------------------------------------------------------------------------------


def test_config_show_is_a_recipe_again(run: Callable[..., Answer], tmp_path: Path) -> None:
    shown = run("config", "show", "train.epochs=2", "data.train=a.jsonl")
    assert "epochs: 2.0" in shown.out
    assert "# set by you" in shown.out
    (tmp_path / "again.yaml").write_text(shown.out)
    again = json.loads(run("config", "show", str(tmp_path / "again.yaml"), "--json").out)
    assert again["train"]["epochs"] == 2.0


def test_config_show_works_defaults_out_where_the_rows_are_there(
    run: Callable[..., Answer], tmp_path: Path
) -> None:
    rows = [f'{{"text": "row {i} of some", "label": "{"ab"[i % 2]}"}}' for i in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    shown = run("config", "show", f"data.train={tmp_path / 'rows.jsonl'}").out
    assert "null" not in next(line for line in shown.splitlines() if "learning_rate" in line)
    assert "tuning: full" in shown
    assert "epochs: 4.0" in shown
    absent = run("config", "show", "data.train=absent.jsonl")
    assert "absent.jsonl is not here" in absent.err
    assert "learning_rate: null" in absent.out


def test_config_schema_and_docs(run: Callable[..., Answer]) -> None:
    assert "train" in json.loads(run("config", "schema").out)["properties"]
    assert run("config", "docs").out.startswith("# Configuration\n")
