"""The blocking loop, seen from the host's end of a real connection to a real process."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import msgspec
import pytest

from cardcage_sdk.wire import Call, Cancel, Error, Event, Goodbye, Hello, Metric, Pong, Result

if TYPE_CHECKING:
    from .conftest import StartPlugin

GREETER = """
    from cardcage_sdk import Plugin

    class Polite(Plugin):
        def greet(self, name: str) -> str:
            "Greet somebody."
            return f"{self.config.get('word', 'Good day')}, {name}."
"""


def test_a_public_method_is_called_by_its_name(start_plugin: StartPlugin) -> None:
    host = start_plugin(GREETER)
    host.load("Polite", config={"word": "Ahoy"})
    assert host.ask("greet", "Ada") == "Ahoy, Ada."
    assert host.ask("greet", name="Bo") == "Ahoy, Bo."


def test_the_hello_names_the_sdk_and_the_language_and_nothing_is_sent_before_the_ready(
    start_plugin: StartPlugin,
) -> None:
    host = start_plugin(GREETER)
    hello = host.greet()
    assert hello.info["sdk"] == "cardcage-sdk"
    assert hello.info["language"] == "python"
    assert len(host.received) == 1


def test_a_host_that_calls_before_its_ready_breaks_the_protocol_and_the_process_ends(start_plugin: StartPlugin) -> None:
    host = start_plugin(GREETER)
    host.wait_for(Hello)
    body = msgspec.msgpack.encode([2, 1, "greet", ["Ada"]])
    host.sock.sendall(len(body).to_bytes(4, "big") + body)
    assert host.process.wait(20) == 76
    assert "in state greeted" in host.stderr


def test_a_call_before_the_load_is_unavailable(start_plugin: StartPlugin) -> None:
    host = start_plugin(GREETER)
    host.greet()
    assert host.failure(host.call("greet", ["Ada"])).code == "unavailable"


def test_a_second_load_is_refused(start_plugin: StartPlugin) -> None:
    host = start_plugin(GREETER)
    host.load("Polite")
    assert host.failure(host.call("cardcage.load", host.load_request("Polite"))).code == "refused"


def test_an_unknown_method_is_named_with_those_that_there_are(start_plugin: StartPlugin) -> None:
    host = start_plugin(GREETER)
    host.load("Polite")
    fault = host.failure(host.call("greeet", ["Ada"]))
    assert fault.code == "method_not_found"
    assert '"greeet"' in fault.message
    assert "greet" in fault.data["found"]


def test_many_calls_in_one_write_are_answered_in_order(start_plugin: StartPlugin) -> None:
    host = start_plugin(GREETER)
    host.load("Polite")
    begun = [host.session.call("greet", [str(number)]) for number in range(300)]
    host.sock.sendall(b"".join(data for _, data in begun))
    answers = [host.answer(call_id) for call_id, _ in begun]
    assert answers == [f"Good day, {number}." for number in range(300)]


def test_a_frame_of_many_megabytes_arrives_whole(start_plugin: StartPlugin) -> None:
    host = start_plugin("class Echo:\n    def echo(self, data: bytes) -> bytes:\n        return data[::-1]\n")
    host.load("Echo")
    data = os.urandom(9 * 1024 * 1024)
    assert host.ask("echo", data) == data[::-1]


# What plugin code may do wrong


FAULTY = """
    import sys
    from cardcage_sdk import Plugin

    class Faulty(Plugin):
        def fail(self, depth: int = 0):
            if depth:
                return self.fail(depth - 1)
            raise ValueError("the bill is empty")

        def wordless(self):
            class Mute(Exception):
                def __str__(self):
                    raise RuntimeError
            raise Mute

        def unsendable(self):
            return open("plugin.py")

        def enormous(self):
            return bytes(17 * 1024 * 1024)

        def leave(self, status=3):
            sys.exit(status)

        def interrupt(self):
            raise KeyboardInterrupt

        def base_exception(self):
            import asyncio
            raise asyncio.CancelledError

        def odd_text(self):
            raise ValueError("\\udcff")

        def fine(self) -> str:
            return "fine"
