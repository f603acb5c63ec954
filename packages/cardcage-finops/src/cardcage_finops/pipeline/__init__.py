"""From a bill to findings: exact aggregation (pure), and the run that drives the plugins around it."""
