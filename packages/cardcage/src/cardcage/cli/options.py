"""Options that several commands share, each said once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, cast

import typer

from cardcage.cli import environment
from cardcage.foundation.errors import Fault, InvalidDocument, Misuse

CONFIG_BYTES_MAX: Final = 1024 * 1024

Json: TypeAlias = Annotated[bool, typer.Option("--json", help='Answer with JSON; errors too, as {"error": ...}.')]
StateDir: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        envvar=environment.STATE_DIR,
        metavar="DIR",
        show_default=False,
        help="The host's folder: registry, data, logs. Otherwise ~/.local/state/cardcage.",
    ),
]
Config: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE|JSON",
        show_default=False,
        help="The plugin's config: a JSON or YAML file, or JSON itself.",
    ),
]
Grant: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--grant",
        metavar="PERMISSION",
        show_default=False,
        help="Grant a permission, such as read:/srv/bill.csv. May be repeated.",
    ),
]
Timeout: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        min=0.05,
        max=86_400,
        show_default=False,
        help="The longest that one step of the plugin may take.",
    ),
]
Isolation: TypeAlias = Annotated[
    Literal["process", "container", "vm", "unconfined"],
    typer.Option(
        "--isolation",
        metavar="process|container|vm|unconfined",
        help="`container` is made by an installed OCI runtime; `vm` boots a virtual machine for each plugin; "
        "`unconfined` takes the walls away: only for plugins that you trust like this program.",
    ),
]
Policy: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--policy",
        metavar="LEVEL|FILE",
        show_default=False,
        help="The policy to start under: strict, standard, permissive, or a policy file.",
    ),
]
PluginName: TypeAlias = Annotated[
    str, typer.Argument(metavar="NAME", help="A registered plugin, or NAME/LABEL for one of its instances.")
]


def read_config(text: str | None) -> dict[str, Any] | None:
    """The config that `--config` names or spells; None where it was not given."""
    if text is None:
        return None
    if text.lstrip().startswith("{"):
        document = _parse_json(text, "the JSON of --config")
    else:
        document = _read_file(Path(text).expanduser())
    if not isinstance(document, dict):
        raise InvalidDocument(
            "--config",
            [Fault(path="", message=f"expected an object, found {type(document).__name__}")],
            code="config_invalid",
        )
    return cast(dict[str, Any], document)


def read_arguments(texts: Sequence[str]) -> list[Any]:
    """Arguments of a call: each is JSON, and what is no JSON is the text itself."""
    return [_argument(text) for text in texts]


def _argument(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        if text[:1] in ("{", "[", '"'):
            raise Misuse(
                f"the argument {text[:60]!r} begins like JSON and is none",
                code="bad_argument",
                hint="quote it for the shell: '{...}'",
            ) from None
        return text


def read_document_file(path: Path) -> Any:
    """The document in a JSON or YAML file, of bounded size."""
    return _read_file(path.expanduser())


def _read_file(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            data = file.read(CONFIG_BYTES_MAX + 1)
    except OSError as error:
        raise Misuse(
            f"the config file {path} cannot be read: {error.strerror}",
            code="config_unreadable",
            hint="or give JSON: --config '{...}'",
        ) from error
    if len(data) > CONFIG_BYTES_MAX:
        raise Misuse(f"the config file {path} is larger than {CONFIG_BYTES_MAX // 1024} KiB", code="config_too_large")
    if path.suffix in (".yaml", ".yml"):
        return _parse_yaml(data, str(path))
    return _parse_json(data, str(path))


def _parse_json(data: str | bytes, subject: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidDocument(
            subject, [Fault(path="", message=f"is not JSON: {error}")], code="config_invalid"
        ) from None


def _parse_yaml(data: bytes, subject: str) -> Any:
    import yaml

    try:
        return cast(Mapping[str, Any], yaml.safe_load(data))
    except (yaml.YAMLError, RecursionError) as error:
        sentence = " ".join(str(error).split())
        raise InvalidDocument(
            subject, [Fault(path="", message=f"is not YAML: {sentence}")], code="config_invalid"
        ) from None