"""


def test_an_exception_becomes_a_plugin_error_with_the_plugins_own_frames_alone(start_plugin: StartPlugin) -> None:
    host = start_plugin(FAULTY)
    host.load("Faulty")
    fault = host.failure(host.call("fail", [2]))
    assert fault.code == "plugin_error"
    assert fault.message == 'method "fail" raised ValueError: the bill is empty'
    assert fault.data["type"] == "ValueError"
    assert fault.data["traceback"].count("plugin.py") == 3
    assert "cardcage_sdk" not in fault.data["traceback"]
    assert host.ask("fine") == "fine"


def test_an_exception_that_cannot_say_itself_is_still_answered(start_plugin: StartPlugin) -> None:
    host = start_plugin(FAULTY)
    host.load("Faulty")
    assert host.failure(host.call("wordless")).data["type"] == "Mute"
    assert host.failure(host.call("odd_text")).data["message"] == "\\udcff"
    assert host.failure(host.call("base_exception")).data["type"] == "CancelledError"
    assert host.ask("fine") == "fine"


@pytest.mark.parametrize(("method", "kind"), [("unsendable", "TextIOWrapper"), ("enormous", "bytes")])
def test_a_result_that_cannot_be_sent_names_the_method_and_the_type(
    start_plugin: StartPlugin, method: str, kind: str
) -> None:
    host = start_plugin(FAULTY)
    host.load("Faulty")
    fault = host.failure(host.call(method))
    assert fault.code == "invalid_result"
    assert fault.data == {"method": f'method "{method}"', "type": kind}
    assert host.ask("fine") == "fine"


def test_sys_exit_in_a_method_is_an_answer_a_goodbye_and_an_exit(start_plugin: StartPlugin) -> None:
    host = start_plugin(FAULTY)
    host.load("Faulty")
    fault = host.failure(host.call("leave", [3]))
    assert fault.message == 'method "leave" raised SystemExit: 3'
    assert host.wait_exit() == 3
    assert host.wait_for(Goodbye).code == "system_exit"
    assert "sys.exit(3)" in host.wait_for(Goodbye).message


def test_a_keyboard_interrupt_in_a_method_is_a_goodbye_of_its_own(start_plugin: StartPlugin) -> None:
    host = start_plugin(FAULTY)
    host.load("Faulty")
    host.failure(host.call("interrupt"))
    assert host.wait_exit() == 1
    assert host.wait_for(Goodbye).code == "keyboard_interrupt"


def test_prints_go_to_the_standard_streams_by_lines_and_never_fail(start_plugin: StartPlugin) -> None:
    host = start_plugin(
        """
        import sys
        print("at import")

        class Loud:
            def shout(self) -> int:
                print("caf\\u00e9 \\udcff")
                print("trouble", file=sys.stderr)
                return 1
        """
    )
    host.load("Loud")
    assert host.ask("shout") == 1
    assert host.stdout == "at import\ncafé \\udcff\n"
    assert host.stderr == "trouble\n"


# Arguments


TYPED = """
    import msgspec
    from dataclasses import dataclass
    from datetime import datetime
    from decimal import Decimal
    from typing import Protocol

    class Resource(msgspec.Struct):
        id: str
        cpu: float = 0.0

    @dataclass
    class Window:
        begin: datetime
        tags: list[str]

    class Optimizer(Protocol):
        def analyze(self, resource: Resource, metrics: dict) -> list: ...

    class Typed(Optimizer):
        def analyze(self, resource, metrics):
            return [type(resource).__name__, resource.id, metrics]

        def renamed(self, a, *, scale: int = 1):
            return [a, scale]

        def price(self, amount: Decimal, window: Window, name: str = None) -> list:
            return [type(amount).__name__, str(amount), window.begin.year, window.tags, name]

        def gather(self, first: int, *rest: int, **named: str):
            return [first, list(rest), named]
