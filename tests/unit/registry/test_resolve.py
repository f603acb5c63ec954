"""Start order, and what is said of plugins that cannot start."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardcage.foundation.errors import InvalidDocument
from cardcage.registry import Need, Node, dependency_graph, dependents, resolve
from cardcage.registry.resolve import find_cycles


def node(name: str, *needs: str, version: str = "1.0.0", priority: int = 50, enabled: bool = True) -> Node:
    parted = (need.partition(" ") for need in needs)
    wanted = tuple(Need(name=needed, range=range_ or "*") for needed, _, range_ in parted)
    return Node(name=name, version=version, needs=wanted, priority=priority, enabled=enabled)


def test_dependencies_start_before_what_needs_them() -> None:
    assert resolve([node("app", "db", "log"), node("db", "log"), node("log")]).order == ("log", "db", "app")


def test_among_the_ready_the_lower_priority_number_starts_first_and_then_the_name() -> None:
    nodes = [node("c", priority=10), node("b", priority=90), node("a", priority=90), node("d", priority=1)]
    assert resolve(nodes).order == ("d", "c", "a", "b")


def test_a_dependency_starts_first_even_with_a_higher_priority_number() -> None:
    assert resolve([node("eager", "slow", priority=1), node("slow", priority=100)]).order == ("slow", "eager")


def test_the_order_does_not_depend_on_the_order_of_the_input() -> None:
    nodes = [node("a", "b"), node("b"), node("c", "a", priority=1), node("d")]
    assert resolve(nodes).order == resolve(reversed(nodes)).order


def test_a_missing_dependency_is_named_with_its_range() -> None:
    found = resolve([node("app", "db >=2.0")])
    assert found.order == ()
    assert found.problems == {"app": ("needs db >=2.0, which is not installed",)}


def test_a_version_out_of_range_is_named_with_what_is_installed() -> None:
    found = resolve([node("app", "db ^2.0"), node("db", version="1.4.0")])
    assert found.problems == {"app": ("needs db ^2.0, but 1.4.0 is installed",)}
    assert found.order == ("db",)


def test_a_pre_release_will_do_where_any_version_does_and_not_for_a_range() -> None:
    nodes = [node("any", "db"), node("some", "db >=1"), node("db", version="2.0.0-rc.1")]
    found = resolve(nodes)
    assert found.order == ("db", "any")
    assert found.problems == {"some": ("needs db >=1, but 2.0.0-rc.1 is installed",)}


def test_a_disabled_plugin_is_no_help_and_has_no_problem_of_its_own() -> None:
    found = resolve([node("app", "db"), node("db", "gone", enabled=False)])
    assert found.problems == {"app": ("needs db, which is disabled",)}


def test_every_problem_of_a_plugin_is_told_at_once() -> None:
    found = resolve([node("app", "gone", "old >=2", "broken"), node("old"), node("broken", "nowhere")])
    assert found.problems["app"] == (
        "needs gone, which is not installed",
        "needs old >=2, but 1.0.0 is installed",
        "needs broken, which cannot start",
    )


def test_one_that_cannot_start_takes_along_those_that_need_it_and_no_others() -> None:
    found = resolve([node("a", "b"), node("b", "c"), node("c", "gone"), node("other")])
    assert found.order == ("other",)
    assert found.problems["a"] == ("needs b, which cannot start",)
    assert found.problems["b"] == ("needs c, which cannot start",)


def test_a_circle_is_named_in_order_for_each_of_its_members() -> None:
    found = resolve([node("c", "a"), node("a", "b"), node("b", "c"), node("user", "b")])
    assert found.cycles == (("a", "b", "c"),)
    assert found.problems["a"] == ("waits for itself: a -> b -> c -> a",)
    assert found.problems["c"] == ("waits for itself: a -> b -> c -> a",)
    assert found.problems["user"] == ("needs b, which cannot start",)


def test_a_plugin_that_needs_itself_is_a_circle_of_one() -> None:
    assert resolve([node("a", "a")]).problems == {"a": ("waits for itself: a -> a",)}


def test_two_circles_are_both_found() -> None:
    found = resolve([node("a", "b"), node("b", "a"), node("x", "y"), node("y", "x")])
    assert found.cycles == (("a", "b"), ("x", "y"))


def test_require_raises_with_the_problems_of_those_asked_for() -> None:
    found = resolve([node("a", "gone"), node("b", "lost"), node("fine")])
    found.require("fine")
    with pytest.raises(InvalidDocument) as raised:
        found.require()
    assert raised.value.code == "dependencies_unmet"
    assert [fault.path for fault in raised.value.faults] == ["a", "b"]
    with pytest.raises(InvalidDocument, match="1 fault"):
        found.require("b")


def test_a_stop_drags_along_what_needs_it_and_stops_that_first() -> None:
    nodes = [node("log"), node("db", "log"), node("app", "db"), node("other")]
    assert dependents("log", nodes) == ("app", "db", "log")
    assert dependents("app", nodes) == ("app",)


def test_a_stop_drags_along_what_was_disabled_while_it_ran() -> None:
    nodes = [node("log", enabled=False), node("db", "log", enabled=False), node("app", "db")]
    assert dependents("log", nodes) == ("app", "db", "log")


def test_a_stop_leaves_nobody_out_even_in_a_circle() -> None:
    nodes = [node("a", "b"), node("b", "a"), node("c", "b")]
    assert dependents("a", nodes) == ("b", "c", "a")
    assert dependents("unknown", nodes) == ("unknown",)


def test_a_chain_of_ten_thousand_plugins_is_resolved() -> None:
    names = [f"p{n:05}" for n in range(10_000)]
    nodes = [node(name, *names[index - 1 : index]) for index, name in enumerate(names)]
    assert resolve(nodes).order == tuple(names)
    closed = resolve([*nodes[1:], node(names[0], names[-1])])
    assert closed.cycles == ((names[0], *reversed(names[1:])),)
    [problem] = closed.problems["p05000"]
    assert problem.startswith("waits for itself: p00000 -> p09999 -> ")
    assert problem.endswith(" -> (9980 more) -> p00001 -> p00000")


def test_the_graph_is_drawn_with_what_is_missing_dashed_and_circles_red() -> None:
    nodes = [node("app", "db >=2", "gone"), node("db", "app", version="2.0.0")]
    assert dependency_graph(nodes) == (
        "graph LR\n"
        '  p0["app 1.0.0"]\n'
        '  p1["db 2.0.0"]\n'
        '  p2["gone"]\n'
        '  p0 -->|">=2"| p1\n'
        "  p0 --> p2\n"
        "  p1 --> p0\n"
        "  style p2 stroke-dasharray: 4\n"
        "  style p0 stroke:#c00\n"
        "  style p1 stroke:#c00\n"
    )
    dot = dependency_graph(nodes, "dot")
    assert '"gone" [label="gone", style=dashed];' in dot
    assert '"app" -> "db" [label=">=2"];' in dot
    assert '"db" [label="db 2.0.0", color=red];' in dot


def test_nothing_in_a_range_can_leave_its_label() -> None:
    drawn = dependency_graph([node("a", 'b x"]; evil\n')], "dot")
    assert drawn.count("\n") == len(drawn.splitlines())
    assert 'label="x\']; evil "' in drawn


names = st.sampled_from([f"p{n}" for n in range(8)])
graphs = st.dictionaries(names, st.lists(names, unique=True, max_size=4), max_size=8)
acyclic = graphs.map(lambda graph: {name: [each for each in needed if each < name] for name, needed in graph.items()})


def nodes_of(graph: dict[str, list[str]], priorities: list[int]) -> list[Node]:
    return [
        Node(name=name, needs=tuple(Need(name=each) for each in needed if each in graph), priority=priority)
        for (name, needed), priority in zip(graph.items(), priorities, strict=False)
    ]


priorities = st.lists(st.integers(1, 100), min_size=8, max_size=8)


@given(acyclic, priorities)
def test_every_graph_without_circles_starts_whole_and_in_an_order_that_fits(
    graph: dict[str, list[str]], priorities: list[int]
) -> None:
    nodes = nodes_of(graph, priorities)
    found = resolve(nodes)
    assert sorted(found.order) == sorted(graph)
    assert not found.problems
    for each in nodes:
        for need in each.needs:
            assert found.order.index(need.name) < found.order.index(each.name)
    by_name = {each.name: each for each in nodes}
    for earlier, later in zip(found.order, found.order[1:], strict=False):
        # Whoever stands before its neighbour had the right to: the neighbour needs it, or it comes first by itself.
        needed = {need.name for need in by_name[later].needs}
        assert earlier in needed or (by_name[earlier].priority, earlier) < (by_name[later].priority, later)


@given(graphs, priorities)
def test_every_circle_found_is_one_and_what_is_left_starts_in_an_order_that_fits(
    graph: dict[str, list[str]], priorities: list[int]
) -> None:
    nodes = nodes_of(graph, priorities)
    needs = {each.name: {need.name for need in each.needs} for each in nodes}
    found = resolve(nodes)
    for cycle in found.cycles:
        assert len(set(cycle)) == len(cycle)
        for index, name in enumerate(cycle):
            assert cycle[(index + 1) % len(cycle)] in needs[name]
    assert set(found.order) | set(found.problems) == set(graph)
    assert not set(found.order) & set(found.problems)
    for position, name in enumerate(found.order):
        assert needs[name] <= set(found.order[:position])
    assert bool(found.problems) == bool(found.cycles)


@given(graphs)
def test_a_graph_has_circles_exactly_where_no_order_exists(graph: dict[str, list[str]]) -> None:
    closed = {name: [each for each in needed if each in graph] for name, needed in graph.items()}
    left = dict(closed)
    while ready := [name for name, needed in left.items() if not any(each in left for each in needed)]:
        for name in ready:
            del left[name]
    assert bool(find_cycles(closed)) == bool(left)
