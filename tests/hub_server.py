"""A local stand-in of the Hugging Face Hub's HTTP interface, well or badly behaved."""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from huggingface_hub import constants


@dataclass
class Repository:
    """Commits by id (path -> content), and branches by name (-> commit)."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        """Add files to those of a branch; the commit's id."""
        old = self.commits.get(self.branches.get(branch, ""), {})
        oid = hashlib.sha1(f"{branch}{len(self.commits)}".encode()).hexdigest()
        self.commits[oid] = old | files
        self.branches[branch] = oid
        return oid

    def find(self, revision: str) -> str | None:
        """The commit of a branch or of its own id."""
        if revision in self.commits:
            return revision
        return self.branches.get(revision)


class HubServer:
    """Keeps repositories in memory; ``.safetensors`` go through LFS, all else into the commit.

    Attributes:
        requests: "METHOD path" of all that came.
        status: what everything is answered with, if not 0.
        cut: bytes that a download lacks at its end.
        hides_the_cut: the download announces only what it sends.
        token: without it, nothing may be written.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.messages: list[str] = []  # of commits
        self.stored: dict[str, bytes] = {}  # LFS
        self.status = 0
        self.cut = 0
        self.hides_the_cut = False
        self.token = "hf_secret"
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                server.handle(self)

            do_GET = do_POST = do_PUT = do_HEAD

            def log_message(self, *args: object) -> None:
                """Keep the test's output clean."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        # a short poll lets `close` return at once
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def files(self, repository: str, revision: str = "main") -> dict[str, bytes]:
        """Content of a revision."""
        found = self.repositories[repository]
        return found.commits[found.branches[revision]]

    def handle(self, http: BaseHTTPRequestHandler) -> None:
        body = _read(http)
        path = unquote(http.path.partition("?")[0])
        self.requests.append(f"{http.command} {path}")
        if self.status and path != "/":
            _send(http, self.status, {"error": "out of order"})
            return
        writes = http.command in ("POST", "PUT") and not path.startswith("/lfs/")
        if writes and http.headers.get("authorization") != f"Bearer {self.token}":
            # a hub does not say whether the repository exists
            _send(http, 401, {"error": "Invalid username or password."})
            return
        for pattern, answer in (
            (r"/", lambda: _send(http, 200, {})),
            (r"/api/repos/create", lambda: self._create(http, json.loads(body))),
            (r"/api/validate-yaml", lambda: self._validate(http, json.loads(body))),
            (r"/lfs/verify", lambda: self._verify(http, json.loads(body))),
            (r"/lfs/(\w{64})", lambda oid: self._store(http, oid, body)),
            (r"/cdn/(\w{64})", lambda oid: self._content(http, self.stored[oid])),
            (r"/(\w[^/]*/[^/]+)\.git/info/lfs/objects/batch", lambda r: self._batch(http, body)),
            (r"/(\w[^/]*/[^/]+)/resolve/([^/]+)/(.+)", lambda *p: self._resolve(http, *p)),
            (r"/api/models/([^/]+/[^/]+)/branch/(.+)", lambda *p: self._branch(http, *p)),
            (
                r"/api/models/([^/]+/[^/]+)/preupload/(.+)",
                lambda *p: self._preupload(http, *p, json.loads(body)),
            ),
            (
                r"/api/models/([^/]+/[^/]+)/commit/(.+)",
                lambda *p: self._commit(http, *p, body.splitlines()),
            ),
            (r"/api/models/([^/]+/[^/]+)", lambda name: self._info(http, name)),
        ):
            found = re.fullmatch(pattern, path)
            if found:
                answer(*found.groups())
                return
        _send(http, 404, {"error": f"no such page {path}"})

    def _create(self, http: BaseHTTPRequestHandler, asked: dict) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        known = name in self.repositories
        if not known:
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            self.repositories[name] = Repository(private)
            self.repositories[name].commit("main", {".gitattributes": b""})
        _send(http, 409 if known else 200, {"url": f"{self.url}/{name}", "name": name})

    def _info(self, http: BaseHTTPRequestHandler, name: str) -> None:
        found = self._find(http, name, "main")
        if found is not None:
            private = self.repositories[name].private
            _send(http, 200, {"id": name, "sha": found, "private": private})

    def _branch(self, http: BaseHTTPRequestHandler, name: str, branch: str) -> None:
        repository = self.repositories[name]
        known = branch in repository.branches
        repository.branches.setdefault(branch, repository.branches["main"])
        _send(http, 409 if known else 200, {})

    def _validate(self, http: BaseHTTPRequestHandler, asked: dict) -> None:
        _, front, _ = asked["content"].split("---\n", 2)
        errors = [] if isinstance(yaml.safe_load(front), dict) else [{"message": "no mapping"}]
        _send(http, 400 if errors else 200, {"errors": errors, "warnings": []})

    def _preupload(self, http: BaseHTTPRequestHandler, name: str, branch: str, asked: dict) -> None:
        if self._find(http, name, branch) is None:
            return
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in asked["files"]
        ]
        _send(http, 200, {"files": files})

    def _batch(self, http: BaseHTTPRequestHandler, body: bytes) -> None:
        objects = [
            {
                **file,
                "actions": {
                    "upload": {"href": f"{self.url}/lfs/{file['oid']}"},
                    "verify": {"href": f"{self.url}/lfs/verify"},
                },
            }
            for file in json.loads(body)["objects"]
        ]
        _send(http, 200, {"transfer": "basic", "objects": objects})

    def _store(self, http: BaseHTTPRequestHandler, oid: str, body: bytes) -> None:
        good = hashlib.sha256(body).hexdigest() == oid
        if good:
            self.stored[oid] = body
        _send(http, 200 if good else 400, {})

    def _verify(self, http: BaseHTTPRequestHandler, asked: dict) -> None:
        good = len(self.stored.get(asked["oid"], b"")) == asked["size"]
        _send(http, 200 if good else 400, {})

    def _commit(
        self, http: BaseHTTPRequestHandler, name: str, branch: str, lines: list[bytes]
    ) -> None:
        files = {}
        for item in map(json.loads, lines):
            value = item["value"]
            if item["key"] == "header":
                self.messages.append(value["summary"])
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"], validate=True)
            else:
                assert item["key"] == "lfsFile"
                files[value["path"]] = self.stored[value["oid"]]
        oid = self.repositories[name].commit(branch, files)
        url = f"{self.url}/{name}/commit/{oid}"
        _send(http, 200, {"success": True, "commitOid": oid, "commitUrl": url})

    def _resolve(self, http: BaseHTTPRequestHandler, name: str, revision: str, path: str) -> None:
        commit = self._find(http, name, revision)
        if commit is None:
            return
        content = self.repositories[name].commits[commit].get(path)
        if content is None:
            _refuse(http, "EntryNotFound", {"X-Repo-Commit": commit})
            return
        oid = hashlib.sha256(content).hexdigest()
        self.stored[oid] = content
        headers = {
            "X-Repo-Commit": commit,
            "X-Linked-ETag": f'"{oid}"',
            "X-Linked-Size": str(len(content)),
            # of another host, as that of a CDN
            "Location": f"{self.url.replace('127.0.0.1', 'localhost')}/cdn/{oid}",
        }
        _send(http, 302, {}, headers)

    def _content(self, http: BaseHTTPRequestHandler, content: bytes) -> None:
        sent = content[: len(content) - self.cut]
        http.send_response(200)
        length = len(sent) if self.hides_the_cut else len(content)
        http.send_header("Content-Length", str(length))
        http.end_headers()
        if http.command != "HEAD":
            http.wfile.write(sent)
        http.close_connection = bool(self.cut)

    def _find(self, http: BaseHTTPRequestHandler, name: str, revision: str) -> str | None:
        """The commit; the answer is sent if there is none."""
        if name not in self.repositories:
            _refuse(http, "RepoNotFound", {})
            return None
        found = self.repositories[name].find(revision)
        if found is None:
            _refuse(http, "RevisionNotFound", {})
        return found


@contextmanager
def served_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub that this process takes for the only one, with a cache of its own."""
    server = HubServer()
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the library's retries
    try:
        yield server
    finally:
        server.close()


def _read(http: BaseHTTPRequestHandler) -> bytes:
    if http.headers.get("transfer-encoding") != "chunked":
        return http.rfile.read(int(http.headers.get("content-length", 0)))
    body = b""
    while size := int(http.rfile.readline(), 16):
        body += http.rfile.read(size)
        http.rfile.readline()
    http.rfile.readline()
    return body


def _send(
    http: BaseHTTPRequestHandler, status: int, answer: dict, headers: dict[str, str] | None = None
) -> None:
    content = json.dumps(answer).encode()
    http.send_response(status)
    for key, value in {"Content-Type": "application/json", **(headers or {})}.items():
        http.send_header(key, value)
    http.send_header("Content-Length", str(len(content)))
    http.end_headers()
    if http.command != "HEAD":
        http.wfile.write(content)


def _refuse(http: BaseHTTPRequestHandler, code: str, headers: dict[str, str]) -> None:
    _send(http, 404, {"error": code}, {"X-Error-Code": code, **headers})
