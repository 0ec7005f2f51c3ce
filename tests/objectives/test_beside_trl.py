"""Row 11 and others of the correctness list: on one batch, the losses that TRL's trainers compute."""

from __future__ import annotations

import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests import fakes
from tests.objectives import test_preference, test_unpaired
from tests.objectives.judged import Known, random_losses, spelled_out
from tunesmith.config.judged import RewardConfig
from tunesmith.core import attention
from tunesmith.core.batch import Batch
from tunesmith.core.heads import Head
from tunesmith.core.model import Model
from tunesmith.embedded import base_model_path
from tunesmith.generate.batched import completion_sums
from tunesmith.objectives.policy import Policy
from tunesmith.objectives.preference import Preference
from tunesmith.objectives.reward import Reward
from tunesmith.objectives.unpaired import Unpaired

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")
transformers = pytest.importorskip("transformers")

TEXTS = [
    ("Where is my parcel?", " It left our depot this morning.", " No idea."),
    ("The invoice is wrong.", " I have sent you a corrected one.", " That happens now and then, I suppose."),
    ("Cancel my order, please.", " Done, nothing was charged.", " Why?"),
    (
        "How do I reset the password?",
        " Click on 'forgotten' and follow the mail.",
        " Read the manual of the site.",
    ),
]
BETA = 0.3
COMMON = {
    "per_device_train_batch_size": len(TEXTS),
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": [],
    "disable_tqdm": True,
    "max_length": None,
}


def moved():
    """The embedded model, and the same a little way on."""
    base = transformers.AutoModelForCausalLM.from_pretrained(base_model_path(), dtype=torch.float32)
    tuned = transformers.AutoModelForCausalLM.from_pretrained(base_model_path(), dtype=torch.float32)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.add_(
                torch.randn_like(parameter), alpha=0.05 * parameter.std().item() if parameter.ndim > 1 else 0
            )
    return tuned.eval(), base.eval()


def with_reference(rows, base):
    found = completion_sums(Model(base, "padded", base.config.num_hidden_layers), rows, 4096)
    return [replace(r, given={**r.given, "reference": sums}) for r, sums in zip(rows, found, strict=True)]


def ours(objective, module, rows) -> float:
    """By the layout and by padded rows alike."""
    found = []
    for path in ("padded", "layout"):
        if path == "layout":
            attention.register()
            module.set_attn_implementation(attention.NAME)
        model, batch = Model(module, path, module.config.num_hidden_layers), Batch.from_rows(rows)
        term = next(iter(objective.weights(batch)))
        with torch.no_grad():
            found.append((objective.loss(model, batch).terms[term] / objective.weights(batch)[term]).item())
    module.set_attn_implementation("sdpa")
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    return found[0]


@pytest.fixture(scope="module")
def preference(tmp_path_factory):
    """TRL's trainer, its batch, and our rows of the same ids."""
    tuned, base = moved()
    data = datasets.Dataset.from_list([{"prompt": p, "chosen": c, "rejected": r} for p, c, r in TEXTS])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = trl.DPOTrainer(
            model=tuned,
            ref_model=base,
            args=trl.DPOConfig(output_dir=str(tmp_path_factory.mktemp("trl")), beta=BETA, **COMMON),
            train_dataset=data,
            processing_class=transformers.AutoTokenizer.from_pretrained(base_model_path()),
        )
    made = list(trainer.train_dataset)
    rows = [
        fakes.judged_row(row["prompt_ids"], [row["chosen_ids"], row["rejected_ids"]], [1.0, 0.0], i)
        for i, row in enumerate(made)
    ]
    return trainer, trainer.data_collator(made), tuned, with_reference(rows, base)


SAME = {
    "sigmoid": ("sigmoid", {}),
    "sigmoid_norm": ("sigmoid", {"length_normalised": True}),
    "hinge": ("hinge", {}),
    "ipo": ("ipo", {}),
    "robust": ("robust", {"label_smoothing": 0.2}),
    "exo_pair": ("exo", {"label_smoothing": 0.2}),
    "apo_zero": ("apo_zero", {}),
    "apo_down": ("apo_down", {}),
}


