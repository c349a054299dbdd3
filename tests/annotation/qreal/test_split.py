"""Images of one prompt stay together; the same file gives the same splits everywhere."""

import json
import random

import pytest

from artifactnet.annotation.qreal.split import split_annotations
from artifactnet.cli import main
from artifactnet.data.qreal import read_qreal
from artifactnet.types import ArtifactNetError


def save(path, uids, **more):
    """A line for each generator of each uid."""
    lines = [
        {"image": f"{generator}/{uid}.png", "uid": uid, "entities": [], **more}
        for uid in uids
        for generator in ("flux", "kolors", "wanx")
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def by_uid(path):
    """Splits of each uid."""
    found = {}
    for image in read_qreal(path, images=False):
        found.setdefault(image.uid, set()).add(image.split)
    return found


UIDS = [str(k) for k in range(40)]


def test_all_generators_of_a_prompt_are_in_one_split(tmp_path, capsys):
    source, out = save(tmp_path / "q.jsonl", UIDS), tmp_path / "out.jsonl"
    shares = ["--test", "0.2", "--val", "0.1"]
    assert main(["qreal", "split", str(source), "--out", str(out), *shares]) == 0
    found = by_uid(out)
    assert all(len(splits) == 1 for splits in found.values())
    counts = [sum(splits == {name} for splits in found.values()) for name in ("train", "val")]
    assert counts == [28, 4]  # and 8 in test
    said = "images: train 84 of 28 prompts, val 12 of 4 prompts, test 24 of 8 prompts"
    assert said in capsys.readouterr().out
    # nothing else has changed
    before, after = (read_qreal(path, images=False) for path in (source, out))
    assert [(i.image, i.uid) for i in before] == [(i.image, i.uid) for i in after]


def test_the_order_of_lines_does_not_matter_but_the_seed_does(tmp_path):
    shuffled = UIDS.copy()
    random.Random(1).shuffle(shuffled)
    found = []
    for number, (uids, seed) in enumerate(((UIDS, 0), (shuffled, 0), (UIDS, 1))):
        source, out = save(tmp_path / "q.jsonl", uids), tmp_path / f"{number}.jsonl"
        split_annotations(source, out, seed=seed)
        found.append(by_uid(out))
    assert found[0] == found[1] != found[2]
    assert sum(splits == {"test"} for splits in found[0].values()) == 5  # 13 % of 40


def test_splits_of_the_file_stay(tmp_path):
    source, out = save(tmp_path / "q.jsonl", UIDS, split="val"), tmp_path / "out.jsonl"
    divided = split_annotations(source, out)
    assert not divided.drawn
    assert divided.images == {"train": 0, "val": 120, "test": 0}
    assert set(map(tuple, by_uid(out).values())) == {("val",)}


def test_what_cannot_be_divided(tmp_path):
    out = tmp_path / "out.jsonl"
    mixed = save(tmp_path / "q.jsonl", ["a", "b"])
    lines = mixed.read_text().splitlines()
    lines[3:] = [json.dumps({**json.loads(line), "split": "train"}) for line in lines[3:]]
    mixed.write_text("\n".join(lines) + "\n")
    with pytest.raises(ArtifactNetError) as error:
        split_annotations(mixed, out)
    assert f"{mixed}:3: has no 'split', but {mixed}:6 is in train" in str(error.value)
    with pytest.raises(ArtifactNetError, match="too few uids to have some in the split test"):
        split_annotations(save(tmp_path / "one.jsonl", ["a"]), out)
    with pytest.raises(ArtifactNetError, match="below 1 together"):
        split_annotations(save(tmp_path / "two.jsonl", UIDS), out, 0.6, 0.4)
    assert not out.exists()
