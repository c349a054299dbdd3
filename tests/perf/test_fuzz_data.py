"""Mutated data files are read or refused with one line."""

import json
import random

import numpy as np
import pytest
from perf import fuzz_data
from perf.cli import main

from artifactnet.types import ArtifactNetError


def verdict(case: int) -> str | None:
    try:
        return fuzz_data.check(7, case)
    except ArtifactNetError as error:
        return str(error)


def test_every_mutated_file_is_used_or_refused():
    seen: dict[str, set[bool]] = {}
    names = list(fuzz_data.FORMATS)
    for case in range(150):
        reason = verdict(case)
        assert "\n" not in (reason or "")
        used = reason is None
        seen.setdefault(names[case % len(names)], set()).add(used)
    assert set(seen) == set(names)
    assert all(False in outcomes for outcomes in seen.values()), seen
    assert sum(True in outcomes for outcomes in seen.values()) >= 4, seen


def test_the_recipe_is_sound_before_it_is_mutated(tmp_path):
    (tmp_path / "other.yaml").write_text("")
    (tmp_path / "recipe.yaml").write_text(fuzz_data._RECIPE)
    assert fuzz_data.load(tmp_path / "recipe.yaml").train.epochs == 2


def test_a_case_is_the_same_in_every_run(monkeypatch):
    written = []
    monkeypatch.setitem(
        fuzz_data.FORMATS,
        "manifest",
        lambda rng, folder: written.append(fuzz_data.mutate_json(rng, {"a": [1, {"b": "c"}]})),
    )
    place = list(fuzz_data.FORMATS).index("manifest")
    for case in (place, place, place + len(fuzz_data.FORMATS)):
        assert fuzz_data.check(3, case) is None
    assert written[0] == written[1]


@pytest.mark.parametrize("kind", sorted(fuzz_data._BYTES))
def test_bytes_are_changed(kind):
    data = json.dumps({"a": list(range(40))}, indent=1).encode()
    changed = fuzz_data._BYTES[kind](random.Random(0), data, 20, 90)
    assert changed != data


def test_values_without_a_mutation_are_read(tmp_path, monkeypatch):
    """The files are sound before they are damaged, or nothing would be tested."""
    monkeypatch.setattr(fuzz_data, "mutate_values", lambda rng, value: value)
    monkeypatch.setattr(fuzz_data, "mutate_bytes", lambda rng, data: data)
    monkeypatch.setattr(fuzz_data, "_mutate_table", lambda rng, table: table)
    for name in ("parquet", "manifest", "COCO", "Expl-AIGI-Eval", "safetensors"):
        folder = tmp_path / name
        folder.mkdir()
        rng = random.Random(5)
        monkeypatch.setattr(rng, "random", lambda: 0.99)
        assert fuzz_data.FORMATS[name](rng, folder) is None


def test_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fuzz-data", "--cases", "10", "--workers", "1", "--out", "r.json"]) == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["cases"] == 10
    assert report["answered"] + sum(report["listed"].values()) == 10
    assert report["tracebacks"] == report["crashes"] == report["hangs"] == 0
    assert "10 cases" in capsys.readouterr().out
    assert np.isfinite(report["seconds"])
