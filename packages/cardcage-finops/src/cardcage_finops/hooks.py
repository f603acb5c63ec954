"""`hook` and `trigger_alert`, for plugins that take part in a cost analysis."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import msgspec
from cardcage_sdk import current_context
from cardcage_sdk import hook as sdk_hook

from cardcage_finops.models import AnalysisContext

POST_COST_ANALYSIS = "post_cost_analysis"
"""Runs after each analysis, before its report; handed an `AnalysisContext`."""


def hook(name: str, priority: int = 50) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Mark a function or method as a step of the hook `name`; lower priorities run first.

    A step of `post_cost_analysis` gets an `AnalysisContext`, whatever form it crossed the wire in.
    """

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        typed = _with_analysis_context(function) if name == POST_COST_ANALYSIS else function
        return sdk_hook(name, priority=priority)(typed)

    return mark


def trigger_alert(name: str, **details: Any) -> Any:
    """Raise an alert through the host, which routes it to its notification channels.

    Needs the capability `AlertManagement`. Returns what the host answers.
    """
    return current_context().api_client.call("alerts.trigger", name, details)


def _with_analysis_context(function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def async_step(*args: Any) -> Any:
            return await function(*args[:-1], _typed(args[-1]))

        return async_step

    @wraps(function)
    def step(*args: Any) -> Any:
        return function(*args[:-1], _typed(args[-1]))

    return step


def _typed(context: Any) -> Any:
    return msgspec.convert(context, AnalysisContext) if isinstance(context, Mapping) else context
