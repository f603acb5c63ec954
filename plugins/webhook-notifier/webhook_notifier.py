"""A notification channel that posts JSON to a web address."""

from __future__ import annotations

import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

import msgspec

from cardcage_finops.interfaces import NotificationChannelPlugin
from cardcage_finops.models import Delivery, Notification

SAID_CHARS_MAX = 200


class WebhookNotifier(NotificationChannelPlugin):
    """Posts to the configured address and to no other: redirects and proxies are not followed."""

    def load(self, config: dict[str, Any]) -> None:
        """Check the address. Raises `ValueError` where it is none, or does not agree with `endpoint`."""
        self.url = str(config["url"])
        self.headers = {str(name): str(value) for name, value in dict(config.get("headers") or {}).items()}
        self.timeout_s = float(config.get("timeout_s", 10))
        endpoint, meant = str(config.get("endpoint") or ""), endpoint_of(self.url)
        if endpoint and endpoint != meant:
            raise ValueError(f'endpoint is "{endpoint}", but url "{self.url}" goes to "{meant}"')
        self._opener = urllib.request.OpenerDirector()
        for handler in (urllib.request.HTTPHandler(), urllib.request.HTTPSHandler()):
            self._opener.add_handler(handler)

    def send(self, notification: Notification) -> Delivery:
        """Post one notification. What goes wrong is told as not delivered."""
        request = urllib.request.Request(
            self.url,
            data=msgspec.json.encode(notification),
            headers={"Content-Type": "application/json", "User-Agent": "cardcage-webhook/0.1", **self.headers},
            method="POST",
        )
        try:
            with self._opener.open(request, timeout=self.timeout_s) as answer:
                status, said = answer.status, answer.read(SAID_CHARS_MAX * 4)
        except (OSError, HTTPException, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            detail = f"cannot reach {endpoint_of(self.url)}: {reason}"
            return Delivery(delivered=False, channel="webhook", detail=detail)
        if 200 <= status < 300:
            return Delivery(delivered=True, channel="webhook", detail=f"{status}")
        text = said.decode("utf-8", "replace").strip()[:SAID_CHARS_MAX]
        detail = f"{endpoint_of(self.url)} answered {status}: {text}" if text else f"answered {status}"
        return Delivery(delivered=False, channel="webhook", detail=detail)


def endpoint_of(url: str) -> str:
    """Host and port of an address. Raises `ValueError` where it has none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f'url must be a web address such as https://hooks.example.com/cost, but found "{url}"')
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
