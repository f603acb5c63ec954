"""The extension points, as the host takes them from their Protocols."""

from __future__ import annotations

import pytest

from cardcage.contracts import extension_point_of
from cardcage_finops import interfaces
from cardcage_finops.extension_points import EXTENSION_POINTS, PLUGIN_TYPES

BASES = {
    "cost_source@1": interfaces.CostSourcePlugin,
    "metrics_collector@1": interfaces.MetricsCollectorPlugin,
    "optimizer@1": interfaces.OptimizerPluginBase,
    "policy@1": interfaces.PolicyModulePlugin,
    "notification_channel@1": interfaces.NotificationChannelPlugin,
    "anomaly_detector@1": interfaces.AnomalyDetectorPlugin,
    "resource_scanner@1": interfaces.ResourceScanner,
}


def test_there_is_a_base_class_for_each_extension_point() -> None:
    assert {str(extension_point_of(point).ref) for point in EXTENSION_POINTS} == set(BASES)


@pytest.mark.parametrize("point", EXTENSION_POINTS)
def test_a_base_class_has_every_method_of_its_extension_point(point: type) -> None:
    described = extension_point_of(point)
    base = BASES[str(described.ref)]
    assert [name for name in described.methods if not callable(getattr(base, name, None))] == []


@pytest.mark.parametrize("point", EXTENSION_POINTS)
def test_an_extension_point_has_a_json_schema_and_its_streams_are_streams(point: type) -> None:
    described = extension_point_of(point)
    assert described.json_schema()
    streams = {name for name, method in described.methods.items() if method.stream}
    assert streams == {"cost_source@1": {"read"}, "resource_scanner@1": {"scan"}}.get(
        str(described.ref), {"collect", "summarize"} if "metrics" in str(described.ref) else set[str]()
    )


def test_every_plugin_type_stands_for_an_extension_point_that_exists() -> None:
    assert set(PLUGIN_TYPES.values()) == set(BASES)
