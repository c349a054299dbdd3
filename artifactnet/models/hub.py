"""The Hugging Face Hub: models by ``hf:OWNER/NAME[@REVISION]``, down and up. Nothing else asks it.

Of a repository, only ``model.safetensors`` is ever fetched.
"""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from artifactnet.models.metadata import read_metadata
from artifactnet.names import visible
from artifactnet.types import ArtifactNetError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PREFIX = "hf:"
MODEL_FILE = "model.safetensors"  # of a detector, in a repository as in the folder of a run
_TIMEOUT = 3.0  # seconds; an unreachable hub otherwise costs 20-30 s of retries
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_REASON = 300  # characters of what the hub says that an error repeats


class HubAddress(NamedTuple):
    """A repository, and the branch, tag or commit in it; None: its ``main``."""

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{PREFIX}{self.repository}" + (f"@{self.revision}" if self.revision else "")


class Pushed(NamedTuple):
    """A model on the hub.

    Attributes:
        address: of exactly these files (``hf:OWNER/NAME@COMMIT``), for `load_model`.
        url: of the commit, for people.
    """

    address: str
    url: str


def is_address(source: str | Path) -> bool:
    """Whether this names something on the hub, well or badly, and no file or packaged model."""
    return str(source).startswith(PREFIX)


def parse_address(text: str | Path) -> HubAddress:
    """The parts of ``hf:OWNER/NAME`` or ``hf:OWNER/NAME@REVISION``.

    Raises:
        ArtifactNetError: it is written in another way.
    """
    repository, at, revision = str(text).removeprefix(PREFIX).partition("@")
    if (
        not is_address(text)
        or not _REPOSITORY.fullmatch(repository)
        or bool(at) != bool(revision)
        or any(c.isspace() or not c.isprintable() for c in revision)
        or ".." in repository + revision  # the revision becomes part of a path in the cache
        or revision.startswith("/")
    ):
        raise ArtifactNetError(
            f"{text!s:.200}: a model on the hub is written hf:OWNER/NAME or hf:OWNER/NAME@REVISION "
            "(a branch, tag or commit)"
        )
    return HubAddress(repository, revision or None)


def download_model(address: HubAddress) -> Path:
    """The ``model.safetensors`` of a repository, in the local cache of the hub.

    It is fetched unless the cache has the newest one. If the hub does not answer, or with
    ``HF_HUB_OFFLINE``, the one in the cache is taken.

    Raises:
        ArtifactNetError: no such repository, revision or file, the hub does not answer and the
            file is not in the cache, it broke off, or the file is no model of ours.
    """
    with _explained(str(address)):
        api = _api()
        if not in_cache(address.repository, [MODEL_FILE], address.revision):
            reason = why_unreachable()
            if reason is not None:
                raise ArtifactNetError(f"{address}: not in the local cache, and {reason}")
        found = api.hf_hub_download(address.repository, MODEL_FILE, revision=address.revision)
    try:
        read_metadata(found)
    except ArtifactNetError as error:
        raise ArtifactNetError(
            f"{address}: {error} (of a copy in the cache that is broken, delete it)"
        ) from error
    return Path(found)


def upload_model(
    address: HubAddress,
    files: Mapping[str, Path | bytes],
    message: str,
    *,
    private: bool = False,
    token: str | None = None,
) -> Pushed:
    """Put files into a repository as one commit, after making it if it does not exist.

    Args:
        address: with the branch to commit to, which is made from ``main`` if it does not exist.
        files: name in the repository -> a file, or its content. Other files there stay.
        message: of the commit.
        private: only its owners may see the repository.
        token: with the right to write; None: that of ``HF_TOKEN`` or of ``hf auth login``.

    Raises:
        ArtifactNetError: the hub does not answer or refuses, or ``private`` and the repository
            exists and is public.
    """
    from huggingface_hub import CommitOperationAdd

    with _explained(str(address)):
        reason = why_unreachable()
        if reason is not None:
            raise ArtifactNetError(f"{address}: nothing was uploaded, since {reason}")
        api = _api(token)
        repository, branch = address
        api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise ArtifactNetError(
                f"{address}: exists already and is public; make it private in its settings, or "
                "push to another one. Nothing was uploaded"
            )
        if branch is not None:
            api.create_branch(repository, branch=branch, exist_ok=True)
        operations = [CommitOperationAdd(name, file) for name, file in files.items()]
        done = api.create_commit(repository, operations, commit_message=message, revision=branch)
        return Pushed(str(HubAddress(repository, done.oid)), done.commit_url)


