"""A few of many images, evenly spread, without holding the others."""

from __future__ import annotations

from collections.abc import Iterator

from artifactnet.inference.collect import Found, walk
from artifactnet.inference.inputs import Failure, Source


def spread(found: Found, count: int) -> Iterator[Source | Failure]:
    """At most ``count`` of the images that inputs stand for, evenly spread over all of them.

    The inputs are walked twice, first to count: the content of a shard's rows that are passed
    over is let go at once.

    Args:
        found: what the inputs stand for.
        count: of images, >= 1.

    Yields:
        The chosen images in the order of `walk`, and in between every failure that it met.
    """
    total = sum(isinstance(item, Source) for item in walk(found))
    wanted = min(count, total)
    chosen = {k * total // wanted for k in range(wanted)}
    number = 0
    for item in walk(found):
        if isinstance(item, Failure):
            yield item
            continue
        if number in chosen:
            yield item
        number += 1
