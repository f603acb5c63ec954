"""The spellings of the lifecycle, each on the example that introduced it: only the import lines differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import StartPlugin

# The context-and-async-lifecycle spelling

MY_PLUGIN = """
    from cardcage_sdk.plugins import BasePlugin, PluginMetadata, PluginContext

    class MyPlugin(BasePlugin):
        def get_metadata(self) -> PluginMetadata:
            return PluginMetadata(
                name="my-plugin",
                version="1.0.0",
                description="Example plugin",
                author="Developer Name",
                license="MIT"
            )

        async def initialize(self) -> bool:
            self.context.logger.info("Initializing my-plugin")
            # Setup plugin resources
            return True

        async def start(self) -> bool:
            self.context.logger.info("Starting my-plugin")
            # Start plugin services
            return True

        async def stop(self) -> bool:
            self.context.logger.info("Stopping my-plugin")
            # Stop plugin services
            return True

        async def cleanup(self) -> bool:
            self.context.logger.info("Cleaning up my-plugin")
            # Cleanup resources
            return True
"""


def test_my_plugin_lives_its_life(start_plugin: StartPlugin) -> None:
    host = start_plugin(MY_PLUGIN)
    told = host.load("MyPlugin")
    assert told["style"] == "base_plugin"
    assert told["methods"] == []
    assert told["metadata"] == {
        "name": "my-plugin",
        "version": "1.0.0",
        "description": "Example plugin",
        "author": "Developer Name",
        "license": "MIT",
    }
    for step, status in (
        ("initialize", "loaded"),
        ("start", "active"),
        ("stop", "inactive"),
        ("cleanup", "unloaded"),
    ):
        assert host.ask(f"cardcage.{step}") is True
        assert host.ask("cardcage.health_check")["status"] == status
    assert [line.message for line in host.logs()] == [
        "Initializing my-plugin",
        "Starting my-plugin",
        "Stopping my-plugin",
        "Cleaning up my-plugin",
    ]
    assert {line.level for line in host.logs()} == {"info"}


def test_the_health_of_a_base_plugin_is_measured(start_plugin: StartPlugin) -> None:
    host = start_plugin(
        """
        from cardcage_sdk import BasePlugin

        class Worker(BasePlugin):
            async def work(self):
                raise ValueError("no work")
        """
    )
    host.load("Worker")
    assert host.ask("cardcage.health_check")["uptime"] is None
    host.ask("cardcage.initialize")
    host.ask("cardcage.start")
    host.failure(host.call("work"))
    health = host.ask("cardcage.health_check")
    assert (health["status"], health["error_count"]) == ("active", 1)
    assert health["uptime"] >= 0
    assert 2**20 < health["memory_usage"] < 2**30


@pytest.mark.parametrize(("method", "body"), [("start", "return False"), ("initialize", "raise OSError('no disk')")])
def test_a_step_that_fails_is_the_status_error(start_plugin: StartPlugin, method: str, body: str) -> None:
    host = start_plugin(
        f"from cardcage_sdk import BasePlugin\nclass Bad(BasePlugin):\n    async def {method}(self):\n        {body}\n"
    )
    host.load("Bad")
    call_id = host.call(f"cardcage.{method}")
    if "raise" in body:
        assert host.failure(call_id).message == 'method "initialize" raised OSError: no disk'
    else:
        assert host.answer(call_id) is False
    assert host.ask("cardcage.health_check")["status"] == "error"


BITCOIN = """
    from typing import Dict, Any
    from cardcage_sdk import BlockchainPlugin, PluginMetadata

    # Example blockchain plugin
    class BitcoinPlugin(BlockchainPlugin):
        def get_metadata(self) -> PluginMetadata:
            return PluginMetadata(
                name="bitcoin-integration",
                version="1.0.0",
                description="Bitcoin blockchain integration",
                author="AITBC Team",
                license="MIT"
            )

        async def connect(self, config: Dict[str, Any]) -> bool:
            # Connect to Bitcoin node
            return True
