"""The Verisimilitude Scorer: how plausible an image is, from token and heatmap (HEIE 3.3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from artifactnet.models.heads.decoder import to_probability

CALIBRATIONS = ("sum", "dynamic")
# notice of a model whose score no run has trained
UNSCORED = "the score is UNTRAINED (no training image had one): do not use it"
_CHANNELS = (8, 16, 32)  # of the heatmap branch's convolutions


class VerisimilitudeScorer(nn.Module):
    """S = Calib(S_token, S_map): both branches predict a score in [0, 1], a weight mixes them.

    S_token is a feed-forward net of the score token. S_map is made of the predicted heatmap by
    convolutions, mean and maximum over the image, and a feed-forward net. The weight of S_token
    is, by calibration:

    - ``sum``: one learned number, 1/2 at first;
    - ``dynamic``: predicted for each image by a gate on the inputs of both branches, 1/2 at first.

    ``width`` is the number of hidden channels of the feed-forward nets.

    Raises:
        ValueError: ``calibration`` is none of `CALIBRATIONS`.
    """

    def __init__(self, token_width: int, width: int, calibration: str) -> None:
        super().__init__()
        if calibration not in CALIBRATIONS:
            raise ValueError(
                f"unknown calibration {calibration!r}: one of {', '.join(CALIBRATIONS)}"
            )
        self.of_token = nn.Sequential(nn.LayerNorm(token_width), _feed_forward(token_width, width))
        steps: list[nn.Module] = []
        for inner, outer in zip((1, *_CHANNELS[:-1]), _CHANNELS, strict=True):
            steps += [nn.Conv2d(inner, outer, 3, stride=2, padding=1), nn.GELU()]
        self.look = nn.Sequential(*steps)
        pooled = 2 * _CHANNELS[-1]
        self.of_map = _feed_forward(pooled, width)
        self.balance: nn.Parameter | None = None
        self.gate: nn.Linear | None = None
        if calibration == "sum":
            self.balance = nn.Parameter(torch.zeros(1))  # FSDP divides no scalars
        else:
            self.gate = nn.Linear(token_width + pooled, 1)
            nn.init.zeros_(self.gate.weight)
            nn.init.zeros_(self.gate.bias)

    def forward(self, token: Tensor, heatmap: Tensor) -> Tensor:
        """(B,) plausibility in [0, 1], 1 where nothing looks wrong; float32 or better.

        Args:
            token: (B, token_width).
            heatmap: (B, h, w) in [0, 1], any size.
        """
        seen = self.look(heatmap[:, None])
        pooled = torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], 1)
        scores = [to_probability(self.of_token(token)), to_probability(self.of_map(pooled))]
        if self.gate is not None:
            weight = to_probability(self.gate(torch.cat([token.to(pooled), pooled], 1)))
        else:
            assert self.balance is not None
            weight = to_probability(self.balance[None])
        return (scores[1] + weight * (scores[0] - scores[1])).clamp(0, 1)


def _feed_forward(inner: int, width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inner, width), nn.GELU(), nn.Linear(width, 1))
