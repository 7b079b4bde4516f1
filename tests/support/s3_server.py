"""A small S3 on loopback: objects in memory, uploads whole or in parts, lists."""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase, BytesIO
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

XML = '<?xml version="1.0" encoding="UTF-8"?>'


class S3(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.refuses = False  # whether it answers every write by an error, as a full store would

    @property
    def uri(self) -> str:
        """Of the bucket `b`, with what pyarrow needs to find it."""
        return (
            f"s3://key:secret@b/runs?scheme=http&endpoint_override=127.0.0.1:{self.server_port}"
            f"&region=here"
        )


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: S3

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    @property
    def key(self) -> str:
        return unquote(urlsplit(self.path).path).strip("/")

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query, keep_blank_values=True)

    def do_PUT(self) -> None:
        body = self._body()
        if self.server.refuses:
            return self._answer(403, "<Error><Code>QuotaExceeded</Code></Error>")
        if "partNumber" in self.query:
            upload = self.server.parts[self.query["uploadId"][0]]
            upload[int(self.query["partNumber"][0])] = body
        else:
            self.server.objects[self.key] = body
        return self._answer(200, "", ETag=f'"{hashlib.md5(body).hexdigest()}"')

    def do_POST(self) -> None:
        body = self._body()
        if self.server.refuses:
            return self._answer(403, "<Error><Code>QuotaExceeded</Code></Error>")
        if "uploads" in self.query:
            upload = str(len(self.server.parts))
            self.server.parts[upload] = {}
            inner = f"<Bucket>b</Bucket><Key>{escape(self.key)}</Key><UploadId>{upload}</UploadId>"
            return self._answer(
                200, f"<InitiateMultipartUploadResult>{inner}</InitiateMultipartUploadResult>"
            )
        if "delete" in self.query:
            for key in re.findall(rb"<Key>(.*?)</Key>", body):
                self.server.objects.pop(f"{self.key}/{key.decode()}", None)
            return self._answer(200, "<DeleteResult/>")
        parts = self.server.parts.pop(self.query["uploadId"][0])
        self.server.objects[self.key] = b"".join(parts[number] for number in sorted(parts))
        return self._answer(
            200, "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>"
        )

    def do_DELETE(self) -> None:
        self.server.objects.pop(self.key, None)
        self._answer(204, "")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if "list-type" in self.query or self.key == "b":
            return self._list()
        content = self.server.objects.get(self.key)
        if content is None:
            return self._answer(404, "<Error><Code>NoSuchKey</Code></Error>")
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if span:
            part = content[int(span[1]) : int(span[2]) + 1]
            return self._send(
                206, part, {"Content-Range": f"bytes {span[1]}-{span[2]}/{len(content)}"}
            )
        return self._send(200, content, {})

    def _list(self) -> None:
        prefix = "b/" + self.query.get("prefix", [""])[0]
        found = [key for key in sorted(self.server.objects) if key.startswith(prefix)]
        entries = "".join(
            f"<Contents><Key>{escape(key[2:])}</Key><Size>{len(self.server.objects[key])}</Size>"
            f"<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for key in found
        )
        inner = f"<Name>b</Name><KeyCount>{len(found)}</KeyCount><IsTruncated>false</IsTruncated>"
        self._answer(200, f"<ListBucketResult>{inner}{entries}</ListBucketResult>")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = unchunked(self.rfile)
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        signed = "aws-chunked" in self.headers.get("Content-Encoding", "")
        return unchunked(BytesIO(body)) if signed else body

    def _answer(self, status: int, xml: str, **headers: str) -> None:
        self._send(status, (XML + xml).encode() if xml else b"", headers)

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def unchunked(stream: BufferedIOBase) -> bytes:
    """The content of chunks: size in hexadecimal and extensions, line end, bytes, line end."""
    whole = b""
    while size := int(stream.readline().split(b";")[0], 16):
        whole += stream.read(size)
        stream.readline()
    while stream.readline().strip():  # trailers
        pass
    return whole


@contextmanager
def s3_server() -> Iterator[S3]:
    with S3() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