"""


def test_a_blockchain_plugin_offers_what_it_defines_and_no_more(start_plugin: StartPlugin) -> None:
    host = start_plugin(BITCOIN)
    assert [method["name"] for method in host.load("BitcoinPlugin")["methods"]] == ["connect"]
    assert host.ask("cardcage.initialize") is True
    assert host.ask("cardcage.start") is True
    assert host.ask("connect", {"rpc_url": "http://127.0.0.1:8332"}) is True
    assert host.failure(host.call("get_balance", ["x"])).code == "method_not_found"
    assert host.failure(host.call("connect", ["x"])).data["expected"] == "object"


TRANSLATION = """
    from typing import List, Dict, Any
    from cardcage_sdk import AIPlugin, PluginMetadata

    # Example AI plugin
    class TranslationAIPlugin(AIPlugin):
        def get_metadata(self) -> PluginMetadata:
            return PluginMetadata(
                name="translation-ai",
                version="1.0.0",
                description="AI-powered translation service",
                author="AITBC Team",
                license="MIT"
            )

        async def predict(self, input_data: Dict[str, Any]) -> Dict[str, Any]:
            # Translate text
            return {"translated_text": "Translated text"}
"""


def test_an_ai_plugin_predicts(start_plugin: StartPlugin) -> None:
    host = start_plugin(TRANSLATION)
    host.load("TranslationAIPlugin")
    assert host.ask("predict", {"text": "Guten Tag"}) == {"translated_text": "Translated text"}


AGENT_CLI = """
    import click
    from click import Group
    from typing import List
    from cardcage_sdk import CLIPlugin, PluginMetadata

    # Example CLI plugin
    class AgentCLIPlugin(CLIPlugin):
        def get_metadata(self) -> PluginMetadata:
            return PluginMetadata(
                name="agent-cli",
                version="1.0.0",
                description="Agent management CLI commands",
                author="AITBC Team",
                license="MIT",
                keywords=["cli", "agent", "management"]
            )

        def get_commands(self) -> List[Group]:
            @click.group()
            def agent():
                \"\"\"Agent management commands\"\"\"
                pass

            @agent.command()
            @click.option('--name', required=True, help='Agent name')
            def create(name):
                \"\"\"Create a new agent\"\"\"
                click.echo(f"Creating agent: {name}")

            return [agent]
"""


def test_a_cli_plugin_tells_its_help(start_plugin: StartPlugin) -> None:
    pytest.importorskip("click")
    host = start_plugin(AGENT_CLI)
    told = host.load("AgentCLIPlugin")
    assert told["metadata"]["keywords"] == ["cli", "agent", "management"]
    assert host.ask("get_command_help") == "agent: Agent management commands"


# The load/validate/capabilities/shutdown spelling

CLOUDMIND = """
    class Collector:
        def load(self, config: dict) -> None:
            self.log = ["load"]
            self.endpoint = config.get("endpoint")

        def validate(self) -> bool:
            self.log.append("validate")
            return self.endpoint is not None

        def capabilities(self) -> dict:
            return {"metrics": ["cpu"]}

        def shutdown(self) -> None:
            self.log.append("shutdown")

        def history(self) -> list:
            return self.log
