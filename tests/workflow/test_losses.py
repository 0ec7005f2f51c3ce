"""What a report calls the loss: only of tokens it is nats a token."""

from __future__ import annotations

import pytest

from tunesmith.config.load import parse_run
from tunesmith.workflow.losses import loss_title


@pytest.mark.parametrize(
    ("method", "title"),
    [
        ("type: sft", "Loss (nats per token)"),
        ("type: classify", "Loss (nats per row)"),
        ("type: classify, focal_gamma: 2", "Focal loss"),
        ("type: tag", "Loss (nats per tagged token)"),
        ("type: regress, loss: mae", "Absolute error of scaled targets"),
        ("type: embed", "Loss (contrastive)"),
        ("type: preference, loss: simpo", "Loss (simpo)"),
        ("type: unpaired", "Loss (kto)"),
        ("type: reward, loss: bradley_terry", "Loss (bradley terry)"),
        ("type: policy, rewards: [{kind: length}]", "Policy loss"),
        ("type: policy, algorithm: ppo, rewards: [{kind: length}]", "Loss of policy and value head"),
        (
            "type: policy, algorithm: raft, rewards: [{kind: length}]",
            "Loss of the best answers (nats per token)",
        ),
    ],
)
def test_a_loss_is_called_what_it_is(method: str, title: str) -> None:
    assert loss_title(parse_run(f"method: {{{method}}}").method) == title
