"""Every kind of adapter on two decoders and a classifier: where it starts, what moves, what is saved, what is refused.

The references are the base by itself, its logits with real tokens in the place of virtual ones, and stock PEFT in a
process that does not know Tunesmith.
"""

from __future__ import annotations

import json

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from tests import fresh
from tests.models import folders, fresh_adapters, worn
from tests.models.worn import CASES, FAMILIES, KINDS, REFUSED, ROWS
from tunesmith.config.methods import ClassifyConfig, SftConfig, TagConfig
from tunesmith.config.run import ModelConfig, TrainConfig
from tunesmith.config.tuning import LoraConfig
from tunesmith.errors import ConfigError, ModelError
from tunesmith.generate.batched import evaluating, generate
from tunesmith.models.adapters import adapter_of, kind_of
from tunesmith.models.heads import spec_of
from tunesmith.models.load import load_model
from tunesmith.models.save import merge
from tunesmith.models.tune import lr_factors, prepare
from tunesmith.train.optim import Optimizer, _decays
from tunesmith.workflow.export import export

PARTS = {
    "lora": ("lora_A", "lora_B", "lora_magnitude_vector"),
    "ia3": ("ia3_l",),
    "loha": ("hada_",),
    "vera": ("vera_lambda_",),
    "prompt": ("prompt_encoder",),
    "prefix": ("prompt_encoder",),
}
"""Of which the names of a kind's own parameters consist."""


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("bases")
    return {family: worn.write_base(home / family, family) for family in FAMILIES}


def case(name):
    family, kind = CASES[name]
    return family, KINDS[kind]


def copies(tensors):
    return {name: tensor.clone() for name, tensor in tensors.items()}


def base_answers(bases, family, kind, rows=ROWS):
    """Of the base by itself, in stock attention, with the head that the worn model has."""
    torch.manual_seed(0)
    head = spec_of(ClassifyConfig(labels=worn.LABELS)) if family == "bert" else None
    config = ModelConfig(base=str(bases[family]), dtype="float32", path="padded" if kind.prompted else "auto")
    return worn.answers(load_model(config, head=head, prompted=kind.prompted), family, rows)


# -- where it starts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n, (_, k) in CASES.items() if not KINDS[k].prompted])
def test_row_9_a_new_adapter_leaves_the_answers_as_they_were(bases, name):
    family, kind = case(name)
    base, new = (
        base_answers(bases, family, kind),
        worn.answers(worn.open_for(bases[family], family, kind), family),
    )
    if kind.exact:
        assert torch.equal(new, base)
    else:
        assert (new - base).abs().max() <= 1e-5


@pytest.mark.parametrize("name", ["llama-prompt", "gpt2-prompt", "llama-prefix", "gpt2-prefix"])
def test_learned_tokens_start_as_the_real_ones_that_they_were_made_from(bases, name):
    family, kind = case(name)
    loaded = worn.open_for(bases[family], family, kind)
    ids = loaded.tokenizer(worn.TEXT)["input_ids"]
    assert len(ids) == 7
    longer = base_answers(bases, family, kind, [[*ids, *row] for row in ROWS])
    own = torch.cat(
        [torch.arange(len(ids), len(ids) + len(row) - 1) + start for row, start in _starts(ROWS, 6)]
    )
    assert (worn.answers(loaded, family) - longer[own]).abs().max() <= 1e-5


def _starts(rows, more):
    """Each row and the index of its first logit, where `more` + 1 tokens stand before every row."""
    start = 0
    for row in rows:
        yield row, start
        start += len(row) + more


def test_a_prompted_classifier_reads_the_state_of_its_own_first_token(bases):
    """Real tokens before [CLS] in the place of the learned ones; BERT's positions count on from them."""
    kind = KINDS["prompt"]
    loaded = worn.open_for(bases["bert"], "bert", kind)
    ids = loaded.tokenizer(worn.TEXT)["input_ids"]
    backbone, classifier = loaded.model.head.backbone.get_base_model(), loaded.model.module.classifier
    with evaluating(loaded.model.module):
        alone = [backbone(torch.tensor([[*ids, *row]])).last_hidden_state[0, len(ids)] for row in ROWS]
        expected = classifier(torch.stack(alone))
    assert (worn.answers(loaded, "bert") - expected).abs().max() <= 1e-5


