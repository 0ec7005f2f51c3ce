"""What other training tools call the same setting, so that an unknown key can be answered with ours.

The left column is the key as other tools write it (wherever it stands); the right one is the key here.
"""

from __future__ import annotations

PEERS: dict[str, str] = {
    # model
    "model_name_or_path": "model.base",
    "base_model": "model.base",
    "model_name": "model.base",
    "model_revision": "model.revision",
    "chat_template": "model.template",
    "torch_dtype": "model.dtype",
    "bf16": "model.dtype",
    "fp16": "model.dtype",
    "packing": "model.path",
    "sample_packing": "model.path",
    # data
    "dataset": "data.train",
    "datasets": "data.train",
    "dataset_name": "data.train",
    "dataset_dir": "data.train",
    "training_file": "data.train",
    "train_file": "data.train",
    "validation_file": "data.validation",
    "eval_dataset": "data.validation",
    "test_datasets": "data.validation",
    "val_size": "data.validation_fraction",
    "val_set_size": "data.validation_fraction",
    "split_dataset_ratio": "data.validation_fraction",
    "field_messages": "data.columns",
    "message_property_mappings": "data.message_keys",
    "sequence_len": "data.max_length",
    "cutoff_len": "data.max_length",
    "max_seq_length": "data.max_length",
    "max_samples": "data.limit",
    "system_prompt": "data.instruction",
    # method
    "rl": "method.type",
    "stage": "method.type",
    "rlhf_type": "method.type",
    "completion_only_loss": "method.supervise",
    "assistant_only_loss": "method.supervise",
    "train_on_inputs": "method.supervise",
    "train_on_prompt": "method.supervise",
    "roles_to_train": "method.supervise",
    "mask_history": "method.supervise",
    "loss_scale": "method.supervise",
    "label_smoothing_factor": "method.label_smoothing",
    "neftune_noise_alpha": "train.neftune_alpha",
    "noise_alpha": "train.neftune_alpha",
    "num_decay_steps": "train.decay_fraction",
    "decay_ratio": "train.decay_fraction",
    "cooldown_fraction": "train.decay_fraction",
    "min_lr_ratio": "train.final_lr_fraction",
    "gradual_unfreezing": "train.unfreeze_every",
    "use_peft": "method.tuning",
    "adapter": "method.tuning",
    "finetuning_type": "method.tuning",
    "train_type": "method.tuning",
    "lora_r": "method.lora.rank",
    "lora_rank": "method.lora.rank",
    "lora_alpha": "method.lora.alpha",
    "lora_dropout": "method.lora.dropout",
    "lora_target": "method.lora.modules",
    "lora_target_modules": "method.lora.modules",
    "target_modules": "method.lora.modules",
    "peft_type": "method.tuning",
    "use_dora": "method.lora.dora",
    "peft_use_dora": "method.lora.dora",
    "lora_use_dora": "method.lora.dora",
    "use_rslora": "method.lora.rslora",
    "peft_use_rslora": "method.lora.rslora",
    "lora_use_rslora": "method.lora.rslora",
    "init_lora_weights": "method.lora.init",
    "peft_init_lora_weights": "method.lora.init",
    "init_weights": "method.lora.init",
    "pissa_init": "method.lora.init",
    "rank_pattern": "method.lora.ranks",
    "alpha_pattern": "method.lora.alphas",
    "modules_to_save": "method.lora.train_embeddings",
    "lora_modules_to_save": "method.lora.train_embeddings",
    "additional_target": "method.lora.train_embeddings",
    "feedforward_modules": "method.ia3.feedforward",
    "d_initial": "method.vera.initial",
    "vera_dropout": "method.vera.dropout",
    "num_virtual_tokens": "method.prompt.tokens",
    "prompt_tuning_init_text": "method.prompt.text",
    # train
    "lr": "train.learning_rate",
    "learning_rate_multiplier": "train.learning_rate",
    "lr_scheduler": "train.schedule",
    "lr_scheduler_type": "train.schedule",
    "warmup_ratio": "train.warmup_fraction",
    "warmup_steps": "train.warmup_fraction",
    "num_epochs": "train.epochs",
    "num_train_epochs": "train.epochs",
    "n_epochs": "train.epochs",
    "per_device_train_batch_size": "train.batch_size",
    "micro_batch_size": "train.batch_size",
    "gradient_accumulation_steps": "train.batch_size",
    "gradient_checkpointing": "train.activation_checkpointing",
    "gradient_clipping": "train.max_grad_norm",
    "adam_beta1": "train.betas",
    "adam_beta2": "train.betas",
    "adam_epsilon": "train.eps",
    "eval_steps": "train.eval_every",
    "save_steps": "train.save_every",
    "save_total_limit": "train.keep_checkpoints",
    "metric_for_best_model": "train.watch",
    "early_stopping_patience": "train.early_stopping.patience",
    # evaluate and the rest
    "per_device_eval_batch_size": "evaluate.batch_size",
    "max_completion_length": "evaluate.max_new_tokens",
    "output_dir": "output",
    "run_name": "name",
    "suffix": "name",
    "data_seed": "seed",
}