@pytest.mark.parametrize("name", SAME)
def test_preference_losses(preference, name):
    trainer, inputs, tuned, rows = preference
    loss, settings = SAME[name]
    trainer.loss_types, trainer.label_smoothing = [name], settings.get("label_smoothing", 0.0)
    with torch.no_grad():
        theirs = trainer._compute_loss(tuned, dict(inputs), return_outputs=False).item()
    config = test_preference.resolved(loss=loss, beta=BETA, **settings)
    assert ours(Preference(config), tuned, rows) == pytest.approx(theirs, rel=1e-5)


def test_bco_without_its_shift(preference):
    """TRL's version has no reward shift; the paper's has one, which ours adds."""
    trainer, inputs, tuned, rows = preference
    trainer.loss_types = ["bco_pair"]
    with torch.no_grad():
        theirs = trainer._compute_loss(tuned, dict(inputs), return_outputs=False).item()
    objective = Preference(test_preference.resolved(loss="bco", beta=BETA))
    objective._shift = torch.zeros(())
    assert ours(objective, tuned, rows) == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("loss, name", [("kto", "kto"), ("apo_zero", "apo_zero_unpaired")])
def test_losses_of_single_answers(loss, name, tmp_path):
    tuned, base = moved()
    rows = []
    for i, (prompt, good, bad) in enumerate(TEXTS):
        answer, label = ((good, True), (bad, False))[i % 2]
        rows.append({"prompt": prompt, "completion": answer, "label": label})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = trl.KTOTrainer(
            model=tuned,
            ref_model=base,
            args=trl.KTOConfig(
                output_dir=str(tmp_path),
                beta=BETA,
                loss_type=name,
                desirable_weight=1.2,
                undesirable_weight=0.7,
                **COMMON,
            ),
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=transformers.AutoTokenizer.from_pretrained(base_model_path()),
        )
    made = list(trainer.train_dataset)
    mine = []
    for i, row in enumerate(made):
        other = [row["KL_completion_ids"]] if "KL_completion_ids" in row else []
        scores = [float(row["label"]), *([np.nan] * len(other))]
        mine.append(fakes.judged_row(row["prompt_ids"], [row["completion_ids"], *other], scores, i))
    with torch.no_grad():
        theirs = trainer._compute_loss(tuned, trainer.data_collator(made), return_outputs=False).item()
    config = test_unpaired.resolved(loss=loss, beta=BETA, desirable_weight=1.2, undesirable_weight=0.7)
    assert ours(Unpaired(config), tuned, with_reference(mine, base)) == pytest.approx(theirs, rel=1e-5)


def test_losses_without_a_reference():
    """cpo and simpo of TRL's CPO trainer, orpo of its ORPO trainer, on the same log-probabilities."""
    from trl.experimental.cpo.cpo_trainer import CPOTrainer
    from trl.experimental.orpo.orpo_trainer import ORPOTrainer

    rows = fakes.judged_rows(5, most=2)
    rows = [replace(row, given={"scores": row.given["scores"]}) for row in rows]
    batch = Batch.from_rows(rows)
    losses = random_losses(batch)
    spelled = [completions for completions, _ in spelled_out(rows, losses.detach())]
    sums = torch.tensor([[c[1] for c in pair] for pair in spelled])
    means = torch.tensor([[c[1] / c[3] for c in pair] for pair in spelled])
    on_cpu = SimpleNamespace(device="cpu")
    for loss, logps, more in (
        ("cpo", sums, {"loss_type": "sigmoid"}),
        ("simpo", means, {"loss_type": "simpo", "simpo_gamma": 0.4}),
        ("orpo", means, {}),
    ):
        config = test_preference.resolved(loss=loss, beta=0.2, **({"margin": 0.4} if loss == "simpo" else {}))
        got = Preference(config).loss(Known(losses), batch).terms["preference"].item() / 5
        known = SimpleNamespace(alpha=0.0, beta=0.2, label_smoothing=0.0, accelerator=on_cpu, **more)
        if loss == "orpo":
            theirs = -ORPOTrainer.odds_ratio_loss(known, logps[:, 0], logps[:, 1])[0].mean()
        else:
            theirs = CPOTrainer.cpo_loss(known, logps[:, 0], logps[:, 1])[0].mean()
        assert got == pytest.approx(theirs.item(), rel=1e-5), loss


