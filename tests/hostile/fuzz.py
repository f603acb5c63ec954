"""`make fuzz`: coverage-guided fuzzing of what reads a plugin's bytes: the wire's session, manifests and policies.

    python tests/hostile/fuzz.py TARGET [SECONDS]     look for crashes; the corpus grows in build/fuzz/TARGET
    python tests/hostile/fuzz.py TARGET FILE          run one input, such as a crash that was found, without a fuzzer

A target raises what its reader is documented to raise and nothing else. Everything else is a crash, and so is an input
that takes longer than a few seconds or more memory than a reader may use; libFuzzer leaves it in build/fuzz.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
CORPUS: Final = ROOT / "build" / "fuzz"
INPUT_BYTES_MAX: Final = 4096
INPUT_TIMEOUT_S: Final = 10
MEMORY_MIB_MAX: Final = 2048

Target = Callable[[bytes], None]


def session_target() -> Target:
    """A host in the middle of a conversation; the first two bytes say in which encoding, and how the rest is cut."""
    import msgspec
    from hostile_suite.frames import WANTED, busy_host

    from cardcage_sdk.wire import Encoding, RemoteProtocolError

    def read(data: bytes) -> None:
        if len(data) < 2:
            return
        host = busy_host(Encoding.JSON if data[0] & 1 else Encoding.BINARY)
        step, rest = (data[1] or 256), data[2:]
        for at in range(0, len(rest), step):
            try:
                messages = host.receive_data(rest[at : at + step])
            except RemoteProtocolError as fault:
                messages = fault.received
            for message in messages:
                for raw in (getattr(message, name, None) for name in ("args", "value", "data", "fields")):
                    if isinstance(raw, msgspec.Raw):
                        try:
                            host.decode(raw, WANTED[data[0] % len(WANTED)])
                        except msgspec.ValidationError:
                            pass

    return read


def weight_target() -> Target:
    """What weighs messages before they are read, with limits small enough to be met."""
    from cardcage_sdk.wire.weight import overweight

    def read(data: bytes) -> None:
        overweight(data[1:], json=bool(data[:1] and data[0] & 1), containers=3, parts=5)

    return read


def manifest_target() -> Target:
    """A manifest, as YAML or JSON."""
    from cardcage.foundation.errors import InvalidDocument
    from cardcage.manifest import parse_manifest

    def read(data: bytes) -> None:
        try:
            parse_manifest(data[1:], encoding="json" if data[:1] and data[0] & 1 else "yaml")
        except InvalidDocument as invalid:
            json.dumps(invalid.to_json())

    return read


def policy_target() -> Target:
    """A policy, as YAML or JSON."""
    from cardcage.foundation.errors import InvalidDocument
    from cardcage.policy import parse_policy

    def read(data: bytes) -> None:
        try:
            parse_policy(data[1:], source="policy.json" if data[:1] and data[0] & 1 else "policy.yaml")
        except InvalidDocument as invalid:
            json.dumps(invalid.to_json())

    return read


TARGETS: Final[dict[str, tuple[Callable[[], Target], tuple[str, ...]]]] = {
    "session": (session_target, ("cardcage_sdk.wire",)),
    "weight": (weight_target, ("cardcage_sdk.wire.weight",)),
    "manifest": (manifest_target, ("cardcage.manifest", "cardcage.permissions")),
    "policy": (policy_target, ("cardcage.policy", "cardcage.manifest", "cardcage.permissions")),
}
"""Each with the packages whose branches lead the fuzzer."""


def seeds(target: str) -> Iterator[bytes]:
    """What each target begins with: the protocol's vectors, and every manifest and policy of this repository."""
    if target in ("session", "weight"):
        for vector in json.loads((ROOT / "protocol/vectors/messages.json").read_text()):
            yield b"\0\0" + bytes.fromhex(vector["binary"])
            yield b"\1\0" + vector["json"].encode() + b"\n"
        for vector in json.loads((ROOT / "protocol/vectors/invalid.json").read_text()):
            yield b"\0\7" + bytes.fromhex(vector["bytes"])
        return
    pattern = "*/plugin.yaml" if target == "manifest" else "*policy*.yaml"
    for folder in ("examples", "plugins", "tests/hostile/plugins", "docs"):
        for path in sorted((ROOT / folder).rglob(pattern)):
            yield b"\0" + path.read_bytes()
    if target == "policy":
        yield b"\0level: strict\nrules:\n- when: {publisher: acme, permission: 'network:*:443'}\n  then: refuse\n"
        yield b'\1{"level": "standard", "rules": [], "limits": {"memory": "64MiB"}}'


def write_corpus(target: str, corpus: Path) -> Path:
    """The folder of inputs, with the seeds in it."""
    folder = corpus / target
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(target)):
        (folder / f"seed-{number:03}").write_bytes(seed[:INPUT_BYTES_MAX])
    return folder


def fuzz(target: str, seconds: int, runs: int, corpus: Path) -> None:
    """Never comes back: libFuzzer ends the process, with another status than 0 where it found something."""
    atheris: Any = import_module("atheris")
    make, packages = TARGETS[target]
    with atheris.instrument_imports(include=list(packages)):
        for package in packages:
            import_module(package)
    read = make()
    folder = write_corpus(target, corpus)
    options: list[Any] = [
        sys.argv[0],
        f"-max_total_time={seconds}" if not runs else f"-runs={runs}",
        f"-max_len={INPUT_BYTES_MAX}",
        f"-timeout={INPUT_TIMEOUT_S}",
        f"-rss_limit_mb={MEMORY_MIB_MAX}",
        f"-artifact_prefix={corpus}/{target}-",
        "-print_final_stats=1",
        str(folder),
    ]
    atheris.Setup(options, read)
    atheris.Fuzz()


def main() -> None:
    """One target for a time, or one input."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("what", nargs="?", default="60", metavar="SECONDS|FILE")
    parser.add_argument("--runs", type=int, default=0, help="end after so many inputs instead")
    parser.add_argument("--corpus", type=Path, default=CORPUS, metavar="DIR")
    options = parser.parse_args()
    if options.what.isdigit():
        fuzz(options.target, int(options.what), options.runs, options.corpus)
    TARGETS[options.target][0]()(Path(options.what).read_bytes())
    print(f"{options.what}: read without a crash")


if __name__ == "__main__":
    main()
