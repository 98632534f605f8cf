"""A Hugging Face hub on 127.0.0.1: the part of its protocol that fetching files needs."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file())


def _entry(file: Path) -> dict[str, Any]:
    return {"type": "file", "path": file.name, "oid": "0" * 40, "size": file.stat().st_size}


@contextmanager
def serve_hub(repos: dict[str, Path]) -> Iterator[tuple[str, list[str]]]:
    """Serve folders as repositories; yields the address and the list of files that were downloaded."""
    downloads: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path, tree = self.path.partition("?")[0], False
            if path.startswith("/api/models/"):
                repo, revision = path.removeprefix("/api/models/"), "main"
                for verb in ("/revision/", "/tree/"):
                    if verb in repo:
                        repo, _, revision = repo.partition(verb)
                        tree = verb == "/tree/"
                if repo not in repos:
                    self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})
                elif revision not in ("main", COMMIT):
                    self.reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
                elif tree:
                    self.reply(200, json.dumps([_entry(file) for file in _files(repos[repo])]).encode())
                else:
                    siblings = [{"rfilename": file.name} for file in _files(repos[repo])]
                    self.reply(200, json.dumps({"id": repo, "sha": COMMIT, "siblings": siblings}).encode())
                return
            repo, _, rest = path.removeprefix("/").partition("/resolve/")
            name = rest.partition("/")[2]
            file = repos.get(repo, Path("/nonexistent")) / name
            if not file.is_file():
                self.reply(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
                return
            body = file.read_bytes()
            etag = hashlib.sha256(body).hexdigest()
            if self.command == "GET":
                downloads.append(name)
            self.reply(200, body, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

        def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", downloads
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
