"""``python tools/synthesize.py ...`` is ``artifactnet synthesize ...``."""

import sys

from artifactnet.cli import main

sys.exit(main(["synthesize", *sys.argv[1:]]))
