"""Jobs of a cluster without one: the units are predicted in this process, one after another."""

import io
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from artifactnet.cluster.job import ModelChoice, make_job
from artifactnet.cluster.plan import Plan
from artifactnet.cluster.worker import Worker


def png(seed=0, size=(20, 30)):
    """A PNG file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def tar_of(members, compression=""):
    """A tar of names and contents."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def write_shard(path, contents, rows_per_group=2, column="image"):
    """A parquet shard of images as HF datasets stores them."""
    table = pa.table({column: [{"bytes": c, "path": None} for c in contents]})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=rows_per_group)


def job_of(predictor, sources, out, together=10, **options):
    """A job of a model that is here already."""
    heatmaps = options.pop("heatmaps", True)
    chosen = predictor.options(heatmaps=heatmaps, **options)
    return make_job([str(s) for s in sources], str(out), ModelChoice("-"), predictor, chosen,
                    together)  # fmt: skip


def run_job(predictor, sources, out, resume=False, stop=None, **options):
    """Predict a job; ``stop``: after so many units, as if the process were killed."""
    job = job_of(predictor, sources, out, **options)
    plan = Plan(job, resume)
    worker = Worker(job, predictor)
    for number, unit in enumerate(plan.units()):
        if number == stop:
            return plan.summary
        plan.take(worker.run(unit))
    return plan.finish()


def read_rows(out):
    """All rows of a job's answers."""
    return [row for part in sorted((out / "predictions").iterdir())
            for row in pq.read_table(part).to_pylist()]  # fmt: skip