def in_cache(repository: str, names: Sequence[str], revision: str | None = None) -> bool:
    """Whether one of these files of a repository is in the local hub cache."""
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(repository, name, revision=revision) for name in names)
    return any(isinstance(path, str) for path in found)


class CachedModel(NamedTuple):
    """A model of ours in the local cache of the hub.

    Attributes:
        address: what `load_model` takes.
        path: its file.
        card: its model card, if it was downloaded too.
        page: where the card is on the hub.
    """

    address: str
    path: Path
    card: Path | None
    page: str


def list_cached() -> list[CachedModel]:
    """The models of ours in the local cache of the hub, sorted; others' files are left out."""
    from huggingface_hub import CacheNotFound, constants, scan_cache_dir

    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return []
    found = []
    for repository in repositories:
        if repository.repo_type != "model":
            continue
        for revision in repository.revisions:
            path = revision.snapshot_path / MODEL_FILE
            try:
                read_metadata(path)
            except ArtifactNetError:  # not there, or not one of ours
                continue
            name = None if "main" in revision.refs else revision.commit_hash
            card = revision.snapshot_path / "README.md"
            found.append(
                CachedModel(
                    str(HubAddress(repository.repo_id, name)),
                    path,
                    card if card.is_file() else None,
                    f"{constants.ENDPOINT}/{repository.repo_id}",
                )
            )
    return sorted(found)


def why_unreachable() -> str | None:
    """None if the hub answers within seconds (its library tries far longer), else the reason."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=_TIMEOUT).close()
    except urllib.error.HTTPError:
        return None  # it answered, so it is there
    except (OSError, ValueError) as error:
        return f"the hub cannot be reached ({getattr(error, 'reason', error)})"
    return None


def _api(token: str | None = None) -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(token=token, library_name="artifactnet", library_version=version("artifactnet"))


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Turn whatever the hub's library raises into one line about ``where``."""
    from huggingface_hub.utils import EntryNotFoundError, HfHubHTTPError

    # the base class of its HTTP errors is that of the HTTP library, which differs by version
    network = cast(tuple[type[Exception], ...], HfHubHTTPError.__bases__)
    own = (EntryNotFoundError, OSError, ValueError, RuntimeError)
    kinds: tuple[type[Exception], ...] = network + own
    try:
        yield
    except ArtifactNetError:
        raise
    except kinds as error:
        raise ArtifactNetError(f"{where}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """What went wrong, in words of ours where it is known, else in the first words of theirs."""
    from huggingface_hub.utils import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, LocalEntryNotFoundError):
        cause = error.__cause__
        why = "HF_HUB_OFFLINE is set" if cause is None else _reason(cause)
        return f"not in the local cache, and {why}"
    if isinstance(error, GatedRepoError):
        return "its owner must let you in first: ask on the page of the repository"
    if isinstance(error, RepositoryNotFoundError):
        return (
            "no such repository, or it is private and you are not logged in "
            "(`hf auth login`, or HF_TOKEN)"
        )
    if isinstance(error, RevisionNotFoundError):
        return "the repository has no such branch, tag or commit"
    if isinstance(error, EntryNotFoundError):
        return f"the repository has no {MODEL_FILE}, so no detector of ArtifactNet"
    if isinstance(error, HfHubHTTPError):
        said = f": {error.server_message}" if error.server_message else ""
        status = error.response.status_code
        hint = "; log in with `hf auth login`, or set HF_TOKEN" if status in (401, 403) else ""
        return _line(f"the hub answered {status}{said}") + hint
    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        return f"{_line(str(error))} ({_reason(error.__cause__)})"
    return _line(str(error) or type(error).__name__)


def _line(text: str) -> str:
    return " ".join(visible(text.replace("\n", " ")).split())[:_REASON]