def test_rewards_with_margins_and_centring(tmp_path):
    """A decoder with a score head, on the same pairs."""
    torch.manual_seed(0)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(
        base_model_path(), num_labels=1, dtype=torch.float32
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(base_model_path())
    pairs = [
        {"prompt": p, "chosen": c, "rejected": r, "margin": 0.1 * i} for i, (p, c, r) in enumerate(TEXTS)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = trl.RewardTrainer(
            model=theirs,
            args=trl.RewardConfig(output_dir=str(tmp_path), center_rewards_coefficient=0.02, **COMMON),
            train_dataset=datasets.Dataset.from_list(pairs),
            processing_class=tokenizer,
        )
    made = list(trainer.train_dataset)
    with torch.no_grad():
        expected = trainer.compute_loss(theirs, trainer.data_collator(made)).item()
    head = Head("completion", "last", theirs, theirs.base_model, causal=True)
    objective = Reward(RewardConfig(loss="bradley_terry", centre=0.02))
    for path, name in (("padded", "sdpa"), ("layout", attention.NAME)):
        attention.register()
        theirs.set_attn_implementation(name)
        rows = []
        for i, row in enumerate(made):
            chosen, rejected = row["chosen_ids"], row["rejected_ids"]
            same = next(k for k, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b)
            leaves = [chosen[same:], rejected[same:]]
            rows.append(fakes.judged_row(chosen[:same], leaves, [1.0, 0.0], i, margin=[row["margin"]]))
        model = Model(theirs, path, theirs.config.num_hidden_layers, head)
        with torch.no_grad():
            got = objective.loss(model, Batch.from_rows(rows)).terms["reward"].item() / len(rows)
        assert got == pytest.approx(expected, rel=1e-5), path


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "dapo", "bnpo", "sequence"])
def test_policy_gradients(name):
    """Its GRPO trainer's loss on the same log-probabilities, padded as it has them."""
    from collections import defaultdict
    from unittest.mock import MagicMock

    from trl import GRPOTrainer

    from tests.objectives import test_policy

    rows = test_policy.rolled(count=3, group=4)
    batch = Batch.from_rows(rows)
    losses = random_losses(batch).detach()
    found = [torch.stack(parts) for parts in test_policy.answers(rows, losses)]  # (5, n) of each answer
    width = max(part.shape[1] for part in found)
    padded = torch.stack([torch.nn.functional.pad(part, (0, width - part.shape[1])) for part in found])
    mask = torch.stack([(torch.arange(width) < part.shape[1]).long() for part in found])
    logps, old, reference, _, worth = padded.unbind(1)
    their = MagicMock()
    their.loss_type = "grpo" if name == "sequence" else name
    their.importance_sampling_level = "sequence" if name == "sequence" else "token"
    their.beta, their.epsilon_low, their.epsilon_high, their.max_completion_length = 0.04, 0.2, 0.28, 10
    their.args.delta, their.args.use_bias_correction_kl = None, False
    their.top_entropy_quantile, their.off_policy_mask_threshold = 1.0, None
    their.use_vllm = their._entropy_bonus_enabled = their.aux_loss_enabled = their.model.training = False
    their.accelerator.gather, their.accelerator.num_processes = (lambda x: x), 1
    their._metrics = defaultdict(lambda: defaultdict(list))
    their._get_per_token_logps_and_entropies.return_value = (logps, torch.zeros_like(logps), None)
    inputs = {
        "prompt_ids": torch.zeros(len(mask), 1).long(),
        "prompt_mask": torch.ones(len(mask), 1).long(),
        "completion_ids": torch.zeros_like(mask),
        "completion_mask": mask,
        "advantages": worth[:, 0],
        "old_per_token_logps": old,
        "ref_per_token_logps": reference,
        "num_items_in_batch": mask.sum(),
    }
    theirs = GRPOTrainer._compute_loss(their, None, inputs).item()
    algorithm = {"bnpo": "dapo", "sequence": "gspo"}.get(name, name)
    kl = {"weight": 0.04, "where": "loss", "estimator": "k3"}
    method = test_policy.resolved(algorithm, clip=0.2, clip_high=0.28, max_new_tokens=10, kl=kl)
    objective = Policy(method)
    term = objective.of(-losses, batch).terms["policy"] / objective.weights(batch)["policy"]
    assert term.item() == pytest.approx(theirs, rel=1e-5)
