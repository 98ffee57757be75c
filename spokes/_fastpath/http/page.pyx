"""Pages: the module that has PageId as a Python enumeration, for the engine's Python side."""
