"""``python -m artifactnet`` is the console script."""

from __future__ import annotations

import sys

from artifactnet.cli import main

if __name__ == "__main__":
    sys.exit(main())
