"""What a null field becomes, and why. Each rule is here once, in words and in arithmetic.

| field | rule | from |
|---|---|---|
| method.tuning | what has settings (freeze: full); else full at <= 200 M parameters if 16 bytes each fit half the memory; else LoRA | own rule; 16 = float32 weight, gradient and two AdamW moments |
| train.learning_rate | full: 1e-3 at <= 10 M parameters to 2e-5 at >= 7 B, straight in log-log | ends as commonly published for small and 7 B models; own line |
| the same, with a head | 3e-4 at <= 10 M to 1e-5 at >= 7 B | own line through 2e-4 for an encoder of 22 M (docs/log.md, Banking77) |
| the same, LoRA, rsLoRA, DoRA, OLoRA, LoHa | 10 x full, within 1e-4..2e-3 | LoRA's factor of 10: arXiv:2106.09685 and practice; the others: own rule |
| the same, PiSSA | as full | arXiv:2404.02948 trains 7 B models at 2e-5: its first weights are as large as the model's own |
| the same, IA3 | 3e-2 at <= 10 M to 3e-3 at >= 7 B, straight in log-log | 3e-3: arXiv:2205.05638 (11 B); at 8 M parameters ten times that lowered the loss far faster |
| the same, VeRA | 4e-2 to 4e-3, likewise | 4e-3: arXiv:2310.11454 (7 B); the small end as for IA3 |
| the same, prompt; prefix | 1e-1 to 3e-2; 5e-2 to 1e-2, likewise | own rule, the small ends measured at 8 M: few numbers, far from the loss (arXiv:2104.08691 uses 0.3, with Adafactor) |
| the same, methods that compare log-probabilities | a tenth of the above | DPO is published at 5e-7 where SFT has 2e-5 (7 B), and moves far with more; own rule |
| train.batch_size | power of two nearest to rows / 100, within 8..64; pre-training 32 | own rule: about 100 steps an epoch |
| train.epochs | 4 below 1,000 rows, 3 below 5,000, 2 below 20,000, else 1; pre-training 1 | own rule; the best step is chosen on validation rows anyway |
| train.warmup_fraction | 10 % of the steps, at most 100 steps | common practice |
| train.eval_every | a tenth of the run, at most one epoch | own rule |
| train.save_every | eval_every | each evaluated step can be kept |
| train.threads | physical cores | hyper-threads share the multiplier |
| train.optimizer_state | full tuning in bfloat16 on a CPU: bfloat16, else float32 | half the memory of an optimizer at the same accuracy (docs/decisions/0011); adapters are float32; a GPU's is not measured |
| data.max_length | the model's context, or the longest row rounded up to 8 if that is less | nothing is cut that need not be |
| evaluate.max_new_tokens | 1.5 x the longest training answer, at least 16 | room for an answer somewhat longer than any seen |
| model.device | the first GPU that PyTorch sees, else the CPU | |
| model.dtype | bfloat16 on a GPU or a CPU with native bfloat16, else float32 | emulated bfloat16 is slower than float32 |
| method.lora.alpha | 2 x rank; with rslora 8 | common practice; the update is scaled by 2, with rslora by 2 at rank 16 |
| method.loha.alpha | rank | PEFT's own; the update is scaled by 1 |

`model.template`, `model.path` and `data.format` stay `auto`, and `train.micro_batch_tokens`,
`train.activation_checkpointing` and `train.keep_frozen` null: they are decided by looking at the model, the rows and the memory themselves. One of `train.epochs` and
`train.max_steps` is null: max_steps wins where it is set. An alpha stays null where its kind of adapter is not used.
"""  # noqa: E501 (a table)

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from typing import Any

from tunesmith.config.fields import Key, keys
from tunesmith.config.judged import Judged
from tunesmith.config.policy import PolicyConfig
from tunesmith.config.run import Run
from tunesmith.config.section import Section
from tunesmith.config.tuning import SECTIONS, Tuning

