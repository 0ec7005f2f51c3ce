"""From a resolved `Run` and its rows to an engine that is ready to run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

import torch

from tunesmith.config.judged import Judged, PreferenceConfig, ScoresAnswers
from tunesmith.config.methods import Head, Method, SftConfig
from tunesmith.config.policy import PolicyConfig
from tunesmith.config.run import Run
from tunesmith.config.tuning import PROMPTED
from tunesmith.core.heads import PooledHead
from tunesmith.core.objective import Objective
from tunesmith.core.recompute import recompute
from tunesmith.data.encode import HeadEncoder
from tunesmith.data.template import apply_choice, choose_template
from tunesmith.errors import ConfigError
from tunesmith.evaluate.heads import HeadAnswerer
from tunesmith.evaluate.linear_probe import fit_probe
from tunesmith.models.critic import APART, attach, make_critic
from tunesmith.models.heads import spec_of
from tunesmith.models.load import Loaded, load_model
from tunesmith.models.tune import grow_embeddings, lr_factors, prepare
from tunesmith.models.value import add_value
from tunesmith.objectives import OBJECTIVES
from tunesmith.objectives.policy import Policy
from tunesmith.objectives.ppo import Ppo
from tunesmith.objectives.preference import Preference
from tunesmith.objectives.sft import Sft
from tunesmith.train.optim import Optimizer
from tunesmith.train.source import StaticSource, rows_taken
from tunesmith.train.state import Progress, TrainState
from tunesmith.train.unfreeze import describe, groups
from tunesmith.types import TokenRow


@OBJECTIVES.register("policy")
def of_own_answers(method: PolicyConfig) -> Objective:
    """What answers that the model wrote itself are learned by."""
    if method.algorithm in method.GRADIENT:
        return Ppo(method) if method.algorithm == "ppo" else Policy(method)
    if method.algorithm == "online_dpo":
        said = PreferenceConfig(beta=method.beta)
        return Preference(
            said.model_copy(update={name: value for name, (value, _) in said.choices().items()})
        )
    return Sft(SftConfig())


@dataclass
class Built:
    """Everything that trains: a model with its trainable parameters, objective, source, state."""

    loaded: Loaded
    objective: Objective
    source: StaticSource
    state: TrainState
    notes: list[str]


def seed_everything(run: Run) -> None:
    """One seed, one thread count, deterministic kernels: the same build and machine give the same bits."""
    assert run.train.threads is not None
    torch.set_num_threads(run.train.threads)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.manual_seed(run.seed)


def with_template(loaded: Loaded, setting: str) -> list[int]:
    """Settle the template on the tokenizer, and grow the embeddings for tokens it adds; returns their ids."""
    choice = choose_template(loaded.tokenizer, setting)
    apply_choice(loaded.tokenizer, choice)
    ids = [int(i) for i in loaded.tokenizer.convert_tokens_to_ids(choice.new_tokens)]
    grow_embeddings(loaded, ids)
    return ids


def build(run: Run, rows: Sequence[TokenRow], data_hashes: dict[str, str]) -> Built:
    """`run` must be resolved: no null is left where `tunesmith.config.defaults` would choose.

    An adapter's first weights depend on the seed alone.
    """
    seed_everything(run)
    head = spec_of(run.method)
    prompted, still = run.method.tuning in PROMPTED, isinstance(run.method, Judged | PolicyConfig)
    loaded = load_model(run.model, head=head, train=True, prompted=prompted, still=still)
    new_ids = with_template(loaded, run.model.template) if writes_after_prompt(loaded) else []
    notes = loaded.notes + start_head(run, loaded, rows) + prepare(loaded, run.method, new_ids)
    critic, said = _critic(run, loaded)
    notes += said
    train = run.train
    if train.activation_checkpointing:
        for one in (loaded, critic) if critic is not None else (loaded,):
            _run_again(run, one)
    assert train.batch_size is not None
    assert train.threads is not None
    source = StaticSource(
        rows=rows,
        batch_size=train.batch_size,
        num_rows=rows_taken(train, len(rows)),
        seed=run.seed,
        padded=loaded.model.path == "padded",
        shuffled=train.order == "shuffled",
        share=train.neftune_alpha is None,
    )
    progress = Progress(micro_batch_tokens=train.micro_batch_tokens or 0, threads=train.threads)
    head_factor = run.method.head_lr_factor if isinstance(run.method, Head | ScoresAnswers) else 1.0
    factors = lr_factors(loaded.model, train.layer_lr_decay, head_factor)
    thaws = None
    if train.unfreeze_every is not None:
        thaws = groups(loaded.model)
        notes.append(describe(thaws.values(), source.epoch(source.total_steps - 1), train.unfreeze_every))
    if critic is not None:
        _join(run, loaded, critic, factors, thaws)
    loaded.model.to(loaded.model.device)  # what was added since it was loaded: adapters, a value layer
    hashes = loaded.base_hash if critic is None else loaded.base_hash + critic.base_hash
    state = TrainState(
        progress,
        Optimizer(loaded.model.module, train, factors, thaws, APART if critic is not None else None),
        config_hash(run, hashes, data_hashes),
    )
    return Built(loaded, make_objective(run.method), source, state, notes)


def _critic(run: Run, loaded: Loaded) -> tuple[Loaded | None, list[str]]:
    """What says in PPO how much states are worth: a layer on the model, or a second model, which is returned."""
    method = run.method
    if not isinstance(method, PolicyConfig) or method.algorithm != "ppo":
        return None, []
    if method.critic.kind == "head":
        return None, [add_value(loaded)]
    base = {} if method.critic.base is None else {"base": method.critic.base, "revision": None}
    critic = load_model(run.model.model_copy(update=base), train=True, still=True)
    prepare(critic, method, with_template(critic, run.model.template))
    return critic, make_critic(critic, loaded)


def _join(
    run: Run, loaded: Loaded, critic: Loaded, factors: dict[str, float], thaws: dict[str, int] | None
) -> None:
    """The critic becomes a part of what is trained, with its own learning rate."""
    assert isinstance(run.method, PolicyConfig)
    own = lr_factors(critic.model, run.train.layer_lr_decay, 1.0)
    factors |= {APART + name: run.method.critic.lr_factor * factor for name, factor in own.items()}
    if thaws is not None:
        thaws |= {APART + name: group for name, group in groups(critic.model).items()}
    attach(critic, loaded)


def _run_again(run: Run, loaded: Loaded) -> None:
    """Raises ConfigError where the layers cannot."""
    problem = "learned tokens come to the layers as a cache, which a second pass would fill again"
    if run.method.tuning != "prefix":
        problem = "" if recompute(loaded.model.module) else "this architecture has no layers for it"
    if problem:
        raise ConfigError(
            f"train.activation_checkpointing=true, but {problem}",
            "layers that can run again on the way back",
            "leave it out, or choose another model or method.tuning",
        )


def start_head(run: Run, loaded: Loaded, rows: Sequence[TokenRow]) -> list[str]:
    """Put a linear probe's weights into a new head, where the recipe asks for it."""
    if loaded.head is None or not isinstance(run.method, Head) or run.method.head_init == "random":
        return []
    assert loaded.head.method != "embed"
    assert loaded.head.method != "reward"
    carrier = loaded.model.head.carrier if loaded.model.head is not None else None
    if not isinstance(carrier, PooledHead):
        raise ConfigError(
            f"method.head_init=probe, but the head is a {type(carrier).__name__}",
            "a head of one linear layer on a pooled state",
            "set method.pooling=mean, or leave head_init out",
        )
    encoder = HeadEncoder.of(
        loaded.head.method, loaded.head.multi_label, loaded.tokenizer, loaded.head.labels
    )
    probe = fit_probe(HeadAnswerer(loaded.model, encoder, 0), rows, run.seed)
    assert carrier.classifier is not None
    with torch.no_grad():
        carrier.classifier.weight.copy_(torch.from_numpy(probe.weight))
        carrier.classifier.bias.copy_(torch.from_numpy(probe.bias))
    return ["the head starts at a linear probe on the untuned model's features"]


def writes_after_prompt(loaded: Loaded) -> bool:
    """A causal language model, or one that rewards: its prompts are rendered by a template."""
    head = loaded.model.head
    if head is not None:
        return head.kind == "completion" and head.causal
    return loaded.model.start_id is None


def make_objective(method: Method) -> Objective:
    """The file in `objectives` that is called like the method knows it."""
    import_module(f"tunesmith.objectives.{method.type}")
    return OBJECTIVES[method.type](method)


def config_hash(run: Run, base_hash: str, data_hashes: dict[str, str]) -> str:
    """Of everything that decides the numbers; not of names, folders, the evaluation or the time limit."""
    parts = run.model_dump(include={"seed", "data", "model", "method", "train"}, mode="json")
    for name in ("max_minutes", "keep_checkpoints", "micro_batch_tokens", "activation_checkpointing"):
        parts["train"].pop(name)
    for name in ("train", "validation", "test", "on_bad_row"):
        parts["data"].pop(name)
    for name in ("base", "device"):
        parts["model"].pop(name)
    parts["method"].pop("vllm", None)  # as with another device: what is written there differs by rounding
    text = json.dumps([parts, base_hash, sorted(data_hashes.values())], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
