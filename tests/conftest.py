"""What holds for every test."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # as many processes as cores are at work: more threads would only wait for one another
    os.environ.setdefault("OMP_NUM_THREADS", "1")
