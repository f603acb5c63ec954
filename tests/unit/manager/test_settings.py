"""The host configuration: read whole, refused whole, with every fault named."""

from __future__ import annotations

from pathlib import Path

import pytest

from cardcage import InvalidDocument
from cardcage.manager.settings import read_settings


def test_every_key_is_read() -> None:
    settings = read_settings(
        {
            "plugins": {
                "agent-cli": {"enabled": True, "priority": 10, "config": {"max_agents": 100}, "dependencies": ["base"]},
                "translation-ai": {"enabled": False},
            },
            "plugin_paths": ["./plugins"],
            "auto_load": False,
            "health_check_interval": 60,
        }
    )
    agent = settings.of("agent-cli")
    assert (agent.enabled, agent.priority, agent.config) == (True, 10, {"max_agents": 100})
    assert agent.dependencies == ("base",)
    assert settings.of("translation-ai").enabled is False
    assert settings.of("unknown").enabled is True
    assert settings.plugin_paths == (Path("plugins"),)
    assert settings.auto_load is False
    assert settings.health_check_interval_s == 60


def test_every_fault_is_reported_at_once_with_its_path() -> None:
    with pytest.raises(InvalidDocument) as error:
        read_settings(
            {
                "plugins": {"a": {"priority": 500}, "b": {"enabled": "yes", "isolation": "none"}},
                "auto_laod": True,
                "health_check_interval": 0,
            }
        )
    paths = {fault.path for fault in error.value.faults}
    assert {"plugins.a.priority", "plugins.b.enabled", "plugins.b.isolation", "health_check_interval"} <= paths
    assert len(error.value.faults) >= 6
    assert "auto_laod" in str(error.value)
