"""`hook` and `trigger_alert`, for plugins that take part in a cost analysis.

A function marked `@hook("post_cost_analysis")` gets an `AnalysisContext` where its parameter is annotated so, else a
map with the same names as attributes: `context.daily_spike`.
"""

from __future__ import annotations

from typing import Any

from cardcage_sdk import current_context
from cardcage_sdk import hook as hook

POST_COST_ANALYSIS = "post_cost_analysis"
"""Runs after each analysis, before its report; handed an `AnalysisContext`."""


def trigger_alert(name: str, **details: Any) -> Any:
    """Raise an alert through the host, which reports it with the analysis.

    Needs the capability `AlertManagement`. Returns what the host answers.
    """
    return current_context().api_client.call("alerts.trigger", name, details)
