"""The HTTP server: Werkzeug's, in threads, with connections that stay open between calls.

Werkzeug's own request handler closes every connection, as it does not read the body that an application
left unread. Ours reads the body first, so the connection can be kept, and sends each answer in one piece.
"""

import io
import socket
from typing import Any

from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server


def listen(port: int) -> socket.socket:
    """A listening socket on 127.0.0.1 only. Raises OSError when the port is in use."""
    door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind(("127.0.0.1", port))
        door.listen(256)
    except OSError:
        door.close()
        raise
    return door


def serve(app: Flask, door: socket.socket) -> None:
    """Answer until the process is told to stop."""
    host, port = door.getsockname()
    server = make_server(host, port, app, threaded=True, request_handler=KeepingRequestHandler, fd=door.fileno())
    server.serve_forever(poll_interval=0.1)


class KeepingRequestHandler(WSGIRequestHandler):
    """Answers one request after the other on a connection, quietly."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def run_wsgi(self) -> None:
        environ = self.make_environ()
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            self.close_connection = True
            self.send_error(411)
            return
        environ["wsgi.input"] = io.BytesIO(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        started: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            started[:] = [status, headers]
            return started.append

        try:
            chunks = self.server.app(environ, start_response)
            try:
                body = b"".join(chunks)
            finally:
                if hasattr(chunks, "close"):
                    chunks.close()
            self._answer(started[0], started[1], body)
        except OSError:
            # Either side has gone away: the browser was closed, or the fault plan cut the connection.
            self.close_connection = True

    def _answer(self, status: str, headers: list[tuple[str, str]], body: bytes) -> None:
        code, _, reason = status.partition(" ")
        self.send_response_only(int(code), reason)
        self.send_header("Date", self.date_time_string())
        for name, value in headers:
            self.send_header(name, value)
        if not any(name.lower() == "content-length" for name, _ in headers):
            self.send_header("Content-Length", str(len(body)))
        self._headers_buffer.append(b"\r\n" + (b"" if self.command == "HEAD" else body))
        self.flush_headers()

    def log_request(self, *args: Any) -> None:
        """Nothing: the calls are in the log of calls."""
