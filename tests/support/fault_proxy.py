"""An HTTP proxy on loopback that answers as a network or an object store does on a bad day.

    with FaultProxy("127.0.0.1", port_of_the_real_server) as proxy:
        s3 = s3fs.S3FileSystem(endpoint_url=proxy.url, ...)
        proxy.inject("503", method="GET", path="mask", times=2)

`FAULTS` says what each fault does. Of several rules that fit a request, the one injected first is applied.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

S3_ERRORS = {
    "404": "NoSuchKey",
    "403": "AccessDenied",
    "429": "TooManyRequests",
    "500": "InternalError",
    "503": "SlowDown",
}
BODY_FAULTS = {
    "short_body": "half of the body, under the Content-Length of all of it, then the connection closes",
    "cut_body": "half of the body, under a Content-Length that says this is all",
    "altered_body": "the byte in the middle of the body is another one",
}
STRIPPED_HEADERS = {
    "ignored_precondition": {"if-none-match", "if-match"},
    "ignored_range": {"range"},
}
FAULTS = {
    **{status: f"{status} {code} with S3's XML, nothing is forwarded" for status, code in S3_ERRORS.items()},
    **BODY_FAULTS,
    "reset": "the connection is reset once the request is read, nothing is forwarded",
    "lost_ack": "the request is forwarded, and the connection reset instead of answered",
    "html": "200 and a page of HTML, nothing is forwarded",
    "empty": "200 and no body, nothing is forwarded",
    "ignored_precondition": "forwarded without If-None-Match and If-Match",
    "ignored_range": "forwarded without Range",
    "slow": "forwarded after SLOW_SECONDS",
}
SLOW_SECONDS = 0.3
UPSTREAM_TIMEOUT = 60
HTML = (
    b"<!DOCTYPE html>\n<html><head><title>Welcome</title></head><body><p>Please log in.</p></body></html>\n"
)
HOP_BY_HOP = {
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te",
    "trailer", "transfer-encoding", "upgrade",
}  # fmt: skip


@dataclass(frozen=True)
class Request:
    """A request and its answer; `status` is None if the client got none, `fault` if none was applied."""

    method: str
    path: str
    status: int | None
    n_bytes: int
    fault: str | None


@dataclass
class Rule:
    fault: str
    method: str | None
    path: str | None
    times: int | None
    after: int

    def fits(self, method, path, headers):
        if self.method not in {None, method} or (self.path is not None and self.path not in path):
            return False
        if self.fault in STRIPPED_HEADERS:
            return any(name in headers for name in STRIPPED_HEADERS[self.fault])
        return self.fault not in BODY_FAULTS or method != "HEAD"

    def applies(self, method, path, headers):
        if not self.fits(method, path, headers):
            return False
        self.after -= 1
        return self.after < 0


class FaultProxy:
    def __init__(self, upstream_host, upstream_port):
        self.upstream = upstream_host, upstream_port
        self.log = []
        self.n_injected = 0
        self._rules = []
        self._lock = threading.Lock()
        self._server = Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server.close_connections()

    def inject(self, fault, *, method=None, path=None, times=None, after=0):
        """Apply `fault` to the next `times` requests that fit, or for ever if None, but not to the first `after`.

        A request that the fault cannot change does not fit: a HEAD has no body to damage, and a request
        without a Range none to ignore. Whether an answer has a body shows too late: a fault of the body is
        used up by an answer without one.
        """
        if fault not in FAULTS:
            raise ValueError(f"no fault is called {fault!r}; there are {', '.join(FAULTS)}")
        with self._lock:
            self._rules.append(Rule(fault, method, path, times, after))

    def clear(self):
        with self._lock:
            self._rules.clear()

    def take_fault(self, method, path, headers):
        with self._lock:
            self._rules = [rule for rule in self._rules if rule.times is None or rule.times > 0]
            rule = next((rule for rule in self._rules if rule.applies(method, path, headers)), None)
            if rule is None:
                return None
            if rule.times is not None:
                rule.times -= 1
            self.n_injected += 1
            return rule.fault

    def record(self, request):
        with self._lock:
            self.log.append(request)


class Server(ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, proxy):
        super().__init__(("127.0.0.1", 0), Handler)
        self.proxy = proxy
        self._connections = set()
        self._lock = threading.Lock()

    def process_request(self, request, client_address):
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self):
        """End the connections that clients keep alive, which would be served even after `server_close`."""
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def handle(self):
        with contextlib.suppress(ConnectionError):
            super().handle()

    def answer_request(self):
        body = self.read_body()
        # BaseHTTPRequestHandler.path is not what was sent: slashes at its start are one there
        self.raw_path = self.requestline.split()[1]
        self.fault = fault = self.server.proxy.take_fault(self.command, self.raw_path, self.headers)
        if fault in S3_ERRORS:
            self.send_error_body(int(fault), S3_ERRORS[fault])
        elif fault == "html":
            self.send(200, "OK", [("Content-Type", "text/html; charset=utf-8")], HTML)
        elif fault == "empty":
            self.send(200, "OK", [], b"")
        elif fault == "reset":
            self.reset()
        else:
            if fault == "slow":
                time.sleep(SLOW_SECONDS)
            try:
                answer = self.forward(body)
            except (OSError, http.client.HTTPException):
                self.send_error_body(502, "BadGateway")
                return
            if fault == "lost_ack":
                self.reset()
            else:
                self.send(*answer)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = do_OPTIONS = answer_request  # noqa: N815

    def read_body(self):
        """The body of the request, without the framing of `Transfer-Encoding: chunked`.

        What `Content-Encoding: aws-chunked` put into the body is part of it, for the upstream server to read.
        """
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.read_line().partition(b";")[0], 16):
            chunks.append(self.read(size))
            self.read_line()
        while self.read_line() != b"\r\n":
            pass
        return b"".join(chunks)

    def read(self, size):
        data = self.rfile.read(size)
        if len(data) < size:
            raise ConnectionResetError("the client left in the middle of its request")
        return data

    def read_line(self):
        line = self.rfile.readline()
        if not line.endswith(b"\n"):
            raise ConnectionResetError("the client left in the middle of its request")
        return line

    def forward(self, body):
        """Status, reason, headers and body of upstream's answer."""
        # the client has had its 100 Continue; the length is set anew, as a chunked body came without one
        dropped = {"expect", "content-length"} | STRIPPED_HEADERS.get(self.fault, set())
        upstream = http.client.HTTPConnection(*self.server.proxy.upstream, timeout=UPSTREAM_TIMEOUT)
        with contextlib.closing(upstream):
            upstream.putrequest(self.command, self.raw_path, skip_host=True, skip_accept_encoding=True)
            for name, value in end_to_end(self.headers):
                if name.lower() not in dropped:
                    upstream.putheader(name, value)
            if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
                upstream.putheader("Content-Length", str(len(body)))
            upstream.putheader("Connection", "close")
            upstream.endheaders(body or None)
            response = upstream.getresponse()
            return response.status, response.reason, list(end_to_end(response.headers)), response.read()

    def send(self, status, reason, headers, body):
        """Send an answer to the client, with the fault of its body if there is one to apply."""
        length, sent = len(body), body
        if self.fault in {"short_body", "cut_body"}:
            sent = body[: len(body) // 2]
            length = len(body) if self.fault == "short_body" else len(sent)
            self.close_connection = self.close_connection or len(sent) < length
        elif self.fault == "altered_body" and body:
            middle = len(body) // 2
            sent = body[:middle] + bytes([body[middle] ^ 0xFF]) + body[middle + 1 :]
        bodyless = self.command == "HEAD" or status in {204, 304}
        if bodyless:
            sent = b""
        # recorded first: a client that has its answer must find it in the log
        self.record(status, len(sent))
        self.send_response_only(status, reason)
        for name, value in headers:
            if bodyless or name.lower() != "content-length":
                self.send_header(name, value)
        if not bodyless:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(sent)

    def send_error_body(self, status, code):
        xml = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{code}</Code><Message>Injected by the fault proxy.</Message>"
            "<RequestId>0000000000000000</RequestId></Error>"
        )
        reason = http.client.responses[status]
        self.send(status, reason, [("Content-Type", "application/xml")], xml.encode())

    def reset(self):
        """Close the connection so that the client gets an RST, not the end of a stream."""
        self.record(None, 0)
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()  # a socket stays open as long as a file made of it
        self.connection.close()

    def record(self, status, n_bytes):
        self.server.proxy.record(Request(self.command, self.raw_path, status, n_bytes, self.fault))


def end_to_end(headers):
    """The headers that a proxy passes on."""
    hop_by_hop = HOP_BY_HOP | {
        name.strip().lower() for value in headers.get_all("Connection", []) for name in value.split(",")
    }
    return ((name, value) for name, value in headers.items() if name.lower() not in hop_by_hop)
