"""``python tools/evaluate.py ...`` is ``artifactnet evaluate ...``."""

import sys

from artifactnet.cli import main

sys.exit(main(["evaluate", *sys.argv[1:]]))
