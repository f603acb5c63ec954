"""The certificates that a plugin trusts where the host adds credentials: the system's, and the manager's own authority.

One file for all instances, in the host's own folder, shown to those plugins alone.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from pathlib import Path
from typing import Final

from cardcage.foundation.errors import Misuse

_SYSTEM_FILES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def write_bundle(path: Path, ca_pem: bytes) -> Path:
    """Write the bundle where it is not the same already; returns `path`. Raises `Misuse` where it cannot be written."""
    content = _system_certificates() + b"\n" + ca_pem
    try:
        if path.is_file() and path.read_bytes() == content:
            return path
        path.parent.mkdir(exist_ok=True, mode=0o700)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".bundle-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.chmod(name, 0o644)  # the plugin's own user reads it inside
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise Misuse(
            f"the certificates {path} cannot be written: {error.strerror}", code="state_dir_unusable"
        ) from error
    return path


def _system_certificates() -> bytes:
    own = ssl.get_default_verify_paths().cafile
    for candidate in (own, *_SYSTEM_FILES):
        try:
            if candidate:
                return Path(candidate).read_bytes()
        except OSError:
            continue
    return b""
