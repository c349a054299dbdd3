"""Processes that were launched together share the labelling and wait for one another."""

import json
import multiprocessing
import os
import time

import numpy as np
import pytest

from artifactnet.distillation import ranks
from artifactnet.distillation.cache import TeacherCache
from artifactnet.distillation.labelling import label_splits
from artifactnet.distillation.ranks import launched_rank
from artifactnet.types import Annotation, ArtifactNetError, Record, Sample, TeacherAnswer

FORK = multiprocessing.get_context("fork")  # a spawned process would import torch again
COUNT = 11


class Images:
    """Images of one gray each, without files; the last one cannot be used where that is asked."""

    def __init__(self, broken: bool = False) -> None:
        self.records = [
            Record(str(k), k % 2, "g", Annotation.NONE, f"image {k}") for k in range(COUNT)
        ]
        self._broken = broken

    def load(self, index: int) -> Sample:
        if self._broken and index == COUNT - 1:
            raise ArtifactNetError(f"image {index}: broken")
        return Sample(self.records[index], np.full((4, 4, 3), index, np.uint8))


class Teacher:
    """Labels with the gray; writes down what it labels, and may be slow or die on the way."""

    gives_features = False

    def __init__(self, notes, seconds=0.0, dies_at=None):
        self.identity, self.about = {"kind": "test"}, {"name": "gray"}
        self._notes, self._seconds, self._dies_at = notes, seconds, dies_at
        self.prepare = lambda record, image: image

    def check(self, splits):
        pass

    def label(self, images):
        answers = []
        for image in images:
            gray = int(image[0, 0, 0])
            if gray == self._dies_at:
                os._exit(1)
            time.sleep(self._seconds)
            with open(self._notes, "a") as file:
                file.write(f"{gray}\n")
            maps = np.full((4, 4), gray / 255, np.float32)
            answers.append(TeacherAnswer(maps, maps + 1))
        return answers


def launch(folder, *teachers, **options):
    """Label in one process each, as torchrun would start them; their findings."""
    processes = [
        FORK.Process(target=_process, args=(folder, rank, len(teachers), teacher, options))
        for rank, teacher in enumerate(teachers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [
        json.loads(path.read_text()) if path.is_file() else None
        for path in (folder / f"found-{rank}.json" for rank in range(len(teachers)))
    ]


def _process(folder, rank, world, teacher, options):
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world))
    images = Images(options.pop("broken", False))
    try:
        labelled = label_splits({"x": images}, teacher, folder / "cache", 4, 2, **options)["x"]
        found = [round(255 * float(labelled.load(k).teacher.heatmap[0, 0])) for k in range(COUNT)]
    except ArtifactNetError as error:
        found = str(error)
    (folder / f"found-{rank}.json").write_text(json.dumps(found))


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(ranks, "_POLL", 0.02)
    monkeypatch.setattr(ranks, "_BEAT", 0.1)
    monkeypatch.setattr(ranks, "PATIENCE", 30.0)


def labelled(notes):
    return sorted(int(line) for line in notes.read_text().split())


def test_every_image_is_labelled_once_and_every_process_reads_all_labels(tmp_path, fast):
    notes = tmp_path / "notes"
    found = launch(tmp_path, Teacher(notes, 0.1), Teacher(notes), Teacher(notes, 0.02))
    assert found == [[*range(COUNT)]] * 3
    assert labelled(notes) == [*range(COUNT)]
    # the next launch has nothing to do, and the files of the first do not confuse it
    assert launch(tmp_path, *[Teacher(notes)] * 3) == [[*range(COUNT)]] * 3
    assert labelled(notes) == [*range(COUNT)]


def test_files_of_an_earlier_launch_do_not_count(tmp_path, fast):
    """They say that both are done; this time one of them is slow."""
    notes = tmp_path / "notes"
    launch(tmp_path, Teacher(notes), Teacher(notes))
    [shards] = [list((tmp_path / "cache").glob("*/answers-*"))]
    for shard in shards:
        shard.unlink()
    assert launch(tmp_path, Teacher(notes), Teacher(notes, 0.1)) == [[*range(COUNT)]] * 2


def test_a_killed_process_is_reported_and_nothing_is_lost(tmp_path, fast, monkeypatch):
    monkeypatch.setattr(ranks, "PATIENCE", 1.5)
    notes = tmp_path / "notes"
    found, none = launch(tmp_path, Teacher(notes), Teacher(notes, dies_at=5))
    assert none is None
    assert "process 1 of 2 shows no sign of life" in found
    [folder] = (tmp_path / "cache").iterdir()
    identity = json.loads((folder / "teacher.json").read_text())["identity"]
    kept = TeacherCache(tmp_path / "cache", identity, {})
    assert len(kept) == 6  # the share of process 0
    notes.unlink()
    monkeypatch.setattr(ranks, "PATIENCE", 30.0)
    assert launch(tmp_path, Teacher(notes), Teacher(notes)) == [[*range(COUNT)]] * 2
    assert labelled(notes) == [1, 3, 5, 7, 9]


def test_a_failure_of_one_process_stops_the_others(tmp_path, fast):
    notes = tmp_path / "notes"
    found = launch(tmp_path, Teacher(notes, 0.1), Teacher(notes, 0.1), broken=True)
    assert found[0] == f"image {COUNT - 1}: broken"
    assert "process 0 of 2 failed" in found[1]
    assert f"image {COUNT - 1}: broken" in found[1]


def test_skipped_images_are_not_waited_for(tmp_path, fast):
    notes = tmp_path / "notes"
    found = launch(tmp_path, *[Teacher(notes)] * 2, broken=True, on_error="skip")
    assert all(f"image {COUNT - 1}" in one for one in found)  # where it is loaded, not before
    assert labelled(notes) == [*range(COUNT - 1)]


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, (0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "4"}, (1, 4)),
        ({"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "3"}, (2, 3)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "3"}, (0, 1)),  # a batch script: nobody else runs
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, (0, 1)),  # started by Lightning
    ],
)
def test_who_was_launched_together(monkeypatch, variables, wanted):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert launched_rank() == wanted
