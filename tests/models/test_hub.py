"""Models on the hub, against a local stand-in of its HTTP interface."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hub_server import served_hub
from huggingface_hub import constants
from safetensors.torch import save_file
from tiny_models import tiny

from artifactnet.distillation.teachers import ModelTeacher, open_teacher
from artifactnet.evaluation.evaluate import is_model_file
from artifactnet.inference.load import find_weights, load_model, names_model
from artifactnet.models.checkpoint import init_weights, save_checkpoint
from artifactnet.models.hub import HubAddress, parse_address, upload_model
from artifactnet.types import ArtifactNetError

NAME = "owner/detector"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with served_hub(tmp_path / "cache", monkeypatch) as server:
        yield server


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two models, as files."""
    folder = tmp_path_factory.mktemp("models")
    for seed in (0, 1):
        save_checkpoint(tiny(seed=seed), folder / f"{seed}.safetensors")
    return folder


@pytest.fixture
def filled(hub, models):
    """Two commits, the older of which is the branch ``v1``."""
    for seed, branch in enumerate(("v1", "main")):
        files = {
            "model.safetensors": models / f"{seed}.safetensors",
            "README.md": b"---\na: 1\n---\n",
        }
        upload_model(HubAddress(NAME, branch), files, f"model {seed}", token=hub.token)
    hub.requests.clear()
    return hub


def head_weights(source):
    return load_model(source, "cpu").model.head.weight


def same(source, seed):
    return torch.equal(head_weights(source), tiny(seed=seed).head.weight)


def error_of(source):
    with pytest.raises(ArtifactNetError) as caught:
        load_model(source, "cpu")
    (line,) = str(caught.value).splitlines()
    return line


def test_upload_makes_the_repository_and_its_branches(filled, models):
    assert filled.messages == ["model 0", "model 1"]
    for seed, branch in enumerate(("v1", "main")):
        found = filled.files(NAME, branch)
        assert found["model.safetensors"] == (models / f"{seed}.safetensors").read_bytes()
        assert found["README.md"] == b"---\na: 1\n---\n"
    assert not filled.repositories[NAME].private


def test_download_of_every_form_of_revision(filled):
    assert same(f"hf:{NAME}", 1)
    assert same(f"hf:{NAME}@main", 1)
    assert same(f"hf:{NAME}@v1", 0)
    commit = filled.repositories[NAME].branches["v1"]
    assert same(f"hf:{NAME}@{commit}", 0)
    assert find_weights(f"hf:{NAME}@{commit}").parent.name == commit
    assert names_model(f"hf:{NAME}")


def test_an_address_is_a_model_wherever_a_file_is(filled):
    assert is_model_file(f"hf:{NAME}")  # and no run, for `evaluate`
    assert isinstance(open_teacher(f"hf:{NAME}"), ModelTeacher)
    assert init_weights(tiny(), find_weights(f"hf:{NAME}")) == []


def test_only_the_model_is_fetched_and_once(filled):
    filled.repositories[NAME].commit("main", {"modeling.py": b"raise SystemExit", "a.pkl": b"x"})
    for _ in range(2):
        assert same(f"hf:{NAME}", 1)
    asked = [line for line in filled.requests if not line.endswith(" /")]
    assert {line.rpartition("/")[2] for line in asked if "resolve" in line} == {"model.safetensors"}
    assert [line.startswith("GET") for line in asked].count(True) == 1


def test_the_newest_model_is_fetched(filled, models):
    assert same(f"hf:{NAME}", 1)
    content = (models / "0.safetensors").read_bytes()
    filled.repositories[NAME].commit("main", {"model.safetensors": content})
    assert same(f"hf:{NAME}", 0)


@pytest.mark.parametrize("how", ["offline", "dead", "500"])
def test_the_cache_answers_without_a_hub(filled, monkeypatch, how):
    assert same(f"hf:{NAME}", 1)
    if how == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        filled.requests.clear()
    elif how == "dead":
        filled.close()
    else:
        filled.status = 500
    assert same(f"hf:{NAME}", 1)
    if how == "offline":
        assert filled.requests == []
    words = {"offline": "HF_HUB_OFFLINE is set", "dead": "cannot be reached", "500": "answered 500"}
    line = error_of(f"hf:{NAME}@v1")
    assert line.startswith(f"hf:{NAME}@v1: not in the local cache, and ")
    assert words[how] in line