"""


def test_a_class_with_the_four_methods_needs_no_base(start_plugin: StartPlugin) -> None:
    host = start_plugin(CLOUDMIND)
    told = host.load("Collector", config={"endpoint": "here"})
    assert told["style"] == "cloudmind_plugin"
    assert told["capabilities"] == {"metrics": ["cpu"]}
    assert [method["name"] for method in told["methods"]] == ["history"]
    assert host.ask("cardcage.initialize") is True
    assert host.ask("cardcage.start") is True
    assert host.ask("cardcage.stop") is True
    assert host.ask("cardcage.cleanup") is True
    assert host.ask("history") == ["load", "validate", "shutdown"]


def test_a_plugin_that_does_not_validate_is_not_initialized(start_plugin: StartPlugin) -> None:
    host = start_plugin(CLOUDMIND)
    host.load("Collector")
    assert host.ask("cardcage.initialize") is False
    assert host.ask("cardcage.health_check")["status"] == "error"


def test_the_base_class_of_the_spelling_needs_only_what_differs(start_plugin: StartPlugin) -> None:
    host = start_plugin(
        """
        from cardcage_sdk import CloudMindPlugin, CloudMindPluginBase

        class CostAwareDownsizer(CloudMindPluginBase):
            def load(self, config: dict) -> None:
                self.threshold = config.get("cpu_threshold", 25)

            def analyze(self, resource, metrics: dict):
                return ["downsize"] if metrics.get("cpu_usage") < self.threshold else []

            def satisfies(self):
                return isinstance(self, CloudMindPlugin)
        """
    )
    host.load("CostAwareDownsizer")
    assert host.ask("cardcage.initialize") is True
    assert host.ask("analyze", {"id": "i-1"}, {"cpu_usage": 10}) == ["downsize"]
    assert host.ask("satisfies") is True


# The tools/resources/status spelling

EKS = """
    from cardcage_sdk import PluginBase, tool

    class EKSPlugin(PluginBase):
        PLUGIN_TYPE = "eks"
        PLUGIN_NAME = "Amazon EKS"

        def _discover_clusters(self):
            self.clusters = {"c-1": ["pod-a"]}

        def initialize(self):
            self._discover_clusters()
            return True

        def get_tools(self):
            @tool
            def eks_get_pods(cluster_id: str = None):
                "List the pods of a cluster."
                return self.clusters.get(cluster_id, [])

            def eks_count() -> int:
                return len(self.clusters)

            return [eks_get_pods, eks_count]
"""


def test_an_eks_plugin_offers_its_tools(start_plugin: StartPlugin) -> None:
    host = start_plugin(EKS)
    told = host.load("EKSPlugin", config={"name": "prod", "region": "eu-west-1"})
    assert told["style"] == "plugin_base"
    assert told["metadata"] == {"type": "eks", "title": "Amazon EKS", "description": "", "icon": ""}
    assert [method["name"] for method in told["methods"]] == ["get_resources", "get_status_summary"]
    pods, count = told["tools"]
    assert (pods["name"], pods["description"], count["name"]) == (
        "eks_get_pods",
        "List the pods of a cluster.",
        "eks_count",
    )
    assert pods["parameters"]["properties"]["cluster_id"]["anyOf"] == [{"type": "string"}, {"type": "null"}]
    assert host.ask("cardcage.initialize") is True
    assert host.ask("cardcage.start") is True
    assert host.ask("cardcage.tool", "eks_get_pods", {"cluster_id": "c-1"}) == ["pod-a"]
    assert host.ask("cardcage.tool", "eks_count", {}) == 1
    assert host.ask("get_status_summary") == {
        "type": "eks",
        "name": "Amazon EKS",
        "cluster": "prod",
        "resources": 0,
        "status": "healthy",
    }
    assert host.ask("cardcage.health_check")["status"] == "healthy"


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        ("cluster: ClusterConfig", ["c-1", "prod", "eu-west-1", "eks", {"nodes": 3}]),
        ("config", ["c-1", "prod", "eu-west-1", "eks", {"nodes": 3}]),
    ],
)
def test_the_cluster_is_passed_to_the_constructor(
    start_plugin: StartPlugin, parameter: str, expected: list[object]
) -> None:
    host = start_plugin(
        f"""
        from dataclasses import astuple
        from cardcage_sdk import ClusterConfig, PluginBase

        class Eks(PluginBase):
            def __init__(self, {parameter}):
                self.given = {parameter.partition(":")[0]}

            def get(self):
                return list(astuple(self.given))
        """
    )
    cluster = {"cluster_id": "c-1", "name": "prod", "region": "eu-west-1", "plugin_type": "eks", "config": {"nodes": 3}}
    host.load("Eks", config=cluster)
    assert host.ask("get") == expected


def test_a_map_is_passed_to_a_constructor_that_asks_for_one(start_plugin: StartPlugin) -> None:
    host = start_plugin(
        """
        from cardcage_sdk import PluginBase

        class Eks(PluginBase):
            def __init__(self, config: dict):
                self.region = config["region"]

            def get(self):
                return self.region
        """
    )
    host.load("Eks", config={"region": "eu-west-1"})
    assert host.ask("get") == "eu-west-1"


def test_async_tools_are_found_and_served_by_an_event_loop(start_plugin: StartPlugin) -> None:
    host = start_plugin(
        """
        import asyncio
        from cardcage_sdk import PluginBase, tool

        class Late(PluginBase):
            def get_tools(self):
                @tool
                async def wait(number: int):
                    await asyncio.sleep(0)
                    return number
                return [wait]
        """
    )
    host.load("Late")
    assert host.ask("cardcage.tool", "wait", {"number": 3}) == 3


# Functions with a hook

ANOMALIES = """
    from cardcage_sdk import current_context, hook

    def trigger_alert(name):
        current_context().api_client.finops.alerts.trigger(name)

    @hook('post_cost_analysis')
    def detect_anomalies(context):
        if context.daily_spike > 0.25:
            trigger_alert('CostSpikeDetected')