"""


def test_arguments_become_the_annotated_types(start_plugin: StartPlugin) -> None:
    host = start_plugin(TYPED)
    host.load("Typed")
    window = {"begin": "2026-01-02T00:00:00Z", "tags": ["a"]}
    assert host.ask("price", "1.10", window) == ["Decimal", "1.10", 2026, ["a"], None]
    assert host.ask("price", amount="1.10", window=window, name="x") == ["Decimal", "1.10", 2026, ["a"], "x"]


def test_an_override_without_annotations_takes_those_of_its_base(start_plugin: StartPlugin) -> None:
    host = start_plugin(TYPED)
    host.load("Typed")
    assert host.ask("analyze", {"id": "i-1"}, {"cpu": 3}) == ["Resource", "i-1", {"cpu": 3}]


def test_star_arguments_are_passed_on(start_plugin: StartPlugin) -> None:
    host = start_plugin(TYPED)
    host.load("Typed")
    assert host.ask("gather", 1, 2, 3) == [1, [2, 3], {}]
    assert host.ask("gather", first=1, other="x") == [1, [], {"other": "x"}]
    assert host.ask("renamed", a=1, scale=2) == [1, 2]


@pytest.mark.parametrize(
    ("method", "args", "path", "expected", "found"),
    [
        ("analyze", [{"id": 7}, {}], "resource.id", "str", "int"),
        ("analyze", {"resource": {"id": "a", "cpu": "hot"}, "metrics": {}}, "resource.cpu", "float", "str"),
        ("analyze", [{"id": "a"}], "metrics", "resource, metrics", "nothing"),
        ("analyze", [{"id": "a"}, {}, 1], "", "2 (resource, metrics)", "3"),
        ("analyze", {"resource": {"id": "a"}, "metrics": {}, "colour": 1}, "colour", "resource, metrics", "colour"),
        ("price", ["1", {"begin": "2026-01-02T00:00:00Z", "tags": [1]}], "window.tags[0]", "str", "int"),
    ],
)
def test_wrong_arguments_name_the_method_the_path_what_was_expected_and_found(
    start_plugin: StartPlugin, method: str, args: list[object], path: str, expected: str, found: str
) -> None:
    host = start_plugin(TYPED)
    host.load("Typed")
    fault = host.failure(host.call(method, args))
    assert fault.code == "invalid_params"
    assert fault.message.startswith(f'method "{method}": ')
    assert (fault.data["path"], fault.data["expected"], fault.data["found"]) == (path, expected, found)


def test_an_argument_with_an_enormous_name_is_refused_in_few_words(start_plugin: StartPlugin) -> None:
    host = start_plugin(TYPED)
    host.load("Typed")
    fault = host.failure(host.call("analyze", {"x" * (15 * 1024 * 1024): 1}))
    assert fault.code == "invalid_params"
    assert len(fault.message) < 5000
    assert host.ask("renamed", 1) == [1, 1]


# Deadlines and cancellation


PATIENT = """
    from cardcage_sdk import Plugin, current_call

    class Patient(Plugin):
        ran = 0

        def wait_for_host(self):
            self.ran += 1
            return self.context.api_client.call("host.wait")

        def count(self):
            return self.ran

        def remaining(self):
            return current_call().remaining_s()

        def until_expired(self):
            self.context.event_bus.publish("began", None)
            while not current_call().expired:
                pass
            return "late"

        def until_cancelled(self):
            self.context.event_bus.publish("began", None)
            while True:
                current_call().check()
