"""``python tools/train.py ...`` is ``artifactnet train ...``."""

import sys

from artifactnet.cli import main

sys.exit(main(["train", *sys.argv[1:]]))
