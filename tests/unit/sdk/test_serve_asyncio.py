"""The asyncio loop, for plugins with `async def` methods, seen from the host's end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cardcage_sdk.wire import Call, Cancel, Event, Goodbye, Pong

if TYPE_CHECKING:
    from .conftest import StartPlugin

CONCURRENT = """
    import asyncio
    from cardcage_sdk import HostError, Plugin, current_call

    class Concurrent(Plugin):
        def __init__(self):
            self.gates = {}
            self.log = []

        def gate(self, name):
            return self.gates.setdefault(name, asyncio.Event())

        async def wait_at(self, name: str) -> str:
            self.log.append("waits " + name)
            self.context.event_bus.publish("waiting", name)
            try:
                await self.gate(name).wait()
            except asyncio.CancelledError:
                self.log.append("cancelled " + name)
                raise
            return current_call().method + " " + name

        async def open(self, name: str) -> None:
            self.gate(name).set()

        def plain(self) -> list:
            return self.log

        async def fail(self):
            raise ValueError("no bill")

        async def give_up(self):
            raise asyncio.CancelledError

        async def leave(self):
            raise SystemExit(4)

        async def unsendable(self):
            return object()

        async def count(self, to: int):
            try:
                for number in range(to):
                    yield number
            finally:
                self.log.append("closed")

        def plain_count(self, to: int):
            try:
                yield from range(to)
            finally:
                self.log.append("closed plain")

        async def remaining(self):
            return current_call().remaining_s()

        async def ask_host(self, timeout_s: float = None):
            try:
                return await self.context.api_client.acall("host.ask", 1, timeout_s=timeout_s)
            except HostError as fault:
                return fault.code
            except TimeoutError as fault:
                return str(fault)

        def ask_host_plainly(self):
            return self.context.api_client.host.ask(2)

        async def subscribe(self, pattern):
            await self.context.event_bus.subscribe(pattern, self.note)

        async def note(self, event_type, data):
            self.log.append([event_type, data])
            if data == "bad":
                raise ValueError("bad event")
