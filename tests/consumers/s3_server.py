"""A real S3 server, s3proxy, and a proxy before it that answers as busy and broken ones do."""

from __future__ import annotations

import http.client
import os
import re
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from child import wait_until
from pyarrow import fs

S3PROXY = "org.gaul:s3proxy:2.6.0:jar:jar-with-dependencies"
UNFINISHED = re.compile(r"models/(\.mpus-|[0-9a-f]{8}-[0-9a-f]{4}-)")  # as s3proxy names them
KEY, SECRET = "an-identity", "a-hidden-secret"
BUCKET = "models"


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


class Server:
    """A server with objects in its memory.

    Parameters
    ----------
    folder : Path
        Gets the program and its settings.
    """

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        copy = ["mvn", "-q", "dependency:copy", f"-Dartifact={S3PROXY}"]
        subprocess.run([*copy, f"-DoutputDirectory={folder}"], check=True, cwd=folder)
        (program,) = folder.glob("*.jar")
        settings = {
            "s3proxy.endpoint": f"http://127.0.0.1:{self.port}",
            "s3proxy.authorization": "aws-v2-or-v4",
            "s3proxy.identity": KEY,
            "s3proxy.credential": SECRET,
            "jclouds.provider": "transient",
            "jclouds.identity": "any",
            "jclouds.credential": "any",
        }
        file = folder / "s3proxy.conf"
        file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["java", "-jar", program, "--properties", file], stdout=log, stderr=log
            )
        wait_until(self._answers)

    def _answers(self) -> bool:
        assert self._process.poll() is None
        with socket.socket() as opened:
            return opened.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@dataclass
class Request:
    """What a client asks for: the method, the key of an object, the query; and from which port."""

    method: str
    key: str
    query: str
    port: int

    @property
    def writes(self) -> bool:
        """Whether it puts an object, or a part of one."""
        return self.method == "PUT"


Fault = Callable[[Request], str | None]  # "500", "reset", "stall", or None


@dataclass
class Faults:
    """What the proxy does, and what it has seen."""

    fault: Fault = lambda _request: None
    hides_newest: bool = False  # lists lack the object that was written last
    seen: list[Request] = field(default_factory=list)
    newest: str = ""
    stalled: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def reset(self) -> None:
        self.__init__()  # type: ignore[misc]


class Store:
    """A bucket that is empty."""

    def __init__(self, proxy: Proxy) -> None:
        self.faults = proxy.faults
        self.filesystem, _ = fs.FileSystem.from_uri(f"s3://{BUCKET}?allow_bucket_creation=true")
        self.filesystem.create_dir(BUCKET)
        self.filesystem.delete_dir_contents(BUCKET)
        self.faults.reset()

    def objects(self, folder: str = "") -> dict[str, bytes]:
        """All objects in a folder by their names, but for s3proxy's own of unfinished uploads."""
        path = f"{BUCKET}/{folder}".rstrip("/")
        selector = fs.FileSelector(path, recursive=True, allow_not_found=True)
        return {
            info.path.removeprefix(f"{path}/"): self.filesystem.open_input_file(info.path).readall()
            for info in self.filesystem.get_file_info(selector)
            if info.is_file and not UNFINISHED.match(info.path)
        }

    def put(self, folder: Path, name: str) -> None:
        fs.copy_files(str(folder), f"{BUCKET}/{name}", destination_filesystem=self.filesystem)


class Proxy:
    """Stands between a client and a server."""

    def __init__(self, server: Server) -> None:
        self.faults = faults = Faults()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                path, _, query = self.path.partition("?")
                request = Request(
                    self.command, path.partition(f"/{BUCKET}/")[2], query, self.client_address[1]
                )
                faults.seen.append(request)
                what = faults.fault(request)
                if what == "500":
                    self._answer(500, [], b"")
                    return
                if what == "reset":
                    linger = struct.pack("ii", 1, 0)
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self.close_connection = True
                    self.connection.close()
                    return
                if what == "stall":
                    faults.stalled.set()
                    faults.go_on.wait()
                self._forward(request, body)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_any  # noqa: N815, as http.server wants it

            def _forward(self, request: Request, body: bytes) -> None:
                to = http.client.HTTPConnection("127.0.0.1", server.port)
                to.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in ("expect", "connection"):
                        to.putheader(name, value)
                to.endheaders(body)
                with to.getresponse() as answer:
                    data = answer.read()
                to.close()
                if answer.status == 200 and self.command in ("PUT", "POST"):
                    faults.newest = request.key or faults.newest
                if faults.hides_newest and "list-type=2" in request.query:
                    key = re.escape(faults.newest.encode())
                    one = rb"<Contents><Key>" + key + rb"</Key>.*?</Contents>"
                    data = re.sub(one, b"", data)
                self._answer(answer.status, answer.getheaders(), data)

            def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
                self.send_response_only(status)
                length = str(len(data))
                for name, value in headers:
                    if name.lower() == "content-length" and self.command == "HEAD":
                        length = value
                    elif name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", length)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """What says to clients where the server is, and the keys."""
        return {
            **os.environ,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_address[1]}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            # s3proxy does not know the checksums of newer clients.
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
