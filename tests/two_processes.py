"""Two gloo processes on CPU, each with its share of some indices."""

import json
import multiprocessing

import torch
import torch.distributed

_SECONDS = 60


def run_both(result, shares, folder):
    """What ``result(indices)`` is in each of two processes that belong together, through JSON."""
    context = multiprocessing.get_context("fork")  # a spawned process would import torch again
    children = [
        context.Process(target=_process, args=(rank, result, shares[rank], folder))
        for rank in (0, 1)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(_SECONDS)
        assert child.exitcode == 0
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def _process(rank, result, indices, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    (folder / f"{rank}.json").write_text(json.dumps(result(indices)))
    torch.distributed.destroy_process_group()