def test_what_is_not_there(filled):
    filled.repositories[NAME].branches["other"] = filled.repositories[NAME].commit("x", {})
    commit = next(iter(filled.repositories[NAME].commits))  # the empty first one
    assert error_of("hf:owner/none").startswith("hf:owner/none: no such repository")
    assert error_of(f"hf:{NAME}@v9") == (
        f"hf:{NAME}@v9: the repository has no such branch, tag or commit"
    )
    assert error_of(f"hf:{NAME}@{commit}") == (
        f"hf:{NAME}@{commit}: the repository has no model.safetensors, so no detector of "
        "ArtifactNet"
    )


@pytest.mark.parametrize("hides", [False, True])
def test_a_download_that_breaks_off(filled, hides):
    filled.cut, filled.hides_the_cut = 100, hides
    assert error_of(f"hf:{NAME}").startswith(f"hf:{NAME}: ")
    filled.cut = 0
    assert same(f"hf:{NAME}", 1)  # nothing of the first attempt stayed


def test_a_copy_in_the_cache_that_was_cut(filled):
    path = find_weights(f"hf:{NAME}")
    content = path.read_bytes()
    path.resolve().write_bytes(content[:-100])
    line = error_of(f"hf:{NAME}")
    assert line.startswith(f"hf:{NAME}: {path}: not a readable safetensors file")
    assert "delete it" in line


@pytest.mark.parametrize("kind", ["pickle", "other safetensors"])
def test_a_file_that_is_no_model_of_ours(filled, tmp_path, kind):
    file = tmp_path / "file"
    if kind == "pickle":
        torch.save({"a": torch.ones(2)}, file)
    else:
        save_file({"a": torch.ones(2)}, file)
    filled.repositories[NAME].commit("main", {"model.safetensors": file.read_bytes()})
    line = error_of(f"hf:{NAME}")
    assert line.startswith(f"hf:{NAME}: ")
    assert ("not a readable safetensors" if kind == "pickle" else "not a model saved by") in line


@pytest.mark.parametrize(
    "address",
    ["hf:", "hf:name", "hf:a/b/c", "hf:a/b@", "hf:../b", "hf:a/..", "hf:a/b@../../c", "hf:a/b@/c",
     "hf:a/b@x y", "hf:a/b\n@x", "hf://a/b", "hf:a/b?x", "a/b"],
)  # fmt: skip
def test_addresses_that_are_none(address):
    with pytest.raises(ArtifactNetError, match="OWNER/NAME"):
        parse_address(address)


def test_addresses():
    assert parse_address("hf:a/b") == ("a/b", None)
    assert parse_address("hf:a.b/c-d_e@refs/pr/1") == ("a.b/c-d_e", "refs/pr/1")
    assert str(parse_address("hf:a/b@v1.0")) == "hf:a/b@v1.0"


def test_upload_errors(hub, models, monkeypatch):
    files = {"model.safetensors": models / "0.safetensors"}

    def error(**options):
        with pytest.raises(ArtifactNetError) as caught:
            upload_model(HubAddress(NAME), files, "model", **options)
        (line,) = str(caught.value).splitlines()
        return line

    assert "hf auth login" in error(token="hf_wrong")
    assert hub.repositories == {}
    upload_model(HubAddress(NAME), files, "model", token=hub.token)
    assert "exists already and is public" in error(token=hub.token, private=True)
    hub.status = 500
    assert error(token=hub.token) == f"hf:{NAME}: the hub answered 500: out of order"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in error(token=hub.token)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.close()
    assert "cannot be reached" in error(token=hub.token)


def test_a_private_repository(hub, models):
    files = {"model.safetensors": models / "0.safetensors"}
    for _ in range(2):
        done = upload_model(HubAddress(NAME), files, "model", private=True, token=hub.token)
    assert hub.repositories[NAME].private
    commit = hub.repositories[NAME].branches["main"]
    assert done == (f"hf:{NAME}@{commit}", f"{hub.url}/{NAME}/commit/{commit}")


def test_a_path_of_that_name_does_not_hide_the_hub(filled, models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hf:owner").mkdir()
    shutil.copy(models / "0.safetensors", tmp_path / "hf:owner" / "detector")
    assert same(f"hf:{NAME}", 1)


def test_the_environment_names_the_hub(filled, tmp_path):
    """As users set it, in a process of its own."""
    code = "from artifactnet.models.hub import download_model, parse_address\n"
    code += f"print(download_model(parse_address('hf:{NAME}@v1')))"
    own = {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": filled.url, "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={key: value for key, value in os.environ.items() if not key.startswith("HF_")} | own,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path / "home"))
    assert Path(done.stdout.strip()).read_bytes() == filled.files(NAME, "v1")["model.safetensors"]
