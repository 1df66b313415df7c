"""A model hub on loopback, as much of it as the Hugging Face client asks for when it downloads a model."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import unquote, urlsplit


class Request(NamedTuple):
    method: str
    path: str
    authorization: str | None


@dataclass
class Repository:
    """Files by commit, commits by branch."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    made: int = 0

    def push(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Make a commit that holds these files and no others, and let the branch point at it."""
        self.made += 1
        commit = hashlib.sha1(b"commit %d" % self.made).hexdigest()
        self.commits[commit] = dict(files)
        self.branches[branch] = commit
        return commit

    def resolve(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.commits else None)


class FakeHub:
    """The server, what it holds, what it was asked, and how it should fail."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self.cut_after: dict[str, int] = {}  # file name: after how many bytes its connection breaks, each time
        self.broken = ""  # an HTTP status and its code, such as "403 GatedRepo", for every download of a file
        self.down = False  # 500 to everything
        hub = self

        class Handler(_Handler):
            def do_GET(self) -> None:
                _answer(hub, self)

            def do_HEAD(self) -> None:
                _answer(hub, self)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> FakeHub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def repository(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository())

    def downloads(self) -> list[str]:
        """Names of the files whose content was asked for, sorted."""
        return sorted(r.path.rpartition("/")[2] for r in self.requests if r.method == "GET" and "/resolve/" in r.path)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        pass

    def send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_json(self, value: object) -> None:
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def refuse(self, status: int, code: str = "") -> None:
        # A hub may repeat what it was sent; the message that users see must not.
        echo = f"not with {self.headers.get('authorization')}"
        self.send(status, b"", {"X-Error-Code": code, "X-Error-Message": echo} if code else {"X-Error-Message": echo})


_API = re.compile(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree|refs)(?:/([^/]+))?)?")
_RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


def _answer(hub: FakeHub, call: _Handler) -> None:
    path = urlsplit(call.path).path
    hub.requests.append(Request(call.command, path, call.headers.get("authorization")))
    api, file = _API.fullmatch(path), _RESOLVE.fullmatch(path)
    match = api or file
    if hub.down or match is None:
        return call.refuse(500 if hub.down else 404)
    repository = hub.repositories.get(match[1])
    if repository is None:
        return call.refuse(404, "RepoNotFound")
    if api and api[2] == "refs":
        branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in repository.branches.items()]
        return call.send_json({"branches": branches, "tags": [], "converts": []})
    commit = repository.resolve(unquote((api[3] if api else match[2]) or "main"))
    if commit is None:
        return call.refuse(404, "RevisionNotFound")
    files = repository.commits[commit]
    if file:
        return _send_file(hub, call, commit, unquote(file[3]), files)
    if api and api[2] == "tree":
        return call.send_json([{"type": "file", "path": n, "size": len(b), "oid": _etag(b)} for n, b in files.items()])
    return call.send_json({"id": match[1], "sha": commit, "siblings": [{"rfilename": name} for name in files]})


def _send_file(hub: FakeHub, call: _Handler, commit: str, name: str, files: dict[str, bytes]) -> None:
    if hub.broken:
        status, code = hub.broken.split()
        return call.refuse(int(status), code)
    if name not in files:
        return call.refuse(404, "EntryNotFound")
    body = files[name]
    etag = f'"{_etag(body)}"'
    headers = {"ETag": etag, "X-Linked-ETag": etag, "X-Linked-Size": str(len(body)), "X-Repo-Commit": commit}
    if call.command == "HEAD" or name not in hub.cut_after:
        return call.send(200, body, headers)
    call.send(200, body[: hub.cut_after[name]], {**headers, "Content-Length": str(len(body))})
    call.close_connection = True


def _etag(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