"""


def test_a_call_that_arrives_expired_is_not_run(start_plugin: StartPlugin) -> None:
    host = start_plugin(PATIENT)
    host.load("Patient")
    assert host.failure(host.call("wait_for_host", deadline_ms=0)).code == "deadline_exceeded"
    assert host.ask("count") == 0


def test_a_call_that_expires_in_the_queue_is_not_run(start_plugin: StartPlugin) -> None:
    host = start_plugin(PATIENT)
    host.load("Patient")
    first, one = host.session.call("until_expired", (), deadline_ms=50)
    second, other = host.session.call("wait_for_host", (), deadline_ms=1)
    host.sock.sendall(one + other)  # in one write: a deadline counts from when the call is read
    assert host.answer(first) == "late"
    assert host.failure(second).code == "deadline_exceeded"


def test_a_method_can_ask_how_long_it_has(start_plugin: StartPlugin) -> None:
    host = start_plugin(PATIENT)
    host.load("Patient")
    remaining = host.ask("remaining", deadline_ms=60_000)
    assert 0 < remaining <= 60
    assert host.ask("remaining") is None


def test_a_plugin_waits_for_the_host_no_longer_than_its_own_caller_does(start_plugin: StartPlugin) -> None:
    host = start_plugin(PATIENT)
    host.services["host.wait"] = host.later
    host.load("Patient")
    fault = host.failure(host.call("wait_for_host", deadline_ms=100))
    assert fault.code == "deadline_exceeded"
    assert "while it waited for host.wait" in fault.message
    (call,) = [each for each in host.received if isinstance(each, Call)]
    assert call.deadline_ms is not None
    assert call.deadline_ms <= 100


def test_a_call_that_is_cancelled_in_the_queue_is_not_run(start_plugin: StartPlugin) -> None:
    host = start_plugin(PATIENT)
    host.load("Patient")
    host.services["host.wait"] = lambda: "answered"
    first, data = host.session.call("wait_for_host", [])
    second, more = host.session.call("wait_for_host", [])
    host.sock.sendall(data + more + host.session.cancel(second, "changed my mind"))
    assert host.answer(first) == "answered"
    assert host.ask("count") == 1


def test_a_running_method_can_see_that_it_was_cancelled(start_plugin: StartPlugin) -> None:
    host = start_plugin(PATIENT)
    host.load("Patient")
    call_id = host.call("until_cancelled")
    host.wait_for(Event)
    host.sock.sendall(host.session.cancel(call_id, "enough"))
    assert host.ask("count") == 0


# Streams


STREAMER = """
    import time
    from typing import Iterator
    from cardcage_sdk import Plugin

    class Streamer(Plugin):
        closed = 0

        def count(self, to: int):
            try:
                for number in range(to):
                    yield number
            finally:
                self.closed += 1
            return "done"

        def breaks(self):
            yield 1
            raise ValueError("half way")

        def bad_item(self):
            yield object()

        def mapped(self) -> Iterator[int]:
            return map(abs, [-1, -2])

        def listed(self) -> Iterator[int]:
            return [1, 2]

        def closings(self):
            return self.closed
