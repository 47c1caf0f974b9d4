"""A server of Weights & Biases on this machine, as far as its client asks: runs, their files, and Artifacts.

It answers the GraphQL operations, the stream of a run's rows and the storage addresses that the ``wandb`` package
and its service use. Point them at it by ``WANDB_BASE_URL`` and ``WANDB_API_KEY`` (`WandbServer.environment`).
What they have sent can be read from `WandbServer.runs` and `WandbServer.artifacts`.
"""

import base64
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

KEY = "0123456789" * 4
ENTITY = "team"
CREATED = "2026-01-01T00:00:00Z"

Json = dict[str, Any]


@dataclass
class WandbRun:
    """A run as the server knows it."""

    project: str
    name: str
    """The id that its client chose."""
    display_name: str = ""
    group: str | None = None
    config: Json = field(default_factory=dict)
    summary: Json = field(default_factory=dict)
    lines: dict[str, list[str]] = field(default_factory=dict)
    """Streamed files by name, line by line."""
    exit_code: int | None = None
    starts: int = 0
    """How many clients have begun or resumed it."""
    used: list[str] = field(default_factory=list)
    """Artifacts that it has used, ``name:version``."""

    @property
    def history(self) -> list[Json]:
        """Its rows."""
        return [json.loads(line) for line in self.lines.get("wandb-history.jsonl", [])]

    def tail(self, file: str) -> str:
        """The last line of a streamed file, as the server's JSON list of strings."""
        return json.dumps(self.lines.get(file, [])[-1:])


@dataclass
class StoredArtifact:
    """An Artifact as the server knows it."""

    number: int
    project: str
    type: str
    collection: str
    digest: str
    metadata: str | None
    aliases: list[str]
    committed: bool = False
    version: int | None = None
    manifest: str | None = None
    """Where its manifest is stored."""

    @property
    def id(self) -> str:
        return _id("Artifact", self.number)

    @property
    def name(self) -> str:
        """``name:version``."""
        return f"{self.collection}:v{self.version}"


