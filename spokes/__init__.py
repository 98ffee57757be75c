"""Spokes: a self-hosted tunnel server."""

__version__ = "0.1.0"