"""


def test_a_generator_is_a_stream_under_credit(start_plugin: StartPlugin) -> None:
    host = start_plugin(STREAMER)
    host.load("Streamer")
    assert host.stream("count", [50], credit=3) == list(range(50))
    assert host.ask("closings") == 1


def test_no_item_is_sent_beyond_the_credit(start_plugin: StartPlugin) -> None:
    host = start_plugin(STREAMER)
    host.load("Streamer")
    call_id = host.call("count", [10], credit=2)
    host.wait_for_items(call_id, 2)
    host.sock.sendall(host.session.ping(7))
    host.wait_for(Pong)
    assert host.items(call_id) == [0, 1]
    host.sock.sendall(host.session.credit(call_id, 20))
    assert host.answer(call_id) == "done"
    assert host.items(call_id) == list(range(10))


def test_a_cancelled_stream_closes_its_generator(start_plugin: StartPlugin) -> None:
    host = start_plugin(STREAMER)
    host.load("Streamer")
    call_id = host.call("count", [10], credit=1)
    host.wait_for_items(call_id, 1)
    host.sock.sendall(host.session.cancel(call_id, "enough"))
    assert host.ask("closings") == 1


def test_a_stream_ends_at_its_deadline_though_it_waits_for_credit(start_plugin: StartPlugin) -> None:
    host = start_plugin(STREAMER)
    host.load("Streamer")
    call_id = host.call("count", [10], credit=1, deadline_ms=100)
    assert host.failure(call_id).code == "deadline_exceeded"
    assert host.items(call_id) == [0]
    assert host.ask("closings") == 1


def test_a_stream_that_raises_or_holds_what_cannot_be_sent_ends_in_an_error(start_plugin: StartPlugin) -> None:
    host = start_plugin(STREAMER)
    host.load("Streamer")
    call_id = host.call("breaks", credit=5)
    assert host.failure(call_id).message == 'method "breaks" raised ValueError: half way'
    assert host.items(call_id) == [1]
    assert host.failure(host.call("bad_item", credit=5)).code == "invalid_result"


def test_a_caller_that_takes_no_stream_gets_a_list(start_plugin: StartPlugin) -> None:
    host = start_plugin(STREAMER)
    host.load("Streamer")
    assert host.ask("count", 4) == [0, 1, 2, 3]


def test_iterators_and_declared_lists_stream_too(start_plugin: StartPlugin) -> None:
    host = start_plugin(STREAMER)
    description = host.load("Streamer")
    streams = {method["name"]: method["stream"] for method in description["methods"]}
    assert streams == {
        "count": True,
        "breaks": True,
        "bad_item": True,
        "mapped": True,
        "listed": True,
        "closings": False,
    }
    assert host.stream("mapped") == [1, 2]
    assert host.stream("listed") == [1, 2]


# The plugin's way to the host


CALLER = """
    import threading
    from cardcage_sdk import HostError, Plugin, current_context

    class Caller(Plugin):
        def spike(self, amount: int):
            return self.context.api_client.finops.alerts.trigger("Spike", amount)

        def named(self):
            return self.context.api_client.call("store.put", key="a", value=1)

        def refused(self):
            try:
                return self.context.api_client.call("secrets.read", "password")
            except HostError as fault:
                return [fault.code, fault.message, fault.data]

        def unanswered(self):
            try:
                return self.context.api_client.call("host.never", timeout_s=0.05)
            except TimeoutError as fault:
                return str(fault)

        def current(self):
            return current_context() is self.context

        def from_thread(self):
            seen = []
            def run():
                try:
                    self.context.api_client.call("store.put")
                except RuntimeError as fault:
                    seen.append(str(fault))
                self.logger.info("from a thread")
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
            return seen

        def quick(self):
            return "quick"

        def measure(self):
            self.context.metrics.counter("rows", 3, table="bill")
            self.context.metrics.gauge("depth", 1.5)
            self.context.metrics.histogram("seconds", 0.25)
