"""Handlers of the API: plain functions, one module for each noun. routes.py says which one serves which path."""