def test_tokens_are_drawn_from_the_vocabulary_by_the_seed_where_no_text_is_given(bases):
    first, again = (
        adapter_of(worn.open_for(bases["llama"], "llama", KINDS["prompt"], text="").model.module)
        for _ in range(2)
    )
    learned = first.prompt_encoder["default"].embedding.weight
    assert torch.equal(learned, again.prompt_encoder["default"].embedding.weight)
    table = first.get_base_model().get_input_embeddings().weight
    assert all((table == row).all(1).any() for row in learned)


# -- what moves -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_only_the_adapter_and_a_head_move(bases, name):
    family, kind = case(name)
    loaded = worn.open_for(bases[family], family, kind)
    module = loaded.model.module
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    trainable = {n for n, p in module.named_parameters() if p.requires_grad}
    own = {n for n in trainable if any(part in n for part in PARTS[kind.tuning])}
    beside = {n for n in trainable - own if "classifier" in n or "pooler" in n}
    if kind.settings.get("train_embeddings"):
        beside |= {n for n in trainable if "embed" in n and "modules_to_save" in n}
        assert beside
    assert own
    assert trainable == own | beside
    assert bool(beside) == (family == "bert" or "train_embeddings" in kind.settings)

    optimizer = worn.optimizer_of(loaded)
    for _ in range(2):  # A has no gradient while B is zero
        worn.one_step(loaded, family, kind, optimizer)
    after = dict(module.named_parameters())
    moved = {n for n in before if not torch.equal(before[n], after[n])}
    assert moved == trainable


@pytest.mark.parametrize("kind", ["lora", "ia3", "loha", "vera", "prompt", "prefix"])
def test_no_adapter_is_pulled_towards_zero(bases, kind):
    loaded = worn.open_for(bases["llama"], "llama", KINDS[kind])
    own = {n: p for n, p in loaded.model.module.named_parameters() if p.requires_grad}
    assert own
    assert not any(_decays(name, weight) for name, weight in own.items())


@pytest.mark.parametrize(("family", "kind"), [("llama", "prefix"), ("bert", "prompt")])
def test_learned_tokens_have_the_rate_of_the_run(bases, family, kind):
    loaded = worn.open_for(bases[family], family, KINDS[kind])
    factors = lr_factors(loaded.model, 0.5, 3.0)
    assert [f for name, f in factors.items() if "prompt_encoder" in name] == [1.0]
    assert {f for name, f in factors.items() if "classifier" in name} == (
        {3.0} if family == "bert" else set()
    )


# -- what is saved --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(bases, tmp_path_factory):
    """name -> (folder, answers here, answers of stock PEFT in a fresh process)."""
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("saved")
    found, asked = {}, {}
    for name, (family, kind) in CASES.items():
        loaded = worn.trained(bases[family], family, KINDS[kind])
        folder = worn.save(loaded, home / name)
        found[name] = (folder, worn.answers(loaded, family))
        pooled = (folder / "2_Dense").is_dir()
        opener = "pooled" if pooled else "classifier" if family == "bert" else "decoder"
        asked[name] = {"opener": opener, "folder": str(folder), "base": str(bases[family]), "rows": ROWS}
    there = fresh.ask(fresh_adapters, asked, home, "answers.safetensors")
    return {name: (folder, here, there[name]) for name, (folder, here) in found.items()}


@pytest.mark.parametrize("name", CASES)
def test_stock_peft_answers_alike_on_the_untouched_base_in_a_fresh_process(saved, name):
    _, here, there = saved[name]
    assert there.shape == here.shape
    assert (there - here).abs().max() <= 2e-5