"""


def test_a_function_with_a_hook_reaches_the_hosts_alerts(start_plugin: StartPlugin) -> None:
    host = start_plugin(anomalies=ANOMALIES)
    alerts: list[str] = []
    host.services["finops.alerts.trigger"] = alerts.append
    told = host.load(file="anomalies.py")
    assert told["hooks"] == [{"name": "post_cost_analysis", "method": "detect_anomalies", "priority": 50}]
    for spike in (0.2, 0.3):
        assert host.ask("cardcage.hook", "post_cost_analysis", "detect_anomalies", {"daily_spike": spike}) is None
    assert alerts == ["CostSpikeDetected"]


# Cardcage's own spelling


def test_a_plugin_without_lifecycle_methods_lives_all_the_same(start_plugin: StartPlugin) -> None:
    host = start_plugin("from cardcage_sdk import Plugin\nclass P(Plugin):\n    def work(self): return self.config\n")
    host.load("P", config={"a": 1})
    for step in ("initialize", "start", "stop", "cleanup"):
        assert host.ask(f"cardcage.{step}") is True
    assert host.ask("cardcage.handle_event", "any", {}) is None
    assert host.ask("work") == {"a": 1}


@pytest.mark.parametrize(
    ("answer", "status"), [("None", "active"), ("True", "active"), ("False", "error"), ("{'status': 'tired'}", "tired")]
)
def test_a_health_check_may_answer_with_a_word_or_a_map(start_plugin: StartPlugin, answer: str, status: str) -> None:
    host = start_plugin(
        f"from cardcage_sdk import Plugin\nclass P(Plugin):\n    def health_check(self): return {answer}\n"
    )
    host.load("P")
    host.ask("cardcage.start")
    health = host.ask("cardcage.health_check")
    assert health["status"] == status
    assert health["memory_usage"] > 0


def test_context_and_config_are_there_before_the_constructor_runs(start_plugin: StartPlugin) -> None:
    host = start_plugin(
        """
        from cardcage_sdk import Plugin

        class P(Plugin):
            def __init__(self):
                self.logger.info("made")
                self.seen = [self.config["a"], self.context.data_dir, self.context.temp_dir, self.context.instance]

            def get(self):
                return self.seen
        """
    )
    host.load("P", config={"a": 1})
    assert host.ask("get") == [1, str(host.package / "data"), str(host.package / "temp"), "polite"]
    assert host.logs()[0].message == "made"
