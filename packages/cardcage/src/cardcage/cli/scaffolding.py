"""`cardcage plugin create`: a new plugin that validates, loads and passes its test before a line of it is written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cardcage.cli.options import Json
from cardcage.cli.text import console, print_json
from cardcage.foundation.errors import Misuse

if TYPE_CHECKING:
    from cardcage.cli.scaffold import Scaffold

LANGUAGES: Final = ("python",)


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Lower-case words, such as ec2-optimizer.")],
    type_: Annotated[
        str | None,
        typer.Option(
            "--type", metavar="TYPE", show_default=False, help="A type of the installed packs, such as optimizer."
        ),
    ] = None,
    lang: Annotated[str, typer.Option("--lang", metavar="LANGUAGE", help="The language to write it in.")] = "python",
    folder: Annotated[Path, typer.Option("--dir", metavar="DIR", help="Where the plugin's folder is made.")] = Path(),
    as_json: Json = False,
) -> None:
    """Make the folder of a new plugin, which validates, loads, and passes its own test."""
    from cardcage.cli.scaffold import check_name, files

    check_name(name)
    if lang not in LANGUAGES:
        raise Misuse(
            f"--lang {lang} is not supported by this version, which makes plugins in: {', '.join(LANGUAGES)}",
            code="language_unsupported",
        )
    package = folder / name
    made = files(_scaffold(name, type_))
    _write(package, made)
    if as_json:
        print_json({"name": name, "path": str(package.absolute()), "files": sorted(made)})
        return
    out = console()
    out.print(f"made {package}/")
    for path in sorted(made):
        out.print(f"  {path}")
    out.print(f"next: cd {package} && cardcage plugin validate . && pytest && cardcage plugin load .")


def _scaffold(name: str, type_: str | None) -> Scaffold:
    from cardcage.cli.scaffold import Scaffold
    from cardcage.cli.stubs import stub_of
    from cardcage.contracts import index_points
    from cardcage.foundation.names import InterfaceRef
    from cardcage.manager.packs import installed_packs, library_dirs

    if type_ is None:
        return Scaffold(name=name)
    packs = installed_packs()
    types = {kind: ref for pack in packs for kind, ref in pack.plugin_types.items()}
    kind = type_.replace("-", "_").lower()
    points = index_points(point for pack in packs for point in pack.extension_points)
    ref = InterfaceRef.parse(types.get(kind, ""))
    if ref is None or ref not in points:
        raise Misuse(
            f"no installed pack knows the plugin type {type_!r} (known: {', '.join(sorted(types)) or 'none'})",
            code="unknown_plugin_type",
            hint="leave --type out for a plugin of your own extension points",
        )
    libraries = {library for library, _ in library_dirs(packs)}
    return Scaffold(name=name, type=kind, ref=str(ref), stub=stub_of(points[ref], libraries))


def _write(package: Path, made: dict[str, str]) -> None:
    """Write all files, or leave nothing. An existing folder is never touched."""
    try:
        package.mkdir()
    except FileExistsError:
        raise Misuse(
            f"{package} exists already, and nothing in it is touched",
            code="exists",
            hint="choose another NAME or --dir",
        ) from None
    except OSError as error:
        raise Misuse(f"{package} cannot be made: {error.strerror}", code="cannot_write") from error
    try:
        for path, text in made.items():
            (package / path).parent.mkdir(parents=True, exist_ok=True)
            (package / path).write_text(text, encoding="utf-8")
    except OSError as error:
        shutil.rmtree(package, ignore_errors=True)
        raise Misuse(f"{package} cannot be written: {error.strerror}", code="cannot_write") from error