@pytest.mark.parametrize("name", CASES)
def test_a_saved_adapter_loads_and_answers_alike(saved, name):
    family, kind = case(name)
    folder, here, _ = saved[name]
    loaded = worn.reopen(folder)
    assert (worn.answers(loaded, family) - here).abs().max() <= 2e-5
    assert kind_of(loaded.model.module) == kind.tuning


@pytest.mark.parametrize("name", [n for n, (_, k) in CASES.items() if KINDS[k].merges])
def test_row_10_a_merged_adapter_answers_alike(saved, tmp_path, name):
    family, _ = case(name)
    folder, here, _ = saved[name]
    export(folder, tmp_path / "merged", merged=True)
    loaded = worn.reopen(tmp_path / "merged")
    assert kind_of(loaded.model.module) == "full"
    assert (worn.answers(loaded, family) - here).abs().max() <= 1e-4


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_learned_tokens_cannot_be_merged(saved, kind):
    loaded = worn.reopen(saved[f"llama-{kind}"][0])
    with pytest.raises(ConfigError, match="nothing can be merged"):
        merge(loaded.model.module)


@pytest.mark.parametrize("name", [n for n, (_, k) in CASES.items() if not KINDS[k].exact])
def test_pissa_and_olora_are_saved_as_plain_lora_of_twice_the_rank(saved, name):
    folder, _, _ = saved[name]
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["init_lora_weights"] is True
    assert config["r"] == 8
    scale = config["lora_alpha"] / (config["r"] ** 0.5 if config["use_rslora"] else config["r"])
    assert scale == pytest.approx(8 / 4**0.5 if config["use_rslora"] else 8 / 4)


def test_row_19_tied_embeddings_that_were_trained_are_tied_when_merged(saved, tmp_path):
    export(saved["llama-embeddings"][0], tmp_path / "merged", merged=True)
    tensors = load_file(tmp_path / "merged" / "model.safetensors")
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["tie_word_embeddings"]
    assert not any(name.startswith("lm_head") for name in tensors)


def test_untied_embeddings_and_head_are_trained_and_saved(tmp_path):
    base = folders.write_base(tmp_path / "base", tied=False)
    loaded = worn.trained(base, "llama", KINDS["embeddings"])
    here = worn.answers(loaded, "llama")
    worn.save(loaded, tmp_path / "saved")
    names = load_file(tmp_path / "saved" / "adapter_model.safetensors").keys()
    assert {n.split(".")[-2] for n in names if "lora_" not in n} == {"embed_tokens", "lm_head"}
    assert torch.equal(worn.answers(worn.reopen(tmp_path / "saved"), "llama"), here)


# -- resuming and going on ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_row_18_a_resumed_adapter_takes_the_same_steps_and_is_saved_alike(bases, tmp_path, name):
    family, kind = case(name)
    straight = worn.open_for(bases[family], family, kind)
    optimizer = worn.optimizer_of(straight)
    worn.one_step(straight, family, kind, optimizer)
    weights, moments = (copies(t) for t in (optimizer.weights(), optimizer.moments()))
    worn.one_step(straight, family, kind, optimizer)

    resumed = worn.open_for(bases[family], family, kind)
    other = worn.optimizer_of(resumed)
    other.restore(weights, moments)
    worn.one_step(resumed, family, kind, other)
    assert torch.equal(worn.answers(resumed, family), worn.answers(straight, family))
    files = [
        load_file(worn.save(loaded, tmp_path / which) / "adapter_model.safetensors")
        for which, loaded in (("straight", straight), ("resumed", resumed))
    ]
    assert files[0].keys() == files[1].keys()
    assert all(torch.equal(files[0][key], files[1][key]) for key in files[0])


@pytest.mark.parametrize("name", [n for n, (_, k) in CASES.items() if KINDS[k].exact])
def test_row_9_a_run_goes_on_where_the_saved_adapter_ended(saved, name):
    family, kind = case(name)
    folder, here, _ = saved[name]
    start = {k: v for k, v in kind.settings.items() if k != "text"}
    again = worn.open_for(folder, family, worn.Case(kind.tuning, start))
    assert "goes on with the adapter" in " ".join(again.notes)
    assert (worn.answers(again, family) - here).abs().max() <= 1e-5
    optimizer = worn.optimizer_of(again)
    worn.one_step(again, family, kind, optimizer)
    assert not torch.equal(worn.answers(again, family), here)