"""


def test_the_host_is_called_by_name_or_by_attributes(start_plugin: StartPlugin) -> None:
    host = start_plugin(CALLER)

    def trigger(name: str, amount: int) -> str:
        return f"{name} of {amount}"

    def put(key: str, value: int) -> list[object]:
        return [key, value]

    host.services |= {"finops.alerts.trigger": trigger, "store.put": put}
    host.load("Caller")
    assert host.ask("spike", 3) == "Spike of 3"
    assert host.ask("named") == ["a", 1]
    assert host.ask("current") is True


def test_an_error_of_the_host_reaches_the_plugin_with_its_code(start_plugin: StartPlugin) -> None:
    host = start_plugin(CALLER)
    host.load("Caller")
    assert host.ask("refused") == ["method_not_found", "no secrets.read", None]


def test_a_host_that_does_not_answer_in_time_is_a_timeout_and_a_cancel(start_plugin: StartPlugin) -> None:
    host = start_plugin(CALLER)
    host.services["host.never"] = host.later
    host.load("Caller")
    assert host.ask("unanswered") == "the host did not answer host.never within 0.05 s"
    assert host.wait_for(Cancel).reason == "timeout"


def test_calls_that_arrive_while_the_plugin_waits_are_run_afterwards_and_pings_answered(
    start_plugin: StartPlugin,
) -> None:
    host = start_plugin(CALLER)
    host.load("Caller")
    begun: list[int] = []

    def trigger(name: str, amount: int) -> str:
        begun.append(host.call("quick"))
        host.sock.sendall(host.session.ping(9))
        host.wait_for(Pong)
        assert not [each for each in host.received if isinstance(each, Result) and each.id == begun[0]]
        return "done"

    host.services["finops.alerts.trigger"] = trigger
    assert host.ask("spike", 1) == "done"
    assert host.answer(begun[0]) == "quick"


def test_a_thread_may_log_but_not_call(start_plugin: StartPlugin) -> None:
    host = start_plugin(CALLER)
    host.load("Caller")
    assert "only from the thread that serves" in host.ask("from_thread")[0]
    assert [line.message for line in host.logs()] == ["from a thread"]


def test_metrics_reach_the_host(start_plugin: StartPlugin) -> None:
    host = start_plugin(CALLER)
    host.load("Caller")
    host.ask("measure")
    metrics = [each for each in host.received if isinstance(each, Metric)]
    assert [(each.name, each.kind, each.value, each.tags) for each in metrics] == [
        ("rows", "counter", 3.0, {"table": "bill"}),
        ("depth", "gauge", 1.5, None),
        ("seconds", "histogram", 0.25, None),
    ]


# Logs


def test_the_logger_is_pythons_and_sends_level_message_fields_and_traceback(start_plugin: StartPlugin) -> None:
    host = start_plugin(
        """
        import logging
        from cardcage_sdk import Plugin

        class Talker(Plugin):
            def talk(self):
                self.logger.info("read %d rows", 3, extra={"file": "bill.csv", "odd": object})
                self.logger.debug("detail")
                logging.getLogger("library").warning("slow")
                try:
                    1 / 0
                except ZeroDivisionError:
                    self.context.logger.exception("failed")
                return isinstance(self.logger, logging.Logger)
        """
    )
    host.load("Talker")
    assert host.ask("talk") is True
    first, detail, library, failed = host.logs()
    assert (first.level, first.message) == ("info", "read 3 rows")
    assert host.session.decode(first.fields) == {"file": "bill.csv", "odd": "<class 'object'>"}
    assert detail.level == "debug"
    assert (library.level, host.session.decode(library.fields)) == ("warning", {"logger": "library"})
    assert failed.level == "error"
    assert "ZeroDivisionError" in host.session.decode(failed.fields)["traceback"]


def test_the_level_of_the_context_holds_back_what_is_below_it(start_plugin: StartPlugin) -> None:
    host = start_plugin(
        """
        from cardcage_sdk import Plugin

        class Talker(Plugin):
            def talk(self):
                self.logger.info("kept back")
                self.logger.warning("told")
        """
    )
    host.load("Talker", log_level="warning")
    host.ask("talk")
    assert [line.message for line in host.logs()] == ["told"]


# Events


LISTENER = """
    from cardcage_sdk import Plugin, on_event

    class Listener(Plugin):
        def initialize(self):
            self.seen = []
            self.context.event_bus.subscribe("cost.*", self._note)

        def _note(self, event_type, data):
            self.seen.append(["subscribed", event_type, data])

        @on_event("cost.spike")
        def spike(self, event_type, data):
            self.seen.append(["marked", event_type, data])
            if data == "bad":
                raise ValueError("bad event")

        def handle_event(self, event_type, data):
            self.seen.append(["handled", event_type, data])

        def drain(self):
            seen, self.seen = self.seen, []
            return seen

        def forget(self):
            self.context.event_bus.unsubscribe("cost.*", self._note)

        def tell(self):
            self.context.event_bus.publish("bill.read", {"rows": 3})
