"""The product's fork server with single steps replaced, for `weaken`. It is run as a script, from a copy in which
`WITHOUT` names the layers that are off."""

# pyright: basic

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

WITHOUT: frozenset[str] = frozenset()


def _replace(holder: object, name: str, new: object) -> None:
    """A step that is not there under its name any more must not be missed in silence."""
    if not hasattr(holder, name):
        raise SystemExit(f"the product has no {name} to switch off")
    setattr(holder, name, new)


def _weaken() -> None:
    from cardcage.launch import walled_child, zygote_main
    from cardcage.sandbox import capabilities, enter, landlock, mounts, seccomp

    say = enter.Walls._say

    def say_off(self: object, name: str, status: str, detail: str = "") -> None:
        off = name in WITHOUT
        say(self, name, "off" if off else status, "switched off by the suite" if off else detail)  # type: ignore[arg-type]

    _replace(enter.Walls, "_say", say_off)
    first = walled_child._first_layers

    def first_layers(around: object) -> list[tuple[str, str, str]]:
        rows = first(around)  # type: ignore[arg-type]
        return [(n, "off", "switched off by the suite") if n in WITHOUT else (n, s, d) for n, s, d in rows]

    _replace(walled_child, "_first_layers", first_layers)
    if "system_call_filter" in WITHOUT:
        _replace(seccomp, "install", lambda program: None)
    if "resource_limits" in WITHOUT:
        _replace(enter.Walls, "_limit_resources", lambda self: self._say("resource_limits", "off"))
    if "capabilities" in WITHOUT:
        _replace(capabilities, "drop_all", lambda: None)
    if "no_new_privileges" in WITHOUT:
        _replace(capabilities, "no_new_privileges", lambda: None)
    if "descriptors" in WITHOUT:
        _replace(enter, "close_from", lambda first: None)
    if "uts_namespace" in WITHOUT:
        _replace(enter.Walls, "_set_hostname", lambda self: None)
        _without_namespace(enter, "uts")
    if "network_namespace" in WITHOUT:
        _replace(enter, "enter_for_next_child", lambda: None)
    if "pid_namespace" in WITHOUT:
        _share_pid_namespace(zygote_main)
    if "private_proc" in WITHOUT:
        _replace(mounts, "mount", _plain_proc(mounts.mount))
        _replace(mounts, "_mask_proc", lambda target: None)
    _weaken_landlock(landlock)


def _plain_proc(mount: "Callable[..., None]") -> "Callable[..., None]":
    """Everything in /proc, shown to everybody."""

    def plain(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
        mount(source, target, kind, flags, "" if kind == "proc" else options)

    return plain


def _share_pid_namespace(zygote_main: object) -> None:
    """Instances in the fork server's own namespace: they see it, and each other."""
    enter_own = zygote_main._enter_own_pid_namespace  # type: ignore[attr-defined]

    def enter_then_share(control: int, *, as_root: bool) -> None:
        enter_own(control, as_root=as_root)
        _replace(zygote_main, "_CLONE_NEWPID", 0)

    _replace(zygote_main, "_enter_own_pid_namespace", enter_then_share)


def _without_namespace(enter: object, name: str) -> None:
    flags = dict(enter.CLONE_FLAGS)  # type: ignore[attr-defined]
    flags[name] = 0
    _replace(enter, "CLONE_FLAGS", flags)


def _weaken_landlock(landlock: object) -> None:
    off = {name for name in WITHOUT if name.startswith("landlock_")}
    if off:
        # One ruleset holds all three: where one is off, so are they all.
        _replace(landlock, "restrict", lambda rules, abi: None)


if __name__ == "__main__":
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("cardcage", "@CARDCAGE@/__init__.py", submodule_search_locations=["@CARDCAGE@"])
    assert spec is not None
    assert spec.loader is not None
    sys.modules["cardcage"] = module = module_from_spec(spec)
    spec.loader.exec_module(module)
    from cardcage.launch import zygote_main

    _weaken()
    zygote_main.serve(int(sys.argv[1]))