@pytest.mark.parametrize(
    ("kind", "said", "message"),
    [
        ("lora", {"lora": {"dora": True}}, "dora is False there, True here"),
        ("lora", {"lora": {"rslora": True}}, "rslora is False there, True here"),
        ("lora", {"lora": {"ranks": {"q_proj": 2}}}, "ranks is {} there"),
        ("lora", {"lora": {"train_embeddings": True}}, "train_embeddings is False there, True here"),
        ("gaussian", {"lora": {"init": "olora"}}, "init is gaussian there, olora here"),
        ("pissa", {"lora": {"init": "pissa"}}, "init is default there, pissa here"),
        ("pissa", {"lora": {"rank": 4}}, "rank is 8 there, 4 here"),
        ("ia3", {"ia3": {"modules": ["q_proj"]}}, r"modules is \['down_proj', 'k_proj', 'v_proj'\] there"),
        ("loha", {"loha": {"rank": 4}}, "rank is 2 there, 4 here"),
        ("vera", {"vera": {"initial": 1.0}}, "initial is 0.1 there, 1.0 here"),
        ("prompt", {"prompt": {"tokens": 9}}, "tokens is 7 there, 9 here"),
        ("prefix", {"prefix": {"text": "else"}}, "text is only for a new adapter there, 'else' here"),
        ("ia3", {"tuning": "vera"}, "is of the kind ia3, the recipe says tuning: vera"),
        ("prompt", {"tuning": "full"}, "nothing can be merged"),
    ],
)
def test_another_adapter_than_the_one_that_is_trained_on_is_refused(saved, kind, said, message):
    method = SftConfig(**{"tuning": KINDS[kind].tuning, **said})
    loaded = load_model(ModelConfig(base=str(saved[f"llama-{kind}"][0]), dtype="float32"), train=True)
    with pytest.raises(ConfigError, match=message):
        prepare(loaded, method, [])


# -- virtual tokens on the padded path, and in generation -----------------------------------------------


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_learned_tokens_choose_the_padded_path_and_say_so(bases, kind):
    loaded = worn.open_for(bases["llama"], "llama", KINDS[kind])
    assert loaded.model.path == "padded"
    assert "padded rows: prompt and prefix tuning" in loaded.notes[0]
    with pytest.raises(ModelError, match=r"model\.path=layout with prompt or prefix tuning"):
        worn.open_for(bases["llama"], "llama", KINDS[kind], path="layout")


@pytest.mark.parametrize("name", ["llama-prompt", "gpt2-prompt", "llama-prefix", "gpt2-prefix"])
def test_generation_takes_the_likeliest_next_token_after_every_prompt(saved, name):
    loaded = worn.reopen(saved[name][0])
    prompts = [*ROWS, ROWS[1][::-1], ROWS[0]]
    found = dict(generate(loaded.model, prompts, max_new_tokens=5, end_ids=[2], pad_id=0, batch_size=3))
    for index, prompt in enumerate(prompts):
        ids = list(prompt)
        while len(ids) < len(prompt) + 5 and ids[-1] != 2:
            last = worn.answers(loaded, "llama", [[*ids, 0]])[-1]  # what is said after the last token
            ids.append(int(last.argmax()))
        answer = [i for i in ids[len(prompt) :] if i != 2]
        assert found[index].ids == answer, index


# -- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "kind"), REFUSED)
def test_what_peft_cannot_put_on_a_family_says_why(bases, family, kind):
    with pytest.raises(ConfigError, match=REFUSED[family, kind]):
        worn.open_for(bases[family], family, KINDS[kind])


def test_pissa_needs_numbers_that_can_be_decomposed(bases):
    loaded = load_model(ModelConfig(base=str(bases["llama"]), dtype="float64"), train=True)
    with pytest.raises(ConfigError, match="float64, which PEFT does not decompose"):
        prepare(loaded, SftConfig(tuning="lora", lora=LoraConfig(init="pissa")), [])


