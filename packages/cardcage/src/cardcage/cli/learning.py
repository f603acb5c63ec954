"""`cardcage plugin learn`: the fewest permissions with which a plugin's tests pass, found by running them."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

from cardcage.cli.exits import ExitCode
from cardcage.cli.loop import run
from cardcage.cli.options import Config, Json, StateDir, Timeout, read_arguments, read_config, read_document_file
from cardcage.cli.text import console, print_json, safe, write_line
from cardcage.foundation.errors import Fault, InvalidDocument, Misuse

if TYPE_CHECKING:
    from cardcage.manager.learned import Learned
    from cardcage.manager.learning import Exercise, Lesson
    from cardcage.permissions import Permission

_CALLS_MAX: Final = 200


def learn(
    name: Annotated[str, typer.Argument(metavar="NAME|PATH", help="A registered plugin, or the folder of one.")],
    calls: Annotated[
        list[str] | None,
        typer.Option(
            "--run",
            metavar="'METHOD ARG...'",
            show_default=False,
            help="A call that must return: arguments as for `plugin call`. May be repeated.",
        ),
    ] = None,
    fixture: Annotated[
        Path | None,
        typer.Option(
            "--fixture",
            metavar="FILE",
            show_default=False,
            help="Calls in a JSON or YAML file: a list of {call, args, expect}, where expect may be left out.",
        ),
    ] = None,
    config: Config = None,
    within: Annotated[
        list[Path] | None,
        typer.Option(
            "--try",
            metavar="FOLDER",
            show_default=False,
            help="A folder in which the plugin may read and write what it tries. Elsewhere it is let read only what "
            "every user of this machine may. May be repeated.",
        ),
    ] = None,
    allow_network: Annotated[
        bool, typer.Option("--allow-network", help="Let it make the connections that it tries.")
    ] = False,
    hosts: Annotated[
        list[str] | None,
        typer.Option(
            "--host",
            metavar="NAME=ADDRESS",
            show_default=False,
            help="Let a name lead to an address, such as that of a stand-in on this machine. May be repeated.",
        ),
    ] = None,
    secrets: Annotated[
        list[str] | None,
        typer.Option(
            "--secret",
            metavar="NAME",
            show_default=False,
            help="A secret that it may be handed: the value of the environment variable NAME. May be repeated.",
        ),
    ] = None,
    generalise: Annotated[
        bool,
        typer.Option(
            "--generalise", help="Write ${config.KEY} for values of the config, and a folder for three files of it."
        ),
    ] = False,
    runs_max: Annotated[int, typer.Option("--runs", metavar="N", min=2, max=1000, help="The most runs to make.")] = 60,
    timeout: Timeout = None,
    write: Annotated[bool, typer.Option("--write", help="Write the block into the plugin's manifest.")] = False,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Run a plugin's tests behind recording walls, and print the smallest permission block that lets them pass.

    Without --run and --fixture the plugin's own tests are run, as far as they use `unittest`. What the tests write
    stays. Status 1 where they do not pass, whatever is given.
    """
    from cardcage.manager.learned import Bounds
    from cardcage.manager.learning import Lesson

    bounds = Bounds(
        within=tuple(os.path.realpath(folder.expanduser()) for folder in within or ()),
        network=allow_network,
        runs_max=runs_max,
    )
    lesson = Lesson(
        package_dir=Path(),
        exercises=(*_calls(calls or []), *_fixture(fixture)),
        config=read_config(config) or {},
        hosts=dict(map(_host, hosts or [])),
        secrets=tuple(secrets or ()),
        timeout_s=timeout,
    )
    manifest, learned = run(_learn(name, lesson, bounds, state_dir))
    permissions = learned.permissions
    if generalise:
        from cardcage.manager.generalised import generalise as widen

        permissions = widen(permissions, lesson.config)
    written = _write(manifest, permissions) if write and learned.passed else None
    if as_json:
        print_json(_json(learned, permissions, written))
    else:
        _print(learned, permissions, written)
    raise typer.Exit(ExitCode.OK if learned.passed else ExitCode.FAILED)


async def _learn(name: str, lesson: Lesson, bounds: Any, state_dir: Path | None) -> tuple[Path, Learned]:
    from dataclasses import replace

    from cardcage.audit import Action, Actor, Trail
    from cardcage.cli.host import Target, installed, open_host
    from cardcage.manager.learning import learn_permissions
    from cardcage.trust import verify

    async with open_host(state_dir) as host:
        folder = _folder(name)
        package = folder if folder is not None else installed(host.store, Target.parse(name)).package_dir
        release = verify(package)
        manifest = release.manifest
        Trail(auditor=host.manager.audit, plugin=manifest.name, version=manifest.version).note(
            Action.INSTANCE_LEARNING,
            "its tests are run to learn what it needs; what they try is given to it within bounds",
            actor=Actor.OPERATOR,
            path=str(release.package_dir),
            paths=list(bounds.within),
        )
        logging.getLogger("cardcage.plugin").setLevel(logging.CRITICAL)  # its prints would come once for each run
        learned = await learn_permissions(replace(lesson, package_dir=release.package_dir), bounds)
        return release.package_dir / release.manifest_file, learned


