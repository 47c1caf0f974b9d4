"""A Hugging Face hub with one repository on this machine, whose downloads can stall."""

import contextlib
import hashlib
import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REVISION = "a" * 40


class Hub(http.server.ThreadingHTTPServer):
    """Serves the files below ``folder`` as a repository, by the hub's HTTP interface."""

    daemon_threads = True

    def __init__(self, folder: Path, repository: str, kind: str = "datasets") -> None:
        """``kind`` is ``datasets`` or ``models``."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.repository = folder, repository
        self.api = f"/api/{kind}/{repository}"
        self.files = f"/{repository}/resolve/" if kind == "models" else f"/{kind}/{repository}/resolve/"
        self.stall_after: int | None = None
        """Send so many bytes of a file and no more, until the hub closes."""
        self.closing = threading.Event()
        self.sent: list[tuple[str, int]] = []
        """Name and first byte of every file that was asked for, in order."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving(folder: Path, repository: str, kind: str = "datasets") -> Iterator[Hub]:
    with Hub(folder, repository, kind) as hub:
        thread = threading.Thread(target=hub.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.closing.set()
            hub.shutdown()
            thread.join(10)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length).decode()
        is_json = "json" in self.headers.get("Content-Type", "")
        paths = json.loads(body)["paths"] if is_json else urllib.parse.parse_qs(body)["paths"]
        self._json([entry for entry in self._entries() if entry["path"] in paths])

    def _answer(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        if path.startswith(self.server.files):
            self._file(path.removeprefix(self.server.files).partition("/")[2])
        elif path.startswith(f"{self.server.api}/tree/"):
            below = path.removeprefix(f"{self.server.api}/tree/").partition("/")[2]
            self._json(
                [entry for entry in self._entries() if str(Path(entry["path"]).parent) == (below or ".")]
            )
        elif path.startswith(self.server.api):
            siblings = [{"rfilename": entry["path"]} for entry in self._entries() if entry["type"] == "file"]
            about = {"id": self.server.repository, "sha": REVISION, "siblings": siblings}
            self._json({**about, "private": False, "tags": [], "downloads": 0})
        else:
            self._missing("RepoNotFound")

    def _entries(self) -> list[dict[str, Any]]:
        found = []
        for path in sorted(self.server.folder.rglob("*")):
            relative = path.relative_to(self.server.folder).as_posix()
            kind = {"type": "file", "size": path.stat().st_size} if path.is_file() else {"type": "directory"}
            found.append(
                {"path": relative, "oid": hashlib.sha1(relative.encode()).hexdigest(), "size": 0} | kind
            )
        return found

    def _json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _missing(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _file(self, name: str) -> None:
        path = self.server.folder / name
        if not path.is_file():
            return self._missing("EntryNotFound")
        content = path.read_bytes()
        wanted = self.headers.get("Range")
        first = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - first))
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return None
        self.server.sent.append((name, first))
        limit = self.server.stall_after
        if limit is not None and len(content) > limit:
            with contextlib.suppress(OSError):  # the client was killed
                self.wfile.write(content[first:limit])
                self.server.closing.wait(60)
            self.close_connection = True
        else:
            self.wfile.write(content[first:])
        return None