def test_only_lora_trains_the_rows_of_new_tokens(bases):
    loaded = load_model(ModelConfig(base=str(bases["llama"]), dtype="float32"), train=True)
    with pytest.raises(ConfigError, match="adds 1 tokens, whose embeddings vera tuning would neither train"):
        prepare(loaded, SftConfig(tuning="vera"), [5])


def test_a_family_that_peft_has_no_table_of_names_its_layers(bases):
    loaded = load_model(ModelConfig(base=str(bases["llama"]), dtype="float32"), train=True)
    loaded.model.module.config.model_type = "unheard-of"
    with pytest.raises(ConfigError, match="PEFT does not know which layers of unheard-of"):
        prepare(loaded, SftConfig(tuning="ia3"), [])
    named = {"modules": ["v_proj", "up_proj"], "feedforward": ["up_proj"]}
    notes = prepare(loaded, SftConfig(tuning="ia3", ia3=named), [])
    assert notes[0] == "(IA)3 on 4 linear layers, 2 of them on their inputs"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            {"lora": {"init": "pissa", "rslora": True, "ranks": {"q": 2}}},
            "cannot be converted to plain LoRA by PEFT",
        ),
        (
            {"lora": {"init": "olora", "rslora": True, "alphas": {"q": 2}}},
            "cannot be converted to plain LoRA by PEFT",
        ),
        (
            {"tuning": "lora", "ia3": {"modules": ["q"]}},
            "ia3 has settings but tuning is lora; write tuning: ia3",
        ),
        (
            {"tuning": "prompt", "freeze": {"layers": 1}},
            "freeze has settings but tuning is prompt; write tuning: full",
        ),
        ({"loha": {"rank": 1}, "vera": {"rank": 1}}, "loha and vera both have settings"),
        ({"ia3": {"feedforward": ["down_proj"]}}, "write modules too"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(said, message):
    with pytest.raises(ValidationError, match=message):
        SftConfig(**said)


@pytest.mark.parametrize("said", [{"tuning": "prefix"}, {"prompt": {"tokens": 3}}])
def test_tagging_has_no_learned_tokens(said):
    with pytest.raises(ValidationError, match="tagging has no prompt or prefix tuning"):
        TagConfig(**said)


def test_a_pattern_of_ranks_that_no_layer_matches_is_refused(bases):
    with pytest.raises(ConfigError, match=r"method\.lora\.ranks: no linear layer matches 'query'"):
        worn.open_for(bases["llama"], "llama", KINDS["lora"], ranks={"query": 2})


def test_ranks_and_alphas_go_to_the_layers_that_they_name(bases):
    loaded = worn.open_for(
        bases["llama"], "llama", KINDS["lora"], ranks={"mlp": 2, "down_proj": 9}, alphas={"v_proj": 1}
    )
    layers = {n.split(".")[-1]: m for n, m in loaded.model.module.named_modules() if hasattr(m, "lora_A")}
    assert {n: m.r["default"] for n, m in layers.items()} == {
        **dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), 4),
        **dict.fromkeys(("gate_proj", "up_proj", "down_proj"), 2),  # the first pattern counts
    }
    scales = {n: m.scaling["default"] for n, m in layers.items()}
    assert (scales["q_proj"], scales["v_proj"], scales["up_proj"]) == (8 / 4, 1 / 4, 8 / 2)


def test_an_optimizer_without_moments_begins_at_the_weights(bases):
    """What a run does that keeps the best step: the weights come back, by name."""
    loaded = worn.open_for(bases["llama"], "llama", KINDS["dora"])
    optimizer = Optimizer(loaded.model.module, TrainConfig())
    start = copies(optimizer.weights())
    worn.one_step(loaded, "llama", KINDS["dora"], optimizer)
    optimizer.restore(start, None)
    assert all(torch.equal(weight, start[name]) for name, weight in optimizer.weights().items())
