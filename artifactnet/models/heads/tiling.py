"""Cutting images into tiles beside a thumbnail, and putting maps of tiles back (HEIE Sec. 3.2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from artifactnet.config import HeatmapConfig


def choose_grid(height: int, width: int, tile: int, max_tiles: int) -> tuple[int, int]:
    """Rows and columns of tiles that suit an image: the dynamic tiling of InternVL 1.5.

    Of all grids of at most ``max_tiles`` tiles the one is taken whose aspect ratio (width by
    height) is nearest to the image's. Among equally near ones more tiles win if the image has
    more than half of their pixels: otherwise they would only enlarge it.

    Height, width and the tile's side are in pixels.

    Returns:
        (rows, columns), both at least 1.

    Raises:
        ValueError: an argument is below 1.
    """
    if min(height, width, tile, max_tiles) < 1:
        raise ValueError(f"{height}x{width}, tile={tile}, max_tiles={max_tiles}: at least 1 each")
    grids = [(r, c) for r in range(1, max_tiles + 1) for c in range(1, max_tiles // r + 1)]
    aspect = width / height
    best, nearest = (1, 1), float("inf")
    for rows, columns in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        distance = abs(aspect - columns / rows)
        large_enough = 2 * height * width > tile * tile * rows * columns
        if distance < nearest or (distance == nearest and large_enough):
            best, nearest = (rows, columns), distance
    return best


def adapted_size(options: HeatmapConfig, height: int, width: int) -> tuple[int, int] | None:
    """Size (height, width) at which a heatmap head needs an image; None: the model's own size.

    An adaptive mapper needs each image stretched to the grid of tiles that suits it.
    """
    if options.head != "mapper" or not options.adaptive:
        return None
    rows, columns = choose_grid(height, width, options.tile, options.max_tiles)
    return rows * options.tile, columns * options.tile


def cut(images: Tensor, tile: int) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Thumbnail and tiles of every image.

    Args:
        images: (B, 3, R * tile, C * tile).
        tile: side of a tile and of the thumbnail, pixels.

    Returns:
        Thumbnails (B, 3, tile, tile): the whole image, resized with antialiasing, its aspect
        ratio given up; tiles (B * R * C, 3, tile, tile), image by image and in each row by row;
        the grid (R, C).

    Raises:
        ValueError: the size is no multiple of ``tile``.
    """
    if images.ndim != 4 or tile < 1:
        raise ValueError(f"expected (B, 3, H, W) and tile >= 1, got {tuple(images.shape)}, {tile}")
    height, width = images.shape[-2:]
    if not height or not width or height % tile or width % tile:
        raise ValueError(f"an image of {height}x{width} pixels does not fill tiles of {tile}")
    on_mps = images.device.type == "mps"  # older PyTorch has no such kernel there
    source = images.cpu() if on_mps else images
    thumbnails = F.interpolate(source, (tile, tile), mode="bilinear", antialias=True)
    thumbnails = thumbnails.to(images.device) if on_mps else thumbnails
    rows, columns = height // tile, width // tile
    parts = images.unflatten(3, (columns, tile)).unflatten(2, (rows, tile))
    return thumbnails, parts.permute(0, 2, 4, 1, 3, 5).flatten(0, 2), (rows, columns)


def stitch(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Maps of tiles as maps of their images; undoes `cut` (HEIE Eq. 2).

    Args:
        maps: (B * R * C, K, h, w), in the order of `cut`.
        grid: (R, C), the same for all images.

    Returns:
        (B, K, R * h, C * w).

    Raises:
        ValueError: the number of maps is no multiple of R * C.
    """
    rows, columns = grid
    if maps.ndim != 4 or min(grid) < 1 or maps.shape[0] % (rows * columns):
        raise ValueError(f"maps {tuple(maps.shape)} do not fill grids of {rows}x{columns} tiles")
    parts = maps.unflatten(0, (-1, rows, columns)).permute(0, 3, 1, 4, 2, 5)
    return parts.flatten(4, 5).flatten(2, 3)
