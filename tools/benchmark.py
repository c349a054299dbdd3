"""``python tools/benchmark.py NAME``: the timing benchmarks of tools/perf."""

import sys

from perf.cli import main

if __name__ == "__main__":  # its processes import this file
    sys.exit(main())
