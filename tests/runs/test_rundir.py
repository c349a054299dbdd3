import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from artifactnet import files
from artifactnet.config import Config, load
from artifactnet.runs import run_folder
from artifactnet.runs.provenance import git_revision
from artifactnet.types import ArtifactNetError


def config_in(folder: Path, **changes: object) -> Config:
    return replace(Config(name="x", out=str(folder)), **changes)


def refusal(config: Config) -> str:
    with pytest.raises(ArtifactNetError) as caught:
        run_folder.prepare_run_folder(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_new_run_is_recorded(tmp_path: Path) -> None:
    config = config_in(tmp_path, seed=7)
    config.model.backbone_kwargs = {"depth": 2}
    folder = run_folder.prepare_run_folder(config)
    assert folder == tmp_path / "x"
    assert load(folder / "config.yaml") == config
    (start,) = json.loads((folder / "provenance.json").read_text())
    assert start["seed"] == 7
    assert start["packages"]["torch"]
    assert start["torch_threads"] >= 1
    assert start["git"] is None or len(start["git"]["revision"]) == 40


def test_an_existing_run_is_refused_with_the_way_out(tmp_path: Path) -> None:
    folder = run_folder.prepare_run_folder(config_in(tmp_path))
    text = refusal(config_in(tmp_path))
    assert "an unfinished run" in text
    for word in ("resume=true", "overwrite=true", "name=", str(folder)):
        assert word in text
    run_folder.finish_run(folder, {"epochs": 1})
    text = refusal(config_in(tmp_path))
    assert "a finished run" in text
    assert "train.epochs" in text


def test_overwrite_empties_the_folder(tmp_path: Path) -> None:
    folder = run_folder.prepare_run_folder(config_in(tmp_path))
    (folder / run_folder.CHECKPOINT).write_text("old")
    run_folder.finish_run(folder, {})
    run_folder.prepare_run_folder(config_in(tmp_path, overwrite=True, seed=1))
    assert sorted(p.name for p in folder.iterdir()) == [run_folder.CONFIG, run_folder.PROVENANCE]
    saved = load(folder / run_folder.CONFIG)
    assert (saved.seed, saved.overwrite) == (1, False)


def test_overwrite_never_deletes_a_folder_that_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.tex").write_text("years of work")
    assert "not a run" in refusal(config_in(tmp_path, overwrite=True))
    assert (tmp_path / "x" / "thesis.tex").read_text() == "years of work"
    (tmp_path / "y").write_text("")
    assert "not a run" in refusal(config_in(tmp_path, name="y"))
    (tmp_path / "empty").mkdir()
    run_folder.prepare_run_folder(config_in(tmp_path, name="empty"))


@pytest.mark.parametrize("word", ["resume", "overwrite"])
def test_a_start_on_a_full_disk_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    def full(path: Path, data: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_json", full)
        with pytest.raises(ArtifactNetError, match="cannot be prepared.*No space left"):
            run_folder.prepare_run_folder(config_in(tmp_path))
    folder = run_folder.prepare_run_folder(config_in(tmp_path, **{word: True}))
    assert len(json.loads((folder / run_folder.PROVENANCE).read_text())) == 1


def test_check_changes_nothing(tmp_path: Path) -> None:
    folder = run_folder.prepare_run_folder(config_in(tmp_path))
    before = {p: p.read_bytes() for p in folder.iterdir()}
    run_folder.check_run_folder(config_in(tmp_path, overwrite=True))
    run_folder.check_run_folder(config_in(tmp_path, resume=True))
    assert {p: p.read_bytes() for p in folder.iterdir()} == before
    run_folder.check_run_folder(config_in(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_resume_wants_the_same_config(tmp_path: Path) -> None:
    assert "no run in" in refusal(config_in(tmp_path, resume=True))
    folder = run_folder.prepare_run_folder(config_in(tmp_path))
    (folder / run_folder.CHECKPOINT).write_text("state")
    (folder / ".last.ckpt.123.tmp").write_text("half")
    run_folder.finish_run(folder, {})
    longer = config_in(tmp_path, resume=True)
    longer.train.epochs = 99
    longer.data.workers = 3
    run_folder.prepare_run_folder(longer)
    assert (folder / run_folder.CHECKPOINT).read_text() == "state"
    assert not (folder / run_folder.FINISHED).exists()
    assert not list(folder.glob(".*.tmp"))
    assert len(json.loads((folder / run_folder.PROVENANCE).read_text())) == 2
    assert load(folder / run_folder.CONFIG).train.epochs == 99
    other = config_in(tmp_path, resume=True)
    other.optim.lr = 0.5
    other.model.backbone_kwargs = {"depth": 3}
    text = refusal(other)
    assert "optim.lr was 1e-05, is 0.5" in text
    assert "model.backbone_kwargs" in text
    assert "epochs" not in text


def test_open_run(tmp_path: Path) -> None:
    with pytest.raises(ArtifactNetError, match="not the folder of a run"):
        run_folder.find_run(tmp_path)
    folder = run_folder.prepare_run_folder(config_in(tmp_path))
    with pytest.raises(ArtifactNetError, match=r"model\.safetensors"):
        run_folder.find_run(folder)
    (folder / run_folder.BEST).write_bytes(b"")
    assert run_folder.find_run(str(folder)) == (folder, config_in(tmp_path))


def git(folder: Path, *arguments: str) -> None:
    identity = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a"}
    environment = {**os.environ, **identity, "GIT_COMMITTER_EMAIL": "a@b", "HOME": str(folder)}
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, env=environment)


def test_git_revision(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert git_revision(package) is None  # no repository
    git(tmp_path, "init", "-q")
    (tmp_path / "other.txt").write_text("")
    git(tmp_path, "add", "other.txt")
    git(tmp_path, "commit", "-qm", "one")
    assert git_revision(package) is None  # somebody else's repository around us
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "two")
    clean = git_revision(package)
    assert clean is not None
    assert clean["dirty"] is False
    assert len(clean["revision"]) == 40
    (tmp_path / "other.txt").write_text("changed")
    assert git_revision(package) == {**clean, "dirty": True}


def test_a_run_older_than_the_photographs_says_which_line_it_needs(tmp_path: Path) -> None:
    folder = run_folder.prepare_run_folder(config_in(tmp_path))
    (folder / run_folder.BEST).touch()
    path = folder / run_folder.CONFIG
    lines = path.read_text().splitlines()
    assert "  demo_photos: all" in lines
    path.write_text("\n".join(line for line in lines if "demo_photos" not in line))
    old = "config.yaml: no data.demo_photos.*write 'demo_photos: classic' below 'data:'"
    for act in (lambda: run_folder.find_run(folder), lambda: run_folder.read_config(folder)):
        with pytest.raises(ArtifactNetError, match=old):
            act()
    assert "demo_photos: classic" in refusal(config_in(tmp_path, resume=True))
    path.write_text(path.read_text().replace("data:\n", "data:\n  demo_photos: classic\n"))
    assert run_folder.find_run(folder)[1].data.demo_photos == "classic"
    # other data have no such key to miss
    path.write_text("data: {name: folder, root: x}")
    assert run_folder.read_config(folder).data.name == "folder"