FULL_AT_MOST = 200_000_000
TRAINING_BYTES = 16
SMALL, LARGE = 10_000_000, 7_000_000_000
RATES = {
    "full": (1e-3, 2e-5),
    "full with a head": (3e-4, 1e-5),
    "ia3": (3e-2, 3e-3),
    "vera": (4e-2, 4e-3),
    "prompt": (1e-1, 3e-2),
    "prefix": (5e-2, 1e-2),
}
"""At SMALL and at LARGE; kinds that are not here follow `full`."""
LORA_FACTOR, LORA_LOWEST, LORA_HIGHEST = 10.0, 1e-4, 2e-3
MEBIBYTE = 1 << 20

SET, NOT_USED = "set by you", "not used"

ONLY_TEXT = (
    *("train.eval_generate", "evaluate.max_new_tokens", "evaluate.batch_size"),
    *("evaluate.few_shot", "evaluate.label_scoring", "evaluate.forgetting"),
)
ONLY_ANSWERS = ONLY_TEXT[:-1]
"""What only models that write text have."""

DECIDED_LATER = {
    "model.template": "decided when the model is loaded: its own chat template, else plain",
    "model.path": "decided when the model is loaded: layout if its architecture passes the gate, else padded",
    "data.format": "decided when the rows are read, from their columns",
    "model.device": "auto: the first GPU, where there is one, else the CPU",
    "model.dtype": "auto: bfloat16 where the machine has it natively, else float32",
    "train.keep_frozen": "decided before the first step: where layers are frozen and rows are seen more than once",
    "train.micro_batch_tokens": "decided by a probe of the memory, before the first step",
    "train.activation_checkpointing": "decided by a probe of the memory: where one row does not fit without it",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rules look at. Lengths in tokens, memory in bytes; rows are those left after splitting.

    longest_answer_tokens: 0 where rows have no answer. device: what `model.device` comes to here; has_bf16: it
    multiplies bfloat16 natively.
    """

    num_parameters: int
    hidden_size: int
    vocab_size: int
    context_length: int
    num_train_rows: int
    num_validation_rows: int
    mean_tokens: float
    max_tokens: int
    mean_supervised_tokens: float
    longest_answer_tokens: int
    is_pretraining: bool
    available_memory_bytes: int
    physical_cores: int
    has_bf16: bool
    device: str = "cpu"
    has_head: bool = False
    has_template: bool = True


def resolve(run: Run, facts: Facts) -> tuple[Run, dict[str, str]]:
    """Give every field that is null or `auto` its value, and every field a one-line reason.

    Returns the new run (the given one is left as it is) and dotted key -> reason.
    """
    reasons = given(run)
    tree = run.model_dump()
    _choose_method(run.method, tree["method"], facts, reasons)
    _choose_lengths(tree, facts, reasons)
    _choose_loop(tree["train"], facts, tree["method"], isinstance(run.method, Judged | PolicyConfig), reasons)
    if isinstance(run.method, PolicyConfig) and tree["train"]["watch"] == "loss":
        tree["train"]["watch"], reasons["train.watch"] = "reward", "on-policy methods: the reward"
    _choose_machine(tree, facts, reasons)
    if facts.has_head:
        reasons |= {path: f"{NOT_USED}: a head writes no text" for path in ONLY_TEXT}
    if not facts.has_template:
        reasons["model.template"] = f"{NOT_USED}: texts go to the model as they are"
    if isinstance(run.method, PolicyConfig):
        reasons |= {path: f"{NOT_USED}: answers are sampled" for path in ONLY_ANSWERS[1:]}
    if isinstance(run.method, Judged):
        unused = ("train.eval_generate", "evaluate.few_shot", "evaluate.label_scoring")
        reasons |= {
            path: f"{NOT_USED}: answers are judged, and some are written for the report" for path in unused
        }
    return Run.model_validate(tree), reasons


def given(run: Run) -> dict[str, str]:
    """Dotted key of every field that holds no section -> where its value is from, before anything is chosen:
    'set by you', 'default: ...', or for a null what null stands for.
    """
    reasons: dict[str, str] = {}

    def visit(section: Section, prefix: str) -> None:
        for name, value in section:
            if isinstance(value, Section):
                visit(value, f"{prefix}{name}.")
            else:
                key = keys()[prefix + name].under(run.method.type)
                reasons[key.path] = _origin(key, value, name in section.model_fields_set)

    visit(run, "")
    return reasons


def _origin(key: Key, value: Any, said: bool) -> str:
    if value in (None, "auto") and key.path in DECIDED_LATER:
        return DECIDED_LATER[key.path]
    if value is None and "Null: " in key.description:
        return "null: " + _sentence(key.description.partition("Null: ")[2])
    return SET if said else "default: " + _sentence(key.description)


def _sentence(text: str) -> str:
    return textwrap.shorten(text.split(". ")[0].rstrip("."), 80, placeholder=" ...")


def _choose_method(said: Tuning, method: dict[str, Any], facts: Facts, reasons: dict[str, str]) -> None:
    if said.tuning is None:
        method["tuning"], reasons["method.tuning"] = _tuning(said, facts)
    kind = method["tuning"]
    rules = {
        "lora": "8 with rslora" if said.lora.rslora else f"2 x rank = 2 x {said.lora.rank}",
        "loha": "the rank",
    }
    for section in (said.lora, said.loha):
        name = "lora" if section is said.lora else "loha"
        if kind == name and section.alpha is None:
            method[name]["alpha"], reasons[f"method.{name}.alpha"] = section.default_alpha(), rules[name]
    if isinstance(said, Judged | PolicyConfig):
        for name, (value, reason) in said.choices().items():
            method[name], reasons[f"method.{name}"] = value, reason
    if isinstance(said, PolicyConfig):
        for name, (value, reason) in said.kl_choices().items():
            method["kl"][name], reasons[f"method.kl.{name}"] = value, reason
    unused = tuple(f"method.{section}." for other, section in SECTIONS.items() if other != kind)
    for path in reasons:
        if path.startswith(unused):
            reasons[path] = f"{NOT_USED}: tuning is {kind}"


def _tuning(said: Tuning, facts: Facts) -> tuple[str, str]:
    for kind in said.with_settings():
        return kind, f"{SECTIONS[kind]} has settings"
    needed, half = TRAINING_BYTES * facts.num_parameters, facts.available_memory_bytes // 2
    size = f"{facts.num_parameters:,} parameters"
    if facts.num_parameters > FULL_AT_MOST:
        return "lora", f"{size} > {FULL_AT_MOST:,}"
    sum_ = f"{TRAINING_BYTES} bytes x {size} = {needed / MEBIBYTE:,.0f} MiB"
    if needed > half:
        return "lora", f"{sum_} > half of {facts.available_memory_bytes / MEBIBYTE:,.0f} MiB free"
    return "full", f"{sum_} <= half of {facts.available_memory_bytes / MEBIBYTE:,.0f} MiB free"


def learning_rate(num_parameters: int, tuning: str, init: str = "default") -> float:
    """The rule of the table; two significant digits. init: of LoRA."""
    small, large = RATES.get(tuning, RATES["full"])
    size = min(max(num_parameters, SMALL), LARGE)
    share = math.log(size / SMALL) / math.log(LARGE / SMALL)
    rate = small * (large / small) ** share
    if tuning in ("lora", "loha") and init != "pissa":
        rate = min(max(LORA_FACTOR * rate, LORA_LOWEST), LORA_HIGHEST)
    return float(f"{rate:.1e}")


def _rate_words(facts: Facts, tuning: str, init: str) -> str:
    small, large = RATES.get(tuning, RATES["full"])
    like_lora = tuning not in RATES and init != "pissa"
    kind = "10 x full, within 1e-4..2e-3" if like_lora else f"{small:.0e} at 10 M to {large:.0e} at 7 B"
    kind = kind.replace("e-0", "e-")
    size = f"{facts.num_parameters / 1e6:,.1f} M parameters"
    return f"{'pissa' if init == 'pissa' else tuning} tuning of {size} ({kind})"


def batch_size(rows: int, is_pretraining: bool) -> int:
    if is_pretraining:
        return 32
    return int(min(max(2 ** round(math.log2(max(rows, 1) / 100)), 8), 64))


def epochs(rows: int, is_pretraining: bool) -> float:
    if is_pretraining:
        return 1.0
    return next((e for limit, e in ((1_000, 4.0), (5_000, 3.0), (20_000, 2.0)) if rows < limit), 1.0)


def _choose_lengths(tree: dict[str, Any], facts: Facts, reasons: dict[str, str]) -> None:
    data, evaluate = tree["data"], tree["evaluate"]
    if data["max_length"] is None:
        rounded = max(8, math.ceil(facts.max_tokens / 8) * 8)
        data["max_length"] = min(facts.context_length, rounded)
        reasons["data.max_length"] = (
            f"min(context {facts.context_length:,}, longest row {facts.max_tokens:,} rounded up: {rounded:,})"
        )
    if evaluate["max_new_tokens"] is None:
        longest = facts.longest_answer_tokens
        evaluate["max_new_tokens"] = max(16, math.ceil(1.5 * longest))
        reasons["evaluate.max_new_tokens"] = f"max(16, 1.5 x longest training answer of {longest:,} tokens)"


def _choose_loop(
    train: dict[str, Any], facts: Facts, method: dict[str, Any], judged: bool, reasons: dict[str, str]
) -> None:
    rows, pretraining = facts.num_train_rows, facts.is_pretraining

    def choose(name: str, value: float, reason: str) -> None:
        if train[name] is None:
            train[name], reasons[f"train.{name}"] = value, reason

    tuning, init = method["tuning"], method["lora"]["init"]
    if facts.has_head and tuning == "full":
        tuning = "full with a head"
    rate, words = learning_rate(facts.num_parameters, tuning, init), _rate_words(facts, tuning, init)
    if judged:
        rate, words = float(f"{rate / 10:.1e}"), f"a tenth of that of {words}"
    choose("learning_rate", rate, words)
    because = (
        "continued pre-training: 32" if pretraining else f"{rows:,} rows / 100 as a power of two, 8 to 64"
    )
    choose("batch_size", batch_size(rows, pretraining), because)
    if train["max_steps"] is None:
        because = (
            "continued pre-training: 1" if pretraining else f"{rows:,} rows (4 below 1,000 ... 1 from 20,000)"
        )
        choose("epochs", epochs(rows, pretraining), because)
        reasons["train.max_steps"] = f"{NOT_USED}: epochs says how long"
        total = max(1, math.ceil(round(train["epochs"] * rows) / train["batch_size"]))
    else:
        total = train["max_steps"]
        train["epochs"], reasons["train.epochs"] = None, f"{NOT_USED}: max_steps says how long"
    per_epoch = max(1, math.ceil(rows / train["batch_size"]))
    choose("warmup_fraction", round(min(0.1, 100 / total), 4), f"min(10 %, 100 steps) of {total:,} steps")
    choose(
        "eval_every",
        max(1, min(round(total / 10), per_epoch)),
        f"min(a tenth of {total:,} steps, an epoch of {per_epoch:,})",
    )
    choose("save_every", train["eval_every"], "as eval_every")


def _choose_machine(tree: dict[str, Any], facts: Facts, reasons: dict[str, str]) -> None:
    model, train = tree["model"], tree["train"]
    if model["device"] == "auto":
        model["device"], reasons["model.device"] = facts.device, "what PyTorch sees here"
    if model["dtype"] == "auto":
        model["dtype"] = "bfloat16" if facts.has_bf16 else "float32"
        reasons["model.dtype"] = f"native bfloat16 on {facts.device}: {'yes' if facts.has_bf16 else 'no'}"
    if train["threads"] is None:
        train["threads"] = facts.physical_cores
        reasons["train.threads"] = f"{facts.physical_cores} physical cores"
    if train["optimizer_state"] is None:
        kind = (tree["method"]["tuning"], model["dtype"], model["device"])
        train["optimizer_state"] = "bfloat16" if kind == ("full", "bfloat16", "cpu") else "float32"
        reasons["train.optimizer_state"] = f"{kind[0]} tuning in {kind[1]} on {kind[2]}"
