"""Showing an analysis: as JSON, in a terminal, and as one HTML file."""