class WandbServer(http.server.ThreadingHTTPServer):
    """Serves one team, whose runs and Artifacts it keeps in memory."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.runs: dict[str, WandbRun] = {}
        """By ``project/id``."""
        self.artifacts: list[StoredArtifact] = []
        self.storage: dict[str, bytes] = {}
        self.asked: list[str] = []
        """The GraphQL operations, in order."""
        self.unknown: list[str] = []
        """Requests that have no answer here."""
        self.downloads: list[str] = []
        """Keys in the storage of files that were fetched."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that a killed client leaves open are no error."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """What points a client at this server."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY, "WANDB_MODE": "online"}

    def run(self, project: str, name: str) -> WandbRun:
        """A run, a new one if need be."""
        return self.runs.setdefault(f"{project}/{name}", WandbRun(project, name))

    def files(self, artifact: StoredArtifact) -> dict[str, bytes]:
        """The files of a committed Artifact."""
        assert artifact.manifest is not None
        contents = json.loads(self.storage[artifact.manifest])["contents"]
        return {name: self.storage[_hex(entry["digest"])] for name, entry in contents.items()}

    def stored(self, identity: str) -> StoredArtifact:
        """An Artifact by its id."""
        return next(one for one in self.artifacts if one.id == identity)

    def find(self, project: str, name: str) -> StoredArtifact | None:
        """A committed Artifact by ``collection:version`` or ``collection:alias``."""
        collection, _, alias = name.partition(":")
        for one in reversed(self.artifacts):
            same = (one.project, one.collection) == (project, collection)
            if one.committed and same and alias in (f"v{one.version}", *one.aliases):
                return one
        return None


@contextmanager
def serving() -> Iterator[WandbServer]:
    """A server while the block runs."""
    with WandbServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(10)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: WandbServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/graphql":
            self._graphql(json.loads(body))
        elif found := re.fullmatch(r"/files/(?:[^/]*/)?([^/]+)/([^/]+)/file_stream", self.path):
            with self.server.lock:
                _stream(self.server.run(*found.groups()), json.loads(body))
            self._json({})
        elif self.path.startswith("/sdk/otel/"):  # the client's telemetry of itself
            self._json({})
        else:
            self._unknown(f"POST {self.path}")

    def do_PUT(self) -> None:
        self.server.storage[self.path.removeprefix("/storage/")] = self.rfile.read(
            int(self.headers.get("Content-Length", 0))
        )
        self._json({})

    def do_GET(self) -> None:
        key = self.path.removeprefix("/storage/")
        if key not in self.server.storage:
            return self._unknown(f"GET {self.path}")
        self.server.downloads.append(key)
        return self._send(200, self.server.storage[key], "application/octet-stream")

    def _graphql(self, request: Json) -> None:
        given = base64.b64decode((self.headers.get("Authorization") or "Basic ").partition(" ")[2])
        if given.decode() != f"api:{KEY}":
            return self._json({"errors": [{"message": "user is not logged in"}]}, 401)
        found = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
        name = found[1] if found else ""
        variables = request.get("variables") or {}
        answer = getattr(_Answers, name, None)
        with self.server.lock:
            self.server.asked.append(name)
            try:
                assert answer is not None, "unknown operation"
                value = {"data": answer(self.server, variables.get("input") or variables)}
            except Exception as error:  # a client that asks otherwise; a 404 is not tried again
                return self._unknown(f"{name} {variables}: {error!r}")
            return self._json(value)

    def _unknown(self, what: str) -> None:
        self.server.unknown.append(what)
        self._json({"errors": [{"message": f"no answer to {what}"}]}, 404)

    def _json(self, value: Json, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Answers:
    """The answer to each GraphQL operation, by its name, from its variables (or their ``input``)."""

    @staticmethod
    def Viewer(server: WandbServer, given: Json) -> Json:  # noqa: N802 - the operations' own names
        return {
            "viewer": {
                "id": _id("User", 1),
                "entity": ENTITY,
                "username": "me",
                "email": "me@example.com",
                "flags": "{}",
                "teams": {"edges": [{"node": {"name": ENTITY}}]},
            }
        }

    @staticmethod
    def GetDefaultEntity(server: WandbServer, given: Json) -> Json:  # noqa: N802
        return {"viewer": {"id": _id("User", 1), "entity": ENTITY}}

    @staticmethod
    def ServerFeaturesQuery(server: WandbServer, given: Json) -> Json:  # noqa: N802
        return {"serverInfo": {"features": []}}

    @staticmethod
    def OrganizationCoreWeaveOrganizationID(server: WandbServer, given: Json) -> Json:  # noqa: N802
        return {"entity": {"organization": None}}

    @staticmethod
    def XXHashDigestsEnabled(server: WandbServer, given: Json) -> Json:  # noqa: N802
        return {"entity": {"xxhashDigestsEnabled": False}}

    @staticmethod
    def FetchArtifactDigestAlgorithm(server: WandbServer, given: Json) -> Json:  # noqa: N802
        return {"project": None}

    @staticmethod
    def RunResumeStatus(server: WandbServer, given: Json) -> Json:  # noqa: N802
        run = server.runs.get(f"{given['project']}/{given['name']}")
        bucket = run and {
            "id": _id("Run", run.name),
            "name": run.name,
            "summaryMetrics": json.dumps(run.summary),
            "displayName": run.display_name,
            "logLineCount": len(run.lines.get("output.log", [])),
            "historyLineCount": len(run.lines.get("wandb-history.jsonl", [])),
            "eventsLineCount": len(run.lines.get("wandb-events.jsonl", [])),
            "historyTail": run.tail("wandb-history.jsonl"),
            "eventsTail": run.tail("wandb-events.jsonl"),
            "config": json.dumps(run.config),
            "tags": [],
            "notes": None,
            "wandbConfig": json.dumps({"t": run.config["_wandb"]["value"]["t"]}),
        }
        return {"model": {**_project(given["project"]), "bucket": bucket}}

    @staticmethod
    def UpsertBucket(server: WandbServer, given: Json) -> Json:  # noqa: N802
        project, name = given["project"], given["name"]
        inserted = f"{project}/{name}" not in server.runs
        run = server.run(project, name)
        run.display_name = given["displayName"] or run.display_name or name
        run.group = given["groupName"] or run.group
        run.starts += given["host"] is not None  # later updates come without one
        run.config |= json.loads(given["config"] or "{}")
        run.summary |= json.loads(given["summaryMetrics"] or "{}")
        bucket = {
            "id": _id("Run", name),
            "name": name,
            "displayName": run.display_name,
            "description": "",
            "config": json.dumps(run.config),
            "sweepName": None,
            "project": _project(project),
            "historyLineCount": len(run.lines.get("wandb-history.jsonl", [])),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    @staticmethod
    def CreateRunFiles(server: WandbServer, given: Json) -> Json:  # noqa: N802
        keys = {name: f"{server.url}/storage/runs/{given['run']}/{name}" for name in given["files"]}
        files = [{"name": name, "uploadUrl": url} for name, url in keys.items()]
        return {"createRunFiles": {"runID": _id("Run", given["run"]), "uploadHeaders": [], "files": files}}

    @staticmethod
    def UseArtifact(server: WandbServer, given: Json) -> Json:  # noqa: N802
        used = server.stored(given["artifactID"])
        server.run(given["projectName"], given["runName"]).used.append(used.name)
        return {"useArtifact": {"artifact": {"id": used.id}}}

    @staticmethod
    def CreateArtifact(server: WandbServer, given: Json) -> Json:  # noqa: N802
        project, collection = given["projectName"], given["artifactCollectionName"]
        versions = [
            one
            for one in server.artifacts
            if one.committed and (one.project, one.collection) == (project, collection)
        ]
        created = next((one for one in versions if one.digest == given["digest"]), None)
        if created is None:
            created = StoredArtifact(
                len(server.artifacts),
                project,
                given["artifactTypeName"],
                collection,
                given["digest"],
                given.get("metadata"),
                [alias["alias"] for alias in given.get("aliases") or []],
            )
            server.artifacts.append(created)
        latest = {"id": versions[-1].id} if versions else None
        artifact = {
            "id": created.id,
            "state": "COMMITTED" if created.committed else "PENDING",
            "artifactSequence": {"latestArtifact": latest},
        }
        return {"createArtifact": {"artifact": artifact}}

    @staticmethod
    def CreateArtifactManifest(server: WandbServer, given: Json) -> Json:  # noqa: N802
        artifact = server.stored(given["artifactID"])
        return {"createArtifactManifest": {"artifactManifest": _manifest(server, artifact)}}

    @staticmethod
    def UpdateArtifactManifest(server: WandbServer, given: Json) -> Json:  # noqa: N802
        artifact = next(
            one for one in server.artifacts if given["artifactManifestID"] == _id("Manifest", one.number)
        )
        return {"updateArtifactManifest": {"artifactManifest": _manifest(server, artifact)}}

    @staticmethod
    def CreateArtifactFiles(server: WandbServer, given: Json) -> Json:  # noqa: N802
        nodes = []
        for file in given["artifactFiles"]:
            key = _hex(file["md5"])
            there = key in server.storage
            nodes.append(
                {
                    "storagePath": key,
                    "uploadUrl": None if there else f"{server.url}/storage/{key}",
                    "uploadHeaders": [],
                    "uploadMultipartUrls": None,
                    "artifact": {"id": file["artifactID"]},
                }
            )
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    @staticmethod
    def CommitArtifact(server: WandbServer, given: Json) -> Json:  # noqa: N802
        artifact = server.stored(given["artifactID"])
        others = [
            one
            for one in server.artifacts
            if one.committed and (one.project, one.collection) == (artifact.project, artifact.collection)
        ]
        for one in others:  # an alias is on one version only
            one.aliases = [alias for alias in one.aliases if alias not in artifact.aliases]
        artifact.committed, artifact.version = True, len(others)
        return {"commitArtifact": {"artifact": {"id": artifact.id, "digest": artifact.digest}}}

    @staticmethod
    def ArtifactType(server: WandbServer, given: Json) -> Json:  # noqa: N802
        found = server.find(given["project"], given["name"])
        return {"project": {"artifact": found and {"artifactType": {"name": found.type}}}}

    @staticmethod
    def ArtifactByID(server: WandbServer, given: Json) -> Json:  # noqa: N802
        return {"artifact": _fields(server, server.stored(given["id"]))}

    @staticmethod
    def ArtifactMembershipByName(server: WandbServer, given: Json) -> Json:  # noqa: N802
        found = server.find(given["project"], given["name"])
        membership = found and {
            "__typename": "ArtifactCollectionMembership",
            "id": _id("Membership", found.number),
            "versionIndex": found.version,
            "createdAt": CREATED,
            "aliases": _aliases(found),
            "artifactCollection": _sequence(found),
            "artifact": _fields(server, found),
        }
        return {"project": {"artifactCollectionMembership": membership}}

    @staticmethod
    def FetchArtifactManifest(server: WandbServer, given: Json) -> Json:  # noqa: N802
        manifest = server.stored(given["id"]).manifest
        return {"artifact": {"currentManifest": {"file": {"directUrl": f"{server.url}/storage/{manifest}"}}}}

    @staticmethod
    def GetArtifactMembershipFileUrls(server: WandbServer, given: Json) -> Json:  # noqa: N802
        found = server.find(given["project"], f"{given['collection']}:{given['alias']}")
        assert found is not None and found.manifest is not None
        contents = json.loads(server.storage[found.manifest])["contents"]
        nodes = [
            {"__typename": "File", "name": name, "directUrl": f"{server.url}/storage/{_hex(entry['digest'])}"}
            for name, entry in contents.items()
        ]
        files = {
            "pageInfo": {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False},
            "edges": [{"node": node} for node in nodes],
        }
        collection = {"__typename": "ArtifactSequence", "artifactMembership": {"files": files}}
        return {"project": {"artifactCollection": collection}}


def _stream(run: WandbRun, sent: Json) -> None:
    """Take a piece of a run's stream: lines at their place in the files that it names."""
    for name, piece in (sent.get("files") or {}).items():
        lines = run.lines.setdefault(name, [])
        lines[piece["offset"] : piece["offset"] + len(piece["content"])] = piece["content"]
        if name == "wandb-summary.json":
            run.summary = json.loads(piece["content"][-1])
    if sent.get("complete"):
        run.exit_code = sent["exitcode"]


