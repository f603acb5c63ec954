"""Notifiers: a file that is really written, a web server that is really posted to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from cardcage_finops.interfaces import NotificationChannelPlugin
from cardcage_finops.models import Delivery, Notification

if TYPE_CHECKING:
    from .conftest import Shipped

SPIKE = Notification(
    title="Cost spiked", text="by 40 %\nin Café", severity="warning", kind="cost_spiked", data={"n": 1}
)


class TestFile:
    def channel(self, shipped: Shipped, data_dir: Path, **config: str) -> NotificationChannelPlugin:
        context = SimpleNamespace(data_dir=str(data_dir))
        return shipped.make("file-notifier", NotificationChannelPlugin, config, context)

    def test_each_notification_is_one_line_at_the_end(self, shipped: Shipped, tmp_path: Path) -> None:
        path = tmp_path / "alerts.jsonl"
        path.write_text("kept\n")
        channel = self.channel(shipped, tmp_path, path=str(path))
        assert channel.send(SPIKE) == Delivery(delivered=True, channel="file", detail=str(path))
        assert channel.send(SPIKE).delivered
        first, second, third = path.read_text("utf-8").splitlines()
        assert first == "kept"
        assert json.loads(second) == json.loads(third)
        assert json.loads(second)["text"] == SPIKE.text

    def test_without_a_path_it_writes_in_its_own_folder(self, shipped: Shipped, tmp_path: Path) -> None:
        assert self.channel(shipped, tmp_path).send(SPIKE).delivered
        assert len((tmp_path / "notifications.jsonl").read_text("utf-8").splitlines()) == 1

    def test_a_file_that_cannot_be_written_is_told(self, shipped: Shipped, tmp_path: Path) -> None:
        found = self.channel(shipped, tmp_path, path=str(tmp_path / "no" / "file")).send(SPIKE)
        assert not found.delivered
        assert found.detail.endswith("No such file or directory")

    def test_a_served_notifier_writes_too(self, shipped: Shipped, tmp_path: Path) -> None:
        with shipped.serve("file-notifier", {}, tmp_path) as served:
            assert served.call(Delivery, "send", SPIKE).delivered
        assert json.loads((tmp_path / "notifications.jsonl").read_text("utf-8"))["title"] == "Cost spiked"


class Server(ThreadingHTTPServer):
    """Answers every POST with a status, and keeps what came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 200
        self.location = ""
        self.posts: list[tuple[str, dict[str, str], Any]] = []

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server.posts.append(
            (self.path, {name.lower(): value for name, value in self.headers.items()}, json.loads(body))
        )
        answer = b"ok" if server.status < 300 else b"not today"
        self.send_response(server.status)
        if server.location:
            self.send_header("Location", server.location)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's word
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


class TestWebhook:
    def channel(self, shipped: Shipped, url: str, **config: Any) -> NotificationChannelPlugin:
        return shipped.make("webhook-notifier", NotificationChannelPlugin, {"url": url, **config})

    def test_a_notification_is_posted_as_json(self, shipped: Shipped, server: Server) -> None:
        url = f"http://{server.endpoint}/hooks/cost?team=a"
        channel = self.channel(shipped, url, endpoint=server.endpoint, headers={"Authorization": "Bearer t"})
        assert channel.send(SPIKE) == Delivery(delivered=True, channel="webhook", detail="200")
        ((path, headers, body),) = server.posts
        assert path == "/hooks/cost?team=a"
        assert (headers["content-type"], headers["authorization"]) == ("application/json", "Bearer t")
        assert body["title"] == SPIKE.title

    @pytest.mark.parametrize("status", [400, 401, 404, 500, 503])
    def test_an_answer_that_is_no_success_is_told(self, shipped: Shipped, server: Server, status: int) -> None:
        server.status = status
        found = self.channel(shipped, f"http://{server.endpoint}/").send(SPIKE)
        assert found == Delivery(
            delivered=False, channel="webhook", detail=f"{server.endpoint} answered {status}: not today"
        )

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    def test_redirects_are_not_followed(self, shipped: Shipped, server: Server, status: int) -> None:
        server.status, server.location = status, f"http://{server.endpoint}/elsewhere"
        found = self.channel(shipped, f"http://{server.endpoint}/here").send(SPIKE)
        assert not found.delivered
        assert [path for path, _, _ in server.posts] == ["/here"]

    def test_proxies_of_the_environment_are_not_used(
        self, shipped: Shipped, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        assert self.channel(shipped, f"http://{server.endpoint}/").send(SPIKE).delivered

    def test_a_server_that_is_not_there_is_named(self, shipped: Shipped, server: Server) -> None:
        endpoint = server.endpoint
        server.server_close()
        found = self.channel(shipped, f"http://{endpoint}/").send(SPIKE)
        assert not found.delivered
        assert found.detail.startswith(f"cannot reach {endpoint}: ")

    @pytest.mark.parametrize("url", ["ftp://a/b", "http://", "file:///etc/passwd", "hooks.example.com"])
    def test_what_is_no_web_address_is_refused_at_once(self, shipped: Shipped, url: str) -> None:
        with pytest.raises(ValueError, match="must be a web address"):
            self.channel(shipped, url)

    def test_an_endpoint_that_does_not_agree_is_refused(self, shipped: Shipped) -> None:
        with pytest.raises(ValueError, match='endpoint is "a:443", but url "https://b/" goes to "b:443"'):
            self.channel(shipped, "https://b/", endpoint="a:443")

    def test_a_served_notifier_posts_too(self, shipped: Shipped, server: Server, tmp_path: Path) -> None:
        with shipped.serve("webhook-notifier", {"url": f"http://{server.endpoint}/"}, tmp_path) as served:
            assert served.call(Delivery, "send", SPIKE).delivered
        assert len(server.posts) == 1