"""


def test_an_event_reaches_the_handler_the_marked_method_and_the_subscriber(start_plugin: StartPlugin) -> None:
    host = start_plugin(LISTENER)
    assert host.load("Listener")["events"] == ["cost.spike"]
    host.ask("cardcage.initialize")
    assert host.calls_seen == [("cardcage.subscribe", ["cost.*"])]
    host.ask("cardcage.handle_event", "cost.spike", {"usd": 5})
    everything = [[way, "cost.spike", {"usd": 5}] for way in ("handled", "marked", "subscribed")]
    assert host.ask("drain") == everything
    host.sock.sendall(host.session.event("cost.spike", {"usd": 5}))
    assert host.ask("drain") == everything
    host.sock.sendall(host.session.event("other", None))
    assert host.ask("drain") == [["handled", "other", None]]
    host.ask("forget")
    host.sock.sendall(host.session.event("cost.fall", None))
    assert host.ask("drain") == [["handled", "cost.fall", None]]


def test_a_handler_that_raises_is_an_error_of_the_call_or_a_line_in_the_log(start_plugin: StartPlugin) -> None:
    host = start_plugin(LISTENER)
    host.load("Listener")
    host.ask("cardcage.initialize")
    assert host.failure(host.call("cardcage.handle_event", ["cost.spike", "bad"])).data["message"] == "bad event"
    assert len(host.ask("drain")) == 3
    host.sock.sendall(host.session.event("cost.spike", "bad"))
    assert len(host.ask("drain")) == 3
    (line,) = host.logs()
    assert (line.level, "bad event" in line.message) == ("error", True)


def test_an_event_is_published_to_the_host(start_plugin: StartPlugin) -> None:
    host = start_plugin(LISTENER)
    host.load("Listener")
    host.ask("tell")
    event = host.wait_for(Event)
    assert (event.name, host.session.decode(event.data)) == ("bill.read", {"rows": 3})


# The end


ENDING = """
    import atexit, os
    from cardcage_sdk import Plugin

    def note(what):
        with open("notes", "a") as file:
            file.write(what + " ")

    atexit.register(note, "atexit")

    class Ending(Plugin):
        def stop(self):
            note("stop")

        def cleanup(self):
            note("cleanup")

        def stream(self):
            try:
                yield 1
                yield 2
            finally:
                note("finally")

        def ask_host(self):
            try:
                self.context.api_client.call("host.wait")
            finally:
                note("finally")
"""


def test_after_the_goodbye_no_code_of_the_plugin_runs(start_plugin: StartPlugin) -> None:
    host = start_plugin(ENDING)
    host.load("Ending")
    assert host.ask("cardcage.stop") is True
    assert host.ask("cardcage.cleanup") is True
    call_id = host.call("stream", credit=1)
    host.wait_for_items(call_id, 1)
    assert host.dismiss() == 0
    assert (host.package / "notes").read_text() == "stop cleanup "
    assert host.wait_for(Error).code == "unavailable"
    assert isinstance(host.received[-1], Goodbye)


def test_a_goodbye_reaches_a_plugin_that_waits_for_the_host(start_plugin: StartPlugin) -> None:
    host = start_plugin(ENDING)
    host.services["host.wait"] = host.later
    host.load("Ending")
    host.call("ask_host")
    host.wait_until(lambda: host.calls_seen or None)
    assert host.dismiss() == 0
    assert not (host.package / "notes").exists()


def test_the_end_of_the_connection_is_the_end_of_the_process(start_plugin: StartPlugin) -> None:
    host = start_plugin(ENDING)
    host.load("Ending")
    host.sock.close()
    assert host.process.wait(20) == 0
    assert not (host.package / "notes").exists()


def test_an_interrupt_from_the_terminal_is_left_to_the_host(start_plugin: StartPlugin) -> None:
    host = start_plugin(GREETER)
    host.load("Polite")
    host.process.send_signal(signal.SIGINT)
    assert host.ask("greet", "Ada") == "Good day, Ada."
