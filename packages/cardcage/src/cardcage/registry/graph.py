"""The dependency graph as text that other programs draw."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from cardcage.registry.resolve import Node, find_cycles


def dependency_graph(nodes: Iterable[Node], form: Literal["dot", "mermaid"] = "mermaid") -> str:
    """The graph, an arrow from each plugin to what it needs. Dashed: not installed, or disabled; red: in a circle."""
    by_name = {node.name: node for node in nodes}
    arrows = sorted({(node.name, need.name, need.range) for node in by_name.values() for need in node.needs})
    names = sorted({*by_name, *(needed for _, needed, _ in arrows)})
    absent = {name for name in names if name not in by_name or not by_name[name].enabled}
    needs = {name: [need.name for need in node.needs if need.name in by_name] for name, node in by_name.items()}
    circled = {name for cycle in find_cycles(needs) for name in cycle}
    labels = {name: f"{name} {by_name[name].version}" if name in by_name else name for name in names}
    draw = _dot if form == "dot" else _mermaid
    return draw(labels, arrows, absent, circled)


def _dot(labels: dict[str, str], arrows: list[tuple[str, str, str]], absent: set[str], circled: set[str]) -> str:
    lines = ["digraph plugins {", "  rankdir=LR; node [shape=box];"]
    for name, label in labels.items():
        style = ", style=dashed" if name in absent else ""
        color = ", color=red" if name in circled else ""
        lines.append(f"  {_quoted(name)} [label={_quoted(label)}{style}{color}];")
    lines += [
        f"  {_quoted(name)} -> {_quoted(needed)}" + (f" [label={_quoted(wanted)}];" if _says(wanted) else ";")
        for name, needed, wanted in arrows
    ]
    return "\n".join([*lines, "}", ""])


def _mermaid(labels: dict[str, str], arrows: list[tuple[str, str, str]], absent: set[str], circled: set[str]) -> str:
    # Mermaid takes few characters in an identifier, and some names, such as `end`, mean something to it.
    ids = {name: f"p{index}" for index, name in enumerate(labels)}
    lines = ["graph LR"]
    lines += [f"  {ids[name]}[{_quoted(label)}]" for name, label in labels.items()]
    lines += [
        f"  {ids[name]} --" + (f">|{_quoted(wanted)}| " if _says(wanted) else "> ") + ids[needed]
        for name, needed, wanted in arrows
    ]
    lines += [f"  style {ids[name]} stroke-dasharray: 4" for name in labels if name in absent]
    lines += [f"  style {ids[name]} stroke:#c00" for name in labels if name in circled]
    return "\n".join([*lines, ""])


def _says(wanted: str) -> bool:
    return wanted not in ("", "*")


def _quoted(text: str) -> str:
    # Names are checked, but ranges are an author's text: nothing in it may end the string.
    return '"' + text.replace("\\", "").replace('"', "'").replace("\n", " ") + '"'
