"""A check for the fuzz harness, which imports it in its processes."""

import os
import sys
import time

from artifactnet.types import ArtifactNetError


def sample(case):
    """Six kinds of outcome, one after the other."""
    kind = case % 6
    if kind == 0:
        return None
    if kind == 1:
        raise ArtifactNetError(f"case {case}.png: it is {case}x3 ('odd')")
    if kind == 2:
        raise ValueError(f"case {case}")
    if kind == 3:
        os._exit(3)
    if kind == 4:
        time.sleep(60)
    print("libfoo: warning", file=sys.stderr)
    return "no images in this folder"
