"""What came of asking an upstream: the module that has Fault as a Python enumeration, for the engine's Python side."""
