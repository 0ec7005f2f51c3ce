"""A recipe is read whole or refused whole, and the refusal says everything a person needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.config.fields import allowed, keys
from tunesmith.config.load import is_override, load_run, parse_run
from tunesmith.config.peers import ALGORITHMS, LOSSES, NOTES, PEERS, method_called
from tunesmith.config.run import Run
from tunesmith.errors import ConfigError


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_run(text, "recipe.yaml")
    return str(caught.value)


def test_nothing_said_is_the_defaults(tmp_path: Path) -> None:
    empty = tmp_path / "empty.yaml"
    empty.write_text("# nothing yet\n")
    assert load_run(empty) == load_run() == Run()


def test_values_keep_their_kinds() -> None:
    run = parse_run(
        "data: {train: rows.jsonl, instruction: no, columns: {text: on}}\n"
        "train: {learning_rate: 1e-4, batch_size: 010, early_stopping: null}\n"
        "evaluate:\n"  # an empty section, its keys commented out
    )
    assert run.data.train == ["rows.jsonl"]
    assert run.data.instruction == "no"
    assert run.data.columns == {"text": "on"}
    assert run.train.learning_rate == 1e-4
    assert run.train.batch_size == 10
    assert run.train.early_stopping is None
    assert run.evaluate == Run().evaluate


def test_later_sayings_win(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: a\nseed: 1\ntrain: {epochs: 1}\nmodel: {base: file}\n")
    run = load_run(
        recipe,
        ["train.epochs=2", "seed=3", "seed=4"],
        {"name": ("b", "--name"), "seed": (2, "--seed"), "model.base": ("option", "--model")},
    )
    assert (run.name, run.seed, run.train.epochs, run.model.base) == ("b", 4, 2.0, "option")


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("train.betas=[0.8, 0.95]", ("train", "betas"), (0.8, 0.95)),
        ("data.train=a.jsonl", ("data", "train"), ["a.jsonl"]),
        ("data.train=[a.jsonl, b.jsonl]", ("data", "train"), ["a.jsonl", "b.jsonl"]),
        ("data.instruction=Answer: yes # or no", ("data", "instruction"), "Answer: yes # or no"),
        ("data.instruction='12'", ("data", "instruction"), "12"),
        ("data.instruction=a=b", ("data", "instruction"), "a=b"),
        ("data.columns.text=body", ("data", "columns"), {"text": "body"}),
        ("train.max_grad_norm=null", ("train", "max_grad_norm"), None),
        ("evaluate.baselines=false", ("evaluate", "baselines"), False),
    ],
)
def test_overrides(override: str, path: tuple[str, str], value: object) -> None:
    assert is_override(override)
    section, key = path
    assert load_run(None, [override]).model_dump()[section][key] == value


@pytest.mark.parametrize("key", sorted(k for k, v in keys().items() if not v.sections))
def test_every_key_refuses_what_it_can_not_be_and_says_what_it_can(key: str) -> None:
    *sections, name = key.split(".")
    lines = ["  " * depth + f"{s}:\n" for depth, s in enumerate(sections)]
    if kinds := keys()[key].types:
        lines.insert(1, f"  type: {kinds[0]}\n")
    text = "".join(lines)
    text += "  " * len(sections) + f"{name}: {{a: {{b: c}}}}\n"
    message = refused(text)
    if name == "type":
        assert "'sft'" in message
    assert f"recipe.yaml:{len(sections) + 1 + bool(kinds)}: {key}" in message
    assert f"expected: {allowed(keys()[key].node)}" in message


def test_a_key_of_several_methods_is_refused_as_the_one_that_was_chosen_means_it() -> None:
    """`scale` is a pair of numbers of a reward, a list of pairs of a regression, and a word of a policy."""
    policy = refused("method:\n  type: policy\n  scale: 5\n  rewards: [{kind: length}]\n")
    assert "one of 'group', 'batch', 'none'" in policy
    regress = refused("method:\n  type: regress\n  scale: 5\n")
    assert "'group'" not in regress


def test_noise_that_no_rollout_has_seen_is_refused_where_a_model_learns_from_its_own_answers() -> None:
    assert "neftune_alpha has no meaning" in refused(
        "train: {neftune_alpha: 5}\nmethod:\n  type: policy\n  rewards: [{kind: length}]\n"
    )


# -- what was meant -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("learning_rate: 1", "did you mean train.learning_rate?"),  # the name, elsewhere
        ("train: {epoch: 1}", "did you mean train.epochs?"),  # nearly, here
        ("learning_rat: 1", "did you mean train.learning_rate?"),  # nearly, elsewhere
        ("train: {rank: 1}", "did you mean method.lora.rank?"),
        ("num_train_epochs: 3", "here it is called train.epochs"),  # another tool's
        ("method: {lora_r: 3}", "here it is called method.lora.rank"),
        ("base_model: x", "here it is called model.base"),
        ("train: {gradient_accumulation_steps: 3}", "counts the rows of a whole step"),
        ("lora_alfa: 3", "did you mean method.lora.alpha?"),  # nearly another tool's
        ("train.epochs: 3", "write it nested: train: epochs"),
        ("train: {zzz: 3}", "known keys of train: learning_rate, layer_lr_decay"),
    ],
)
def test_unknown_keys_get_a_suggestion(text: str, hint: str) -> None:
    message = refused(text)
    assert "recipe.yaml:1: " in message
    assert "no such key" in message
    assert hint in message


def test_other_tools_names_lead_to_keys_that_exist() -> None:
    assert set(PEERS.values()) <= set(keys())
    assert set(NOTES) <= set(PEERS)


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("type: dpo", "write type: preference with loss: sigmoid"),
        ("type: ORPO", "write type: preference with loss: orpo"),
        ("type: kto", "write type: unpaired with loss: kto"),
        ("type: lipo", "write type: ranking with loss: lipo_lambda"),
        ("type: grpo", "write type: policy with algorithm: grpo"),
        ("type: dr-grpo", "write type: policy with algorithm: dr_grpo"),
        ("{type: policy, algorithm: reinforce++}", "write type: policy with algorithm: reinforce_pp"),
        ("{type: preference, loss: dpo}", "write type: preference with loss: sigmoid"),
        ("{type: preference, loss: kto}", "write type: unpaired with loss: kto"),
        ("type: rm", "write type: reward"),
        ("type: lora", "write type: sft with tuning: lora"),
    ],
)
def test_methods_by_the_names_of_papers_lead_to_how_they_are_written(text: str, fix: str) -> None:
    assert fix in refused(f"method:\n  {text}\n" if "{" not in text else f"method: {text}\n")


def test_every_loss_and_algorithm_is_known_by_its_name_and_written_as_the_hint_says() -> None:
    choices = set()
    for kind in ("preference", "unpaired", "ranking", "reward"):
        node = keys()["method.loss"].under(kind).node
        choices |= {(kind, name) for option in node.get("anyOf", [node]) for name in option.get("enum", [])}
    for kind, loss in choices:
        assert parse_run(f"method: {{type: {kind}, loss: {loss}}}").method.type == kind
        assert loss == "regression" or method_called(loss).endswith(f"with loss: {loss}")
    assert set(LOSSES.values()) <= choices
    algorithms = keys()["method.algorithm"].node["enum"]
    assert set(ALGORITHMS.values()) == set(algorithms)
    assert all(method_called(name) == f"type: policy with algorithm: {name}" for name in algorithms)


def test_all_problems_are_told_at_once_with_their_lines() -> None:
    message = refused("data:\n  formt: text\ntrain:\n  epochs: true\n  schedule: cosin\nmodel: gpt2\n")
    assert message.startswith("4 problems in recipe.yaml:")
    assert "recipe.yaml:2: data.formt: no such key" in message
    assert "recipe.yaml:4: train.epochs: got true" in message
    assert "recipe.yaml:5: train.schedule: got 'cosin'" in message
    assert "one of 'cosine', 'linear', 'constant'" in message
    assert "did you mean 'cosine'?" in message
    assert "recipe.yaml:6: model: got 'gpt2'" in message
    assert "write it one level deeper, as model.base" in message


def test_a_hundred_problems_are_still_one_screen() -> None:
    message = refused("\n".join(f"key_{i}: 1" for i in range(100)))
    assert len(message.splitlines()) <= 30
    assert "and 92 more" in message


@pytest.mark.parametrize(
    ("text", "got", "expected", "fix"),
    [
        ("method: {type: dop, beta: 1}", "'dop'", "'sft'", ""),
        ("method: sft", "'sft'", "a section with keys among: type", "method.type"),
        ("train: {batch_size: 0}", "got 0", "a whole number above 0 or null", ""),
        ("train: {batch_size: 2.5}", "got 2.5", "a whole number above 0 or null", ""),
        ("train: {learning_rate: .inf}", "got inf", "a number above 0 or null", ""),
        ("train: {learning_rate: .nan}", "got nan", "a number above 0 or null", ""),
        ("train: {betas: [0.9, 2]}", "train.betas.1: got 2", "each a number of at least 0 and below 1", ""),
        ("train: {watch: null}", "got null", "text", "leave the key out"),
        ("name: 12", "got 12", "text matching", 'name: "12"'),
        ("name: ../up", "got '../up'", "text matching", ""),
        ("data: {validation_fraction: 0.6, test_fraction: 0.4}", "leave no rows", "", "less than 1"),
        ("method: {tuning: full, lora: {rank: 4}}", "lora has settings", "", "tuning: lora"),
        ("method: {tuning: lora, freeze: {layers: 1}}", "freeze has settings", "", "tuning: full"),
        ("method: {lora: {rank: 4}, freeze: {layers: 1}}", "both have settings", "", ""),
    ],
)
def test_values_that_are_refused(text: str, got: str, expected: str, fix: str) -> None:
    message = refused(text)
    assert "recipe.yaml:1: " in message
    for part in (got, expected, fix):
        assert part in message


def test_settings_of_an_unknown_method_are_not_judged() -> None:
    assert "beta" not in refused("method: {type: dpo, beta: 0.1}")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.lr=3", "override 'train.lr=3': train.lr: no such key"),
        ("train=3", "train is a section"),
        ("data.columns={text: a}", "write data.columns.<name>=<value>"),
        ("epochs", "not an override"),
        ("train.=3", "not an override"),
        ("train.betas=[0.8", "put text in quotes"),
        ("train.epochs=many", "override 'train.epochs=many': train.epochs: got 'many'"),
    ],
)
def test_overrides_that_are_refused(override: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_run(None, [override])
    assert says in str(caught.value)


def test_an_option_is_named_where_its_value_is_wrong() -> None:
    with pytest.raises(ConfigError, match="--name: name: got 'A B'"):
        load_run(None, [], {"name": ("A B", "--name")})


# -- files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("train:\n  epochs: 1\n  epochs: 2", ":3: 'epochs' again, after line 2"),
        ("- a\n- b", ":1: the top level is a list"),
        ("just text", ":1: the top level is 'just text'"),
        ("train:\n\tepochs: 1", ":2: a tab"),
        ("a: &x 1\nb: *x", ":1: an anchor or alias ('x')"),
        ("a: *x", ":1: an anchor or alias ('x')"),
        (
            "a: !!python/object/apply:os.system [ls]",
            "the tag tag:yaml.org,2002:python/object/apply:os.system",
        ),
        ("a: !x 1", "the tag !x"),
        ("a: !!int x", "'x' can not be read as int"),
        ("? [a, b]\n: 1", ":1: a key that is not a name"),
        ("a: " + "[" * 5000, "nested deeper than 16 levels"),
        ("a: b: c", ":1: not YAML"),
        ("a: 1\n---\nb: 2", "not YAML"),
        ("a: 'open", "not YAML"),
        ("a: \x01", ":1: a control character"),
        ("seed: " + "9" * 5000, "can not be read as int"),
    ],
)
def test_yaml_that_is_refused(text: str, says: str) -> None:
    message = refused(text)
    assert "recipe.yaml" in message
    assert says in message
    assert len(message) < 500


def test_files_that_are_refused(tmp_path: Path) -> None:
    def message(path: Path) -> str:
        with pytest.raises(ConfigError) as caught:
            load_run(path)
        return str(caught.value)

    (tmp_path / "recipe.yaml").write_text("seed: 1\n")
    assert "did you mean 'recipe.yaml'?" in message(tmp_path / "recip.yaml")
    assert "is a folder" in message(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"seed: 1\nname: caf\xe9\n")
    assert "latin.yaml:2: byte 17 is not UTF-8" in message(tmp_path / "latin.yaml")
    (tmp_path / "big.yaml").write_text("# " + "x" * (1 << 20))
    assert "1,048,576 bytes" in message(tmp_path / "big.yaml")


def test_a_byte_order_mark_is_no_matter(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"\xef\xbb\xbfseed: 7\r\n")
    assert load_run(tmp_path / "r.yaml").seed == 7
