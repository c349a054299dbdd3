"""Predicting more images than one machine can hold, on the actors of a Ray cluster.

The inputs are cut into units of work (`sources`, `units`), each of which a worker reads
(`reading`), predicts (`worker`) and writes as one parquet file (`parts`). `plan` keeps track of the
units, also across interruptions, and `engine` runs them on Ray; nothing else here imports it.
"""
