"""What holds the code together: cheap imports, small files, one file and one test for each method."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tunesmith.config.methods import METHODS, Head
from tunesmith.config.run import Run

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "tunesmith"
FILES = sorted(SOURCE.rglob("*.py"))
MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 60

LEVEL_0 = [
    ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
    for path in FILES
    if path.relative_to(SOURCE).parts[0] in {"errors.py", "types.py", "registry.py", "config", "embedded"}
]


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has after the statement."""
    code = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def called(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    yield from ((ast.unparse(n.func), n) for n in ast.walk(tree) if isinstance(n, ast.Call))


# -- imports ------------------------------------------------------------------------------------------


def test_level_0_loads_no_torch() -> None:
    assert "tunesmith.config.load" in LEVEL_0
    loaded = loaded_by(f"import {', '.join(LEVEL_0)}")
    assert not loaded & {"torch", "transformers", "peft"}


def test_the_command_line_loads_nothing_heavy() -> None:
    heavy = {
        "torch",
        "transformers",
        "peft",
        "pydantic",
        "numpy",
        "pyarrow",
        "sklearn",
        "scipy",
        "matplotlib",
        "rich",
    }
    assert not loaded_by("import tunesmith.cli.main") & heavy


def test_training_does_not_wait_for_what_only_the_proof_needs() -> None:
    """Baselines, metrics and plots load what they need when they are asked for, after the first step."""
    later = {"sklearn", "matplotlib", "sacrebleu", "rouge", "rouge_score", "pandas", "datasets"}
    assert not loaded_by("import tunesmith.workflow.train, tunesmith.train.probe") & later


def test_the_package_loads_next_to_nothing() -> None:
    assert not loaded_by("import tunesmith") & {"torch", "pydantic", "numpy", "yaml", "typer"}


def test_the_public_interface_is_listed_and_nothing_else_is() -> None:
    import tunesmith

    assert tunesmith.Run is Run
    assert re.fullmatch(r"\d+\.\d+\.\d+", tunesmith.__version__)
    assert set(tunesmith.__all__) <= set(dir(tunesmith))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = tunesmith.trian  # type: ignore[attr-defined]


def test_a_room_and_a_function_may_share_a_name() -> None:
    """`tunesmith.train` is a function, and stays callable once the sub-package `tunesmith.train` is imported."""
    stand_in = "import sys, types; m = types.ModuleType('w'); m.train = lambda x: x + 1; "
    stand_in += (
        "sys.modules['tunesmith.workflow.train'] = m; import tunesmith; assert tunesmith.train(1) == 2; "
    )
    loaded_by(stand_in + "import tunesmith.train; assert tunesmith.train(2) == 3")
    loaded_by(stand_in + "import tunesmith.train as room; assert room(2) == 3; assert room.__path__")


# -- sizes and habits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_FILE_LINES
    long = {
        f.name: n for f in functions(parsed(path)) if (n := f.end_lineno - f.lineno + 1) > MAX_FUNCTION_LINES
    }
    assert not long


def test_attributes_are_hardly_ever_looked_up_by_name() -> None:
    """At most 10 `getattr` or `hasattr` in 10,000 lines (a floor of 5): types say what an object has."""
    found = [
        f"{path.relative_to(SOURCE)}:{call.lineno}"
        for path in FILES
        for name, call in called(parsed(path))
        if name in ("getattr", "hasattr")
    ]
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in FILES)
    assert len(found) <= max(5, lines // 1000), found


def test_nothing_that_runs_code_from_data() -> None:
    """No pickle, no unsafe YAML, no shell, no eval: also where a linter's rule could be switched off."""
    found = []
    for path in FILES:
        tree = parsed(path)
        where = path.relative_to(SOURCE)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                found += [f"{where}:{node.lineno} {n}" for n in names if n.split(".")[0] in FORBIDDEN_MODULES]
        for name, call in called(tree):
            shell = any(
                k.arg == "shell" and not (isinstance(k.value, ast.Constant) and k.value.value is False)
                for k in call.keywords
            )
            if name in FORBIDDEN_CALLS or shell:
                found.append(f"{where}:{call.lineno} {name}")
    assert not found


FORBIDDEN_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {
    "torch.load", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen",
    "eval", "exec",
}  # fmt: skip


# -- one method = one configuration class, one objective, one test ------------------------------------


def test_methods_are_known() -> None:
    assert {"sft", "classify", "preference", "reward", "policy"} <= METHODS.keys()


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_a_configuration_an_objective_and_a_test(method: str) -> None:
    """Nothing else names it: the objective is found by its file's name (heads share a test)."""
    made = METHODS[method]
    assert made.model_fields["type"].default == method
    assert made.__name__.lower() == f"{method}config"
    assert (SOURCE / "objectives" / f"{method}.py").is_file()
    test = "heads" if issubclass(made, Head) else method
    assert (ROOT / "tests" / "objectives" / f"test_{test}.py").is_file()


def test_rooms_have_tests() -> None:
    rooms = {path.name for path in SOURCE.iterdir() if (path / "__init__.py").is_file()} - {"embedded"}
    assert {room for room in rooms if not (ROOT / "tests" / room).is_dir()} == set()
