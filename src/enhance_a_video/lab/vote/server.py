"""The voting page over HTTP, from the standard library: one page, two small JSON calls, the clips.

What keeps it safe: it answers to this machine's own names and to addresses only (a page of another site that gets a
name of its own pointed here is refused), takes votes only as JSON from its own page, hands out nothing but the pairs
of its folder, by ids in the database. What keeps it blind: the page and its calls carry no label and no file
name, and the clips no metadata.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import re
import secrets
import socket
import sys
import threading
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, cast
from urllib.parse import urlsplit

from ... import limits
from ...errors import EnhanceAVideoError, SettingsError, VideoFileError, VoteError
from .. import pages
from .ballots import Ballots, Seat, questions_of
from .blinding import neutral
from .pairs import Pair

_STATUS = {"invalid": 400, "unknown": 404, "conflict": 409, "failed": 500}
_TROUBLE = "Something is wrong on the machine that serves this page. The message is in its terminal."
_LARGEST_BODY = 16_384  # bytes
_CLIP = re.compile(r"/clip/([0-9a-f]{16})/([0-9a-f]{16})/(left|right)")
_VOTER = re.compile(r"/api/voters/([0-9a-f]{16})")
_log = logging.getLogger(__name__)  # errors reach stderr unless logging is configured


class Server(ThreadingHTTPServer):
    """Serves the votes of one folder until `shutdown()`.

    Args:
        port: 0 takes a free one; see `url`.

    Raises:
        SettingsError: the address cannot be had.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, ballots: Ballots, host: str = "127.0.0.1", port: int = 0) -> None:
        self.ballots = ballots
        self._making = threading.Lock()
        self._kept = lru_cache(maxsize=4)(lambda pair: neutral(pair.files, pair.kinds))
        if not host.strip():
            raise SettingsError("--host is empty: 127.0.0.1 is this machine alone, 0.0.0.0 all of its networks.")
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise SettingsError(
                f"Cannot serve on {host}, port {port}: {reason}. --port 0 takes a free port."
            ) from error
        self.names = {"localhost", socket.gethostname().lower(), f"{socket.gethostname().lower()}.local", host.lower()}

    def server_bind(self) -> None:
        """As in HTTPServer, but for the look-up of this machine's full name, which may wait long for a network."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    @property
    def local(self) -> bool:
        """Whether only this machine reaches it."""
        return ipaddress.ip_address(str(self.server_address[0]).partition("%")[0]).is_loopback

    @property
    def url(self) -> str:
        """Where the page is, as one types it on this machine."""
        address = ipaddress.ip_address(str(self.server_address[0]).partition("%")[0])
        return self.url_for("localhost" if address.is_unspecified else str(address))

    def url_for(self, host: str) -> str:
        """The page's URL under another name or address of this machine."""
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_address[1]}/"

    def clip(self, pair: Pair, which: int) -> bytes:
        """One clip of a pair, neutral; the last few pairs are kept. A pair that cannot be read any more is left out."""
        try:
            with self._making:  # the page requests both at once: made once
                return self._kept(pair)[which]
        except VideoFileError:
            self.ballots.leave_out(pair.id)
            raise

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that hangs up in the middle is no news; everything else is."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "enhance-a-video", ""
    timeout = 60  # seconds that an idle connection is kept

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, how: Any) -> None:
        """Runs a request; what goes wrong is answered with {"error": …} and a fitting status."""
        try:
            self._check_host()
            how(urlsplit(self.path).path)
        except _Refused as error:
            self.close_connection = True  # its body may not have been read
            self._json({"error": str(error)}, error.status)
        except EnhanceAVideoError as error:
            reason = error.reason if isinstance(error, VoteError) else "failed"
            if reason == "failed":  # its message names files
                _log.error("%s", error)
            data = _TROUBLE if reason == "failed" else str(error)
            self._json({"error": data}, _STATUS[reason])

    def _get(self, path: str) -> None:
        if path == "/":
            self._page()
        elif found := _VOTER.fullmatch(path):
            self._json(_seat_data(self.server.ballots.seat(found[1])))
        elif found := _CLIP.fullmatch(path):
            voter, name, side = found.groups()
            pair = self.server.ballots.pairs.get(name)
            swapped = not self.server.ballots.reference_left(voter, name)  # refuses what is not there
            which = int((side == "right") != swapped)  # 0: the reference
            self._send(self.server.clip(cast(Pair, pair), which), "video/mp4")
        else:
            raise _Refused("There is nothing here.", HTTPStatus.NOT_FOUND)

    def _post(self, path: str) -> None:
        data = self._body()
        ballots = self.server.ballots
        if path == "/api/voters":
            self._json(_seat_data(ballots.join(data.get("name", ""))))
        elif path == "/api/votes":
            voter, pair = (str(data.get(name)) for name in ("voter", "pair"))
            ballots.vote(voter, pair, data.get("answers"), data.get("seconds"))
            self._json(_seat_data(ballots.seat(voter)))
        else:
            raise _Refused("There is nothing here.", HTTPStatus.NOT_FOUND)

    def _check_host(self) -> None:
        """Against DNS rebinding: another site's name that leads here is not ours."""
        name = _host_name(self.headers.get("Host", ""))
        if name not in self.server.names and not _is_address(name):
            raise _Refused("This server does not go by that name.", HTTPStatus.MISDIRECTED_REQUEST)

    def _body(self) -> dict[str, Any]:
        """The JSON object of a POST from our own page. A form of another site can
        send no JSON without a preflight request."""
        origin, site = self.headers.get("Origin"), self.headers.get("Sec-Fetch-Site", "same-origin")
        if origin not in (None, f"http://{self.headers.get('Host')}") or site not in ("same-origin", "none"):
            raise _Refused("Votes are taken from the voting page only.", HTTPStatus.FORBIDDEN)
        if self.headers.get_content_type() != "application/json":
            raise _Refused("JSON is wanted.", HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"[0-9]{1,9}", length):
            raise _Refused("Content-Length is required.", HTTPStatus.LENGTH_REQUIRED)
        if int(length) > _LARGEST_BODY:
            raise _Refused("That is too much for a vote.", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        try:
            data = limits.parse_json(self.rfile.read(int(length)))
        except ValueError:
            data = None
        if not isinstance(data, dict):
            raise _Refused("A JSON object is wanted.", HTTPStatus.BAD_REQUEST)
        return data

    def _page(self) -> None:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; "
            "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        text = pages.render("vote.html", nonce=nonce, study=_study(self.server.ballots))
        self._send(text.encode(), "text/html; charset=utf-8", policy=policy)

    def _json(self, data: dict[str, Any], status: int = HTTPStatus.OK) -> None:
        self._send(json.dumps(data).encode(), "application/json", status)

    def _send(self, body: bytes, kind: str, status: int = HTTPStatus.OK, policy: str = "default-src 'none'") -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "Content-Security-Policy": policy,
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: who votes for what is nobody's business."""


class _Refused(Exception):
    """A request that is answered with an HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def _study(ballots: Ballots) -> dict[str, Any]:
    """The content of the page before the first pair."""
    questions = dict.fromkeys(question for pair in ballots.pairs.values() for question in questions_of(pair))
    return {"pairs": len(ballots.pairs), "questions": [{"text": q.text, "hint": q.hint} for q in questions]}


def _seat_data(seat: Seat) -> dict[str, Any]:
    """A seat as the page gets it: no label, no file name, no seed."""
    queue = [
        {
            "id": pair.id,
            "prompt": pair.prompt,
            "questions": [{"key": q.key, "text": q.text, "hint": q.hint} for q in questions_of(pair)],
            "clips": {side: f"/clip/{seat.voter}/{pair.id}/{side}" for side in ("left", "right")},
        }
        for pair in seat.queue
    ]
    return {"voter": seat.voter, "name": seat.name, "done": seat.done, "total": seat.total, "queue": queue}


def _host_name(header: str) -> str:
    """The name in a Host header, without its port."""
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(:[0-9]+)?", header.strip())
    return found[1].strip("[]").lower() if found else ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
