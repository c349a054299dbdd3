"""``python tools/benchmark.py ...`` is ``artifactnet benchmark ...``."""

import sys

from artifactnet.cli import main

if __name__ == "__main__":  # its processes import this file
    sys.exit(main(["benchmark", *sys.argv[1:]]))
