"""Files appear whole or not at all, and with the rights that any other file would have."""

import hashlib
import json
import os
import stat

import pytest

from artifactnet.files import atomic_path, sha256_file, write_json, write_text


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def write_privately(path):
    """As some writers do, for which only the owner counts."""
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    path.write_bytes(b"new")


def write_elsewhere(path):
    """As others do: into a file of their own, which then takes the name."""
    other = path.with_suffix(".own")
    write_privately(other)
    os.replace(other, path)


@pytest.mark.parametrize("write", [write_privately, write_elsewhere])
def test_a_new_file_follows_the_umask(tmp_path, umask, write):
    with atomic_path(tmp_path / "deep/new") as temporary:
        write(temporary)
    assert mode(tmp_path / "deep/new") == 0o666 & ~umask
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["new"]


@pytest.mark.parametrize("before", [0o600, 0o644, 0o664, 0o444])
@pytest.mark.parametrize("write", [write_privately, write_elsewhere])
def test_a_replaced_file_keeps_its_mode(tmp_path, umask, before, write):
    path = tmp_path / "old"
    path.write_bytes(b"old")
    path.chmod(before)
    with atomic_path(path) as temporary:
        write(temporary)
    assert mode(path) == before
    assert path.read_bytes() == b"new"


def test_text_and_json_too(tmp_path, umask):
    write_text(tmp_path / "text", "ä")
    write_json(tmp_path / "json", {"a": [1]})
    assert json.loads((tmp_path / "json").read_text()) == {"a": [1]}
    assert (tmp_path / "text").read_bytes() == "ä".encode()
    assert {mode(p) for p in tmp_path.iterdir()} == {0o666 & ~umask}


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "old"
    path.write_bytes(b"old")

    def fail():
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["old"]


def test_writers_of_one_path_do_not_share_a_temporary_file(tmp_path, monkeypatch):
    """Processes of two containers may have the same process id."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    path = tmp_path / "new"
    with atomic_path(path) as first:
        with atomic_path(path) as second:
            first.write_bytes(b"first")
            second.write_bytes(b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


def test_sha256_of_a_file(tmp_path):
    content = os.urandom((1 << 20) + 1)  # more than one chunk
    (tmp_path / "file").write_bytes(content)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_nan_is_no_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", float("nan"))
    assert list(tmp_path.iterdir()) == []