def _folder(name: str) -> Path | None:
    """The package's folder, where a path is meant rather than a registered plugin or an instance of one."""
    path = Path(name).expanduser()
    return path if path.is_dir() or name.startswith((os.sep, ".", "~")) else None


def _calls(texts: list[str]) -> list[Exercise]:
    from cardcage.manager.learning import Exercise

    found: list[Exercise] = []
    for text in texts:
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise Misuse(f"--run {text!r:.80} cannot be read: {error}", code="bad_run") from None
        if not words:
            raise Misuse("--run is empty, expected METHOD ARG...", code="bad_run")
        found.append(Exercise(method=words[0], args=tuple(read_arguments(words[1:]))))
    return found


def _fixture(path: Path | None) -> list[Exercise]:
    if path is None:
        return []
    document = read_document_file(path)
    entries = cast("dict[str, Any]", document).get("calls") if isinstance(document, dict) else document
    if not isinstance(entries, list) or not 1 <= len(cast("list[Any]", entries)) <= _CALLS_MAX:
        fault = Fault(path="", message=f"expected a list of 1 to {_CALLS_MAX} calls, each {{call, args, expect}}")
        raise InvalidDocument(f"the fixture {path}", [fault], code="fixture_invalid")
    faults: list[Fault] = []
    found = [_entry(index, entry, faults) for index, entry in enumerate(cast("list[Any]", entries))]
    if faults:
        raise InvalidDocument(f"the fixture {path}", faults, code="fixture_invalid")
    return [each for each in found if each is not None]


def _entry(index: int, entry: Any, faults: list[Fault]) -> Exercise | None:
    from cardcage.manager.learning import Exercise

    members = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
    method, args = members.get("call"), members.get("args", [])
    if not isinstance(method, str) or not isinstance(args, list) or members.keys() - {"call", "args", "expect"}:
        faults.append(Fault(path=f"[{index}]", message="expected {call: METHOD, args: [...], expect: RESULT}"))
        return None
    return Exercise(
        method=method,
        args=tuple(cast("list[Any]", args)),
        expected=members.get("expect"),
        has_expected="expect" in members,
    )


def _host(text: str) -> tuple[str, str]:
    name, equals, address = text.partition("=")
    if not (name and equals and address):
        raise Misuse(f"--host {text!r:.80} is none, expected NAME=ADDRESS", code="bad_host")
    return name, address


def _write(manifest: Path, permissions: tuple[Permission, ...]) -> str:
    """Put the block into the manifest, in one step, and only where nothing else of it changes."""
    from cardcage.manifest import parse_manifest
    from cardcage.manifest.rewrite import with_permissions

    before = manifest.read_text(encoding="utf-8")
    text = with_permissions(before, permissions, as_json=manifest.name.endswith(".json"))
    old, new = (parse_manifest(each, source=str(manifest)) for each in (before, text))
    assert old.model_copy(update={"permissions": new.permissions}) == new, "only the permissions may change"
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=manifest.parent, prefix=".learned-", delete=False
    ) as file:
        file.write(text)
    os.chmod(file.name, manifest.stat().st_mode & 0o777)
    os.replace(file.name, manifest)
    return str(manifest)


def _json(learned: Learned, permissions: tuple[Permission, ...], written: str | None) -> dict[str, Any]:
    from cardcage.manifest.rewrite import permissions_document

    return {
        "passed": learned.passed,
        "reason": learned.reason or None,
        "permissions": permissions_document(permissions),
        "grants": [str(permission) for permission in permissions],
        "minimal": learned.minimal,
        "runs": learned.runs,
        "left_out": [{"what": each.what, "reason": each.reason} for each in learned.left_out],
        "written": written,
    }


def _print(learned: Learned, permissions: tuple[Permission, ...], written: str | None) -> None:
    from cardcage.manifest.rewrite import permissions_block

    if learned.passed:
        for line in permissions_block(permissions).splitlines():
            write_line(sys.stdout, safe(line))
    told = console(error=True)
    if not learned.passed:
        told.print(f"The tests do not pass, whatever is given: {safe(learned.reason)}", style="red")
    elif not learned.minimal:
        told.print(f"Stopped after {learned.runs} runs: some of these may not be needed (--runs N).", style="yellow")
    else:
        told.print(f"The tests pass with these, and fail without any one of them ({learned.runs} runs).")
    if learned.left_out:
        told.print("Seen, and left out:")
        for each in learned.left_out:
            told.print(f"  {safe(each.what)}: {safe(each.reason)}")
    if written is not None:
        told.print(f"Written to {safe(written)}. Register the plugin again, and grant it what it asks for.")
