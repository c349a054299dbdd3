"""``python tools/predict.py ...`` is ``artifactnet predict ...``."""

import sys

from artifactnet.cli import main

sys.exit(main(["predict", *sys.argv[1:]]))
