"""What Python calls of the engine, by subject; `engine` joins it, and is what Python imports."""