"""


def test_calls_run_side_by_side(start_plugin: StartPlugin) -> None:
    host = start_plugin(CONCURRENT)
    host.load("Concurrent")
    first, second = host.call("wait_at", ["a"]), host.call("wait_at", ["b"])
    host.ask("open", "b")
    assert host.answer(second) == "wait_at b"
    host.ask("open", "a")
    assert host.answer(first) == "wait_at a"


def test_a_plain_method_works_beside_async_ones(start_plugin: StartPlugin) -> None:
    host = start_plugin(CONCURRENT)
    host.load("Concurrent")
    assert host.ask("plain") == []


def test_a_cancelled_call_cancels_its_task_and_is_answered(start_plugin: StartPlugin) -> None:
    host = start_plugin(CONCURRENT)
    host.load("Concurrent")
    call_id = host.call("wait_at", ["a"])
    host.wait_for(Event)
    host.sock.sendall(host.session.cancel(call_id, "enough"))
    assert host.ask("plain") == ["waits a", "cancelled a"]
    host.sock.sendall(host.session.ping(1))
    host.wait_for(Pong)
    assert host.session.calls_open == 0


def test_a_call_cancelled_before_its_task_began_is_answered_and_not_run(start_plugin: StartPlugin) -> None:
    host = start_plugin(CONCURRENT)
    host.load("Concurrent")
    call_id, data = host.session.call("wait_at", ["a"])
    host.sock.sendall(data + host.session.cancel(call_id, "at once"))
    assert host.ask("plain") == []
    assert host.session.calls_open == 0


def test_a_deadline_cancels_the_task(start_plugin: StartPlugin) -> None:
    host = start_plugin(CONCURRENT)
    host.load("Concurrent")
    fault = host.failure(host.call("wait_at", ["a"], deadline_ms=50))
    assert fault.code == "deadline_exceeded"
    assert host.ask("plain") == ["waits a", "cancelled a"]
    assert host.failure(host.call("wait_at", ["a"], deadline_ms=0)).code == "deadline_exceeded"
    assert 0 < host.ask("remaining", deadline_ms=60_000) <= 60


def test_faults_are_answered_and_the_loop_goes_on(start_plugin: StartPlugin) -> None:
    host = start_plugin(CONCURRENT)
    host.load("Concurrent")
    assert host.failure(host.call("fail")).message == 'method "fail" raised ValueError: no bill'
    assert host.failure(host.call("give_up")).data["type"] == "CancelledError"
    assert host.failure(host.call("unsendable")).code == "invalid_result"
    assert host.failure(host.call("nothing")).code == "method_not_found"
    assert host.failure(host.call("wait_at", [1])).data["path"] == "name"
    assert host.ask("plain") == []


def test_sys_exit_is_a_goodbye_with_a_code(start_plugin: StartPlugin) -> None:
    host = start_plugin(CONCURRENT)
    host.load("Concurrent")
    assert host.failure(host.call("leave")).data["type"] == "SystemExit"
    assert host.wait_exit() == 4
    assert host.wait_for(Goodbye).code == "system_exit"


def test_async_and_plain_generators_are_streams(start_plugin: StartPlugin) -> None:
    host = start_plugin(CONCURRENT)
    host.load("Concurrent")
    assert host.stream("count", [20], credit=2) == list(range(20))
    assert host.stream("plain_count", [20], credit=2) == list(range(20))
    assert host.ask("count", 3) == [0, 1, 2]
    assert host.ask("plain_count", 3) == [0, 1, 2]
    assert host.ask("plain") == ["closed", "closed plain"] * 2


def test_a_cancelled_stream_closes_its_generator(start_plugin: StartPlugin) -> None:
    host = start_plugin(CONCURRENT)
    host.load("Concurrent")
    for method in ("count", "plain_count"):
        call_id = host.call(method, [100], credit=2)
        host.wait_for_items(call_id, 2)
        host.sock.sendall(host.session.cancel(call_id, "enough"))
    assert host.ask("plain") == ["closed", "closed plain"]


def test_an_endless_generator_does_not_keep_other_calls_waiting(start_plugin: StartPlugin) -> None:
    host = start_plugin(CONCURRENT)
    host.load("Concurrent")
    call_id = host.call("count", [10**9], credit=60_000)
    host.wait_for_items(call_id, 1)
    assert host.ask("plain") == []
    assert len(host.items(call_id)) < 60_000


def test_the_host_is_awaited_while_other_calls_go_on(start_plugin: StartPlugin) -> None:
    host = start_plugin(CONCURRENT)
    host.load("Concurrent")

    def answer_after_another_call(number: int) -> int:
        return number + len(host.ask("plain"))

    host.services["host.ask"] = answer_after_another_call
    assert host.ask("ask_host") == 1


def test_a_blocking_call_of_the_host_loses_nothing_that_arrives_meanwhile(start_plugin: StartPlugin) -> None:
    host = start_plugin(CONCURRENT)
    host.load("Concurrent")
    begun: list[int] = []

    def answer(number: int) -> int:
        begun.append(host.call("plain"))
        host.sock.sendall(host.session.ping(1))
        host.wait_for(Pong)
        return number

    host.services["host.ask"] = answer
    assert host.ask("ask_host_plainly") == 2
    assert host.answer(begun[0]) == []


def test_errors_and_timeouts_of_host_calls_reach_the_plugin(start_plugin: StartPlugin) -> None:
    host = start_plugin(CONCURRENT)
    host.load("Concurrent")
    assert host.ask("ask_host") == "method_not_found"
    host.services["host.ask"] = host.later
    assert host.ask("ask_host", 0.05) == "the host did not answer host.ask within 0.05 s"
    call_id = host.call("ask_host")
    host.wait_until(lambda: len(host.calls_seen) == 3 or None)
    host.sock.sendall(host.session.cancel(call_id, "enough"))
    host.ask("plain")
    assert [each.reason for each in host.received if isinstance(each, Cancel)] == ["timeout", "cancelled"]


def test_the_host_is_told_the_deadline_of_the_call_that_is_being_answered(start_plugin: StartPlugin) -> None:
    host = start_plugin(CONCURRENT)
    host.services["host.ask"] = host.later
    host.load("Concurrent")
    for method in ("ask_host", "ask_host_plainly"):
        assert host.failure(host.call(method, deadline_ms=100)).code == "deadline_exceeded"
    deadlines = [each.deadline_ms for each in host.received if isinstance(each, Call)]
    assert all(deadline is not None and deadline <= 100 for deadline in deadlines)
    assert host.ask("plain") == []


def test_events_reach_async_subscribers_and_their_faults_the_log(start_plugin: StartPlugin) -> None:
    host = start_plugin(CONCURRENT)
    host.load("Concurrent")
    host.ask("subscribe", "cost.*")
    host.sock.sendall(host.session.event("cost.spike", 1) + host.session.event("cost.spike", "bad"))
    host.wait_until(lambda: host.logs() or None)
    assert host.ask("plain") == [["cost.spike", 1], ["cost.spike", "bad"]]
    assert "ValueError: bad event" in host.logs()[0].message


def test_a_refused_subscription_is_logged(start_plugin: StartPlugin) -> None:
    host = start_plugin(CONCURRENT)
    del host.services["cardcage.subscribe"]
    host.load("Concurrent")
    host.ask("subscribe", "cost.*")
    host.wait_until(lambda: host.logs() or None)
    assert "'cost.*' was refused" in host.logs()[0].message


def test_an_error_in_a_task_of_the_plugins_own_is_logged(start_plugin: StartPlugin) -> None:
    host = start_plugin(
        """
        import asyncio, gc

        class Background:
            async def begin(self):
                async def work():
                    raise ValueError("unseen")
                task = asyncio.create_task(work())
                await asyncio.wait([task])
                del task
                gc.collect()
        """
    )
    host.load("Background")
    host.ask("begin")
    assert host.logs()[0].message.startswith("Task exception was never retrieved")


def test_the_goodbye_ends_the_process_without_running_the_plugin(start_plugin: StartPlugin) -> None:
    host = start_plugin(
        """
        import asyncio

        class Waiting:
            async def wait(self):
                try:
                    print("waits")
                    await asyncio.Event().wait()
                finally:
                    print("finally")

            async def quick(self):
                return 1
        """
    )
    host.load("Waiting")
    host.call("wait")
    assert host.ask("quick") == 1
    assert host.dismiss() == 0
    assert host.stdout == "waits\n"


def test_the_end_of_the_connection_ends_the_process(start_plugin: StartPlugin) -> None:
    host = start_plugin(CONCURRENT)
    host.load("Concurrent")
    host.sock.close()
    assert host.process.wait(20) == 0


def test_a_constructor_that_raises_is_answered_within_the_loop(start_plugin: StartPlugin) -> None:
    host = start_plugin(
        """
        class Broken:
            def __init__(self):
                raise ValueError("no table")

            async def work(self):
                return 1
        """
    )
    host.greet()
    assert "no table" in host.failure(host.call("cardcage.load", host.load_request("Broken"))).message
    assert host.failure(host.call("work")).code == "unavailable"
    assert host.dismiss() == 0


def test_answered_calls_leave_nothing_for_the_garbage_collector(start_plugin: StartPlugin) -> None:
    host = start_plugin(
        """
        import gc

        class Frugal:
            def __init__(self):
                gc.disable()

            async def work(self):
                return 1

            async def calls_held(self):
                return sum(type(each).__name__ == "Job" for each in gc.get_objects())
        """
    )
    host.load("Frugal")
    for _ in range(50):
        host.ask("work")
    assert host.ask("calls_held") < 5  # itself, and one or two whose tasks are about to end