def _manifest(server: WandbServer, artifact: StoredArtifact) -> Json:
    artifact.manifest = f"manifest-{artifact.number}"
    url = f"{server.url}/storage/{artifact.manifest}"
    file = {"id": artifact.manifest, "uploadUrl": url, "uploadHeaders": []}
    return {"id": _id("Manifest", artifact.number), "file": file}


def _fields(server: WandbServer, artifact: StoredArtifact) -> Json:
    """All that its client asks of an Artifact."""
    sizes = [len(data) for data in server.files(artifact).values()]
    return {
        "__typename": "Artifact",
        "id": artifact.id,
        "artifactSequence": _sequence(artifact),
        "versionIndex": artifact.version,
        "artifactType": {"name": artifact.type},
        "description": None,
        "metadata": artifact.metadata,
        "ttlDurationSeconds": -2,
        "ttlIsInherited": True,
        "tags": [],
        "historyStep": None,
        "state": "COMMITTED",
        "size": sum(sizes),
        "digest": artifact.digest,
        "commitHash": None,
        "fileCount": len(sizes),
        "createdAt": CREATED,
        "updatedAt": None,
        "aliases": [{**alias, "artifactCollection": _sequence(artifact)} for alias in _aliases(artifact)],
    }


def _sequence(artifact: StoredArtifact) -> Json:
    project = {**_project(artifact.project), "internalId": _id("ProjectInternal", artifact.project)}
    return {"__typename": "ArtifactSequence", "name": artifact.collection, "project": project}


def _aliases(artifact: StoredArtifact) -> list[Json]:
    return [
        {"__typename": "ArtifactAlias", "id": _id("Alias", name), "alias": name} for name in artifact.aliases
    ]


def _project(name: str) -> Json:
    return {"id": _id("Project", name), "name": name, "entity": {"id": _id("Entity", 1), "name": ENTITY}}


def _id(kind: str, what: object) -> str:
    """An id of the kind that the client expects: text in base 64."""
    return base64.b64encode(f"{kind}:{what}".encode()).decode()


def _hex(digest: str) -> str:
    """The key in the storage of a file with this MD5, which is given in base 64."""
    return base64.b64decode(digest).hex()
