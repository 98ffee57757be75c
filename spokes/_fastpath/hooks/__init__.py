"""Test hooks: engine functions that tests and benchmarks call from Python."""
