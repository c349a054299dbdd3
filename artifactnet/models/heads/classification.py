"""The fake logit: from the pooled feature, and from the strongest artifact evidence in a map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_EVIDENCE_SHARE = 0.01  # of the cells: the strongest ones


class ClassificationHead(nn.Linear):
    """Pooled feature (B, C) to the logit (B,) of the fake class."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 1)
        nn.init.trunc_normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)

    def forward(self, feature: Tensor) -> Tensor:
        """Classify."""
        return super().forward(feature)[:, 0]


class EvidenceHead(nn.Linear):
    """What the most suspicious hundredth of a map adds to the fake logit.

    An average over the image drowns a small edit; the mean of the largest 1 % of the log-odds
    does not.
    """

    def __init__(self) -> None:
        super().__init__(1, 1)
        nn.init.constant_(self.weight, 0.5)
        nn.init.zeros_(self.bias)

    def forward(self, odds: Tensor) -> Tensor:
        """(B, h, w) log-odds of an artifact to the (B,) term of the logit."""
        odds = odds.flatten(1)
        count = max(1, round(_EVIDENCE_SHARE * odds.shape[1]))
        strongest = torch.topk(odds, count, dim=1).values.mean(1, keepdim=True)
        return super().forward(strongest)[:, 0]
