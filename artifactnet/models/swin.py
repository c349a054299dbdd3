"""timm's Swin for images of any size, computed as Swin's authors and mmsegmentation do."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.nn import functional as F


def any_size(net: Any) -> None:
    """Make timm's Swin (v1 and v2) pad what its patches and windows do not tile, in place.

    An image is padded to whole patches, and a block's map to whole windows before it is
    shifted. timm shifts first: its padding then lies behind the rows and columns that were
    rolled round, the attention mask no longer meets them, and opposite borders of an image
    attend to each other (timm issue 2438). Where nothing needs padding all is as before.

    Args:
        net: timm's Swin, built with ``dynamic_img_size``; calling it twice does no harm.
    """
    net.patch_embed.dynamic_img_pad = True
    for module in net.modules():
        if type(module).__name__ in ("SwinTransformerBlock", "SwinTransformerV2Block"):
            # a partial, unlike a closure, follows its block into a deep copy
            module._attn = partial(_attention, module)


def _attention(block: Any, x: torch.Tensor) -> torch.Tensor:
    """Window attention of a (B, H, W, C) map; timm finds nothing left to pad."""
    height, width = x.shape[1:3]
    rows, columns = block.window_size
    whole = F.pad(x, (0, 0, 0, -width % columns, 0, -height % rows))
    return type(block)._attn(block, whole)[:, :height, :width]
