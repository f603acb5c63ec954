"""Plugins written for other platforms of this shape run here with nothing changed but their import lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cardcage import PluginManager
from cardcage.supervise import PluginState
from cardcage_finops.models import CloudResource, OptimizationRecommendation

WritePlugin = Callable[..., Path]

COST_AWARE_DOWNSIZER = """
    from cardcage_finops.interfaces import OptimizerPluginBase
    from cardcage_finops.models import CloudResource, OptimizationRecommendation

    class CostAwareDownsizer(OptimizerPluginBase):
        def load(self, config: dict) -> None:
            self.threshold = config.get("cpu_threshold", 25)

        def analyze(self, resource: CloudResource, metrics: dict) -> list[OptimizationRecommendation]:
            recs = []
            cpu = metrics.get("cpu_usage")
            if cpu is not None and cpu < self.threshold:
                recs.append(OptimizationRecommendation(
                    resource_id=resource.id,
                    resource_name=resource.name,
                    provider=resource.provider,
                    action="downsize",
                    reason=f"CPU {cpu}% < {self.threshold}%",
                    estimated_savings=42.0,
                    confidence=0.8,
                ))
            return recs
"""

EC2_OPTIMIZER = """
    from cardcage_finops.optimizers import BaseOptimizer
    from cardcage_finops.models import OptimizationRecommendation

    class EC2Optimizer(BaseOptimizer):
        def analyze(self, instances):
            return [self._check_rightsizing(i) for i in instances]

        def _check_rightsizing(self, instance):
            return OptimizationRecommendation(
                resource_id=instance.id,
                resource_name=instance.name,
                provider=instance.provider,
                action="downsize",
                reason="always",
                estimated_savings=1.5,
                confidence=0.5,
            )
"""

ANOMALY_HOOK = """
    from cardcage_finops.hooks import hook, trigger_alert

    @hook('post_cost_analysis')
    def detect_anomalies(context):
        if context.daily_spike > 0.25:
            trigger_alert('CostSpikeDetected')
"""

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

EKS_PLUGIN = """
    from cardcage_sdk import PluginBase, tool

    class EKSPlugin(PluginBase):
        PLUGIN_TYPE = "eks"
        PLUGIN_NAME = "Amazon EKS"

        def initialize(self):
            self._discover_clusters()
            return True

        def _discover_clusters(self):
            self.pods = {"c-1": ["web-0", "web-1"]}

        def get_tools(self):
            @tool
            def eks_get_pods(cluster_id: str = None):
                return self.pods[cluster_id]
            return [eks_get_pods]
"""


async def test_cloudminds_downsizer(write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path) -> None:
    write_plugin(
        "my-optimizer",
        COST_AWARE_DOWNSIZER,
        entry="my_optimizer:CostAwareDownsizer",
        manifest={"plugin_type": "optimizer"},
    )
    config = {"plugins": {"my-optimizer": {"enabled": True, "config": {"cpu_threshold": 30}}}}
    async with PluginManager(config, plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
        assert manager.problems() == []
        resource = {"id": "i-1", "name": "web", "provider": "aws"}
        (recommendation,) = await manager.call("my-optimizer", "analyze", resource, {"cpu_usage": 12})
        assert recommendation["resource_id"] == "i-1"
        assert recommendation["reason"] == "CPU 12% < 30%"
        assert await manager.call("my-optimizer", "analyze", resource, {"cpu_usage": 40}) == []


async def test_cloudsages_optimizer(write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path) -> None:
    folder = write_plugin("ec2-rightsizer", EC2_OPTIMIZER)
    (folder / "ec2_rightsizer.py").rename(folder / "optimizer.py")
    (folder / "plugin.yaml").unlink()
    (folder / "manifest.yaml").write_text(
        "name: ec2-rightsizer\nversion: 1.0.0\nentry_point: optimizer.py\ntype: optimizer\ncloud: aws\n"
        "resource_types:\n  - ec2\npermissions:\n  - ReadInstanceMetrics\n"
    )
    grants = {"ec2-rightsizer": ["capability:ReadInstanceMetrics"]}
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir, grants=grants) as manager:
        assert manager.problems() == []
        instances = [{"id": f"i-{number}", "name": "web", "provider": "aws"} for number in range(2)]
        found = await manager.call("ec2-rightsizer", "analyze", instances)
        assert [one["resource_id"] for one in found] == ["i-0", "i-1"]


@pytest.mark.parametrize(("spike", "alerts"), [(0.3, 1), (0.2, 0)])
async def test_cloudsages_anomaly_hook(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path, spike: float, alerts: int
) -> None:
    write_plugin(
        "cost-anomaly",
        ANOMALY_HOOK,
        entry="cost_anomaly.py",
        manifest={"type": "integration", "permissions": ["AlertManagement"]},
    )
    raised: list[str] = []

    def trigger(caller: object, name: str, details: object) -> None:
        raised.append(name)

    manager = PluginManager(
        plugin_paths=[plugins_dir],
        state_dir=state_dir,
        grants={"cost-anomaly": ["capability:AlertManagement"]},
    )
    manager.register_service("alerts.trigger", trigger, capability="AlertManagement")
    async with manager:
        assert manager.problems() == []
        outcome = await manager.run_hook("post_cost_analysis", {"daily_spike": spike})
        assert [step.error for step in outcome.steps] == [None]
        assert raised == ["CostSpikeDetected"] * alerts


async def test_aitbcs_plugin_passes_its_whole_lifecycle(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("my-plugin", MY_PLUGIN, entry="my_plugin:MyPlugin")
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
        assert manager.problems() == []
        health = await manager.get_instance_health("my-plugin")
        assert (health["status"], health["plugin"]["status"]) == ("active", "active")
        await manager.stop_plugin("my-plugin")
        assert (await manager.get_instance_health("my-plugin"))["plugin"]["status"] == "inactive"
        await manager.start_plugin("my-plugin")
        lines = [line.text for line in manager.logs("my-plugin")]
        assert lines[:4] == [
            "Initializing my-plugin",
            "Starting my-plugin",
            "Stopping my-plugin",
            "Starting my-plugin",
        ]
        await manager.unload_plugin("my-plugin")
        assert manager.get_plugin_status("my-plugin") is PluginState.UNLOADED


async def test_metadata_in_code_that_contradicts_the_manifest_is_refused(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("my-plugin", MY_PLUGIN.replace('"1.0.0"', '"2.0.0"'), entry="my_plugin:MyPlugin")
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
        (problem,) = manager.problems()
        assert problem.error.code == "contract_broken"
        assert "2.0.0" in str(problem)


async def test_the_aws_documents_pattern(write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path) -> None:
    write_plugin("eks", EKS_PLUGIN, entry="eks:EKSPlugin")
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
        assert manager.problems() == []
        (tool,) = await manager.tools()
        assert (tool.name, tool.plugin.name) == ("eks_get_pods", "eks")
        assert tool.parameters["properties"]["cluster_id"]
        assert await manager.call_tool("eks_get_pods", {"cluster_id": "c-1"}) == ["web-0", "web-1"]


def test_the_documents_models_take_what_their_examples_give() -> None:
    resource = CloudResource(id="i-1", name="web", provider="aws")
    recommendation = OptimizationRecommendation(
        resource_id=resource.id,
        resource_name=resource.name,
        provider=resource.provider,
        action="downsize",
        reason="idle",
        estimated_savings=42.0,  # type: ignore[arg-type]
        confidence=0.8,
    )
    assert recommendation.action == "downsize"
