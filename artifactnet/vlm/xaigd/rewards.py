"""Rewards of answers with categories (X-AIGD, App. C.3, after Visual-RFT).

R = classification + format + detection, each in [0, 1].
"""

from __future__ import annotations

from artifactnet.metrics.category_boxes import CategoryBox, detection_reward
from artifactnet.vlm.fakexplainer.grammar import is_strict, read_verdict
from artifactnet.vlm.reward_rule import Earned
from artifactnet.vlm.rows import Row
from artifactnet.vlm.xaigd.answers import read_instances
from artifactnet.vlm.xaigd.processing import DROP, FORM, category_of


class PadRule:
    """GRPO's `artifactnet.vlm.reward_rule.RewardRule`; all parts weigh 1.

    - ``classification``: 1 if the verdict is right.
    - ``format``: 1 for the strict form of an answer, which does not look at the truth.
    - ``detection``: see `detection_reward`; boxes are read as ``benchmark-xaigd instances`` does.
    """

    parts: tuple[str, ...] = ("classification", "format", "detection")

    def __call__(self, text: str, row: Row, step: int, steps: int) -> Earned:
        """See `artifactnet.vlm.reward_rule.RewardRule`; the same at every step."""
        boxes, _ = read_instances(text, row.size, row.input_size)
        truth = [CategoryBox(category_of(one).label, one.bbox) for one in row.regions or ()]
        parts = {
            "classification": float(read_verdict(text) is row.is_fake),
            "format": float(is_strict(text, row.input_size, DROP, FORM)),
            "detection": detection_reward(boxes, truth),
        }
        return Earned(sum(parts.values()), parts, {"regions": float(len(boxes))})