NOTES: dict[str, str] = {
    "adapter": "full, lora, ia3, loha, vera, prompt or prefix",
    "peft_type": "full, lora, ia3, loha, vera, prompt or prefix",
    "init_lora_weights": "default, gaussian, pissa or olora",
    "modules_to_save": "true for embed_tokens and lm_head; a head of classes is always trained",
    "lora_modules_to_save": "true for embed_tokens and lm_head; a head of classes is always trained",
    "additional_target": "true for embed_tokens and lm_head; a head of classes is always trained",
    "num_virtual_tokens": "method.prefix.tokens for prefix tuning",
    "gradient_accumulation_steps": "it counts the rows of a whole step, however many are computed at once",
    "per_device_train_batch_size": "it counts the rows of a whole step, however many are computed at once",
    "micro_batch_size": "it counts the rows of a whole step, however many are computed at once",
    "warmup_steps": "as a share of all steps",
    "learning_rate_multiplier": "as the rate itself",
    "packing": "rows lie packed wherever the architecture allows it",
    "sample_packing": "rows lie packed wherever the architecture allows it",
}
"""Where ours differs in meaning, what to know when moving the value over."""

LOSSES: dict[str, tuple[str, str]] = {
    **{
        name: ("preference", name)
        for name in (
            "sigmoid",
            "hinge",
            "ipo",
            "robust",
            "exo",
            "apo_zero",
            "apo_down",
            "simpo",
            "orpo",
            "cpo",
        )
    },
    "dpo": ("preference", "sigmoid"),
    "cdpo": ("preference", "sigmoid"),
    "slic": ("preference", "hinge"),
    "slic_hf": ("preference", "hinge"),
    "robust_dpo": ("preference", "robust"),
    "apo": ("preference", "apo_zero"),
    "kto": ("unpaired", "kto"),
    "bco": ("unpaired", "bco"),
    "plackett_luce": ("ranking", "plackett_luce"),
    "best_vs_rest": ("ranking", "best_vs_rest"),
    "lipo_lambda": ("ranking", "lipo_lambda"),
    "lipo": ("ranking", "lipo_lambda"),
    "rrhf": ("ranking", "rrhf"),
    "bradley_terry": ("reward", "bradley_terry"),
    "ordinal": ("reward", "ordinal"),
}
"""What papers and other tools call a method -> method.type and its method.loss."""

ALGORITHMS: dict[str, str] = {
    **{
        name: name
        for name in (
            *("ppo", "grpo", "dr_grpo", "dapo", "gspo", "rloo"),
            *("reinforce_pp", "online_dpo", "raft", "rwr"),
        )
    },
    "drgrpo": "dr_grpo",
    "reinforce++": "reinforce_pp",
    "reinforce_plus_plus": "reinforce_pp",
    "best_of_n": "raft",
    "rejection_sampling": "raft",
    "reward_weighted_regression": "rwr",
}
"""The same of method.type: policy -> its method.algorithm."""

TYPES: dict[str, str] = {
    "rm": "type: reward",
    "reward_model": "type: reward",
    "reward_modeling": "type: reward",
    "reward_modelling": "type: reward",
    "pt": "type: sft, for rows of plain text",
    "cpt": "type: sft, for rows of plain text",
    "pretrain": "type: sft, for rows of plain text",
    "sequence_classification": "type: classify",
    "text_classification": "type: classify",
    "token_classification": "type: tag",
    "lora": "type: sft with tuning: lora",
    "full": "type: sft with tuning: full",
    "rlhf": "type: policy, or type: preference for rows that people judged",
}
"""The same, where neither chooses."""


def method_called(name: str) -> str:
    """How a recipe writes the method that is called so; empty where none is."""
    key = name.lower().replace("-", "_").replace(" ", "_")
    if key in LOSSES:
        return "type: {} with loss: {}".format(*LOSSES[key])
    if key in ALGORITHMS:
        return f"type: policy with algorithm: {ALGORITHMS[key]}"
    return TYPES.get(key, "")
