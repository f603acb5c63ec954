"""Behaviours of several steps, some of them the host's own."""
