"""A double of Slack's incoming webhook."""

from html import unescape
from http.server import BaseHTTPRequestHandler, HTTPServer
from json import loads
from threading import Thread


class WebhookReceiver:
    """A webhook that keeps what Slack would show; it refuses after `takes` texts.

    Slack takes what stands between < and > for a link: both have to be escaped.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.takes = 99
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                text = loads(self.rfile.read(int(self.headers["Content-Length"])))["text"]
                if {"<", ">"} & set(text):
                    self.send_response(400)
                elif len(receiver.texts) < receiver.takes:
                    receiver.texts.append(unescape(text))
                    self.send_response(200)
                else:
                    self.send_response(503)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/secret"
        Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Refuse every connection from now on."""
        self.server.shutdown()
        self.server.server_close()
