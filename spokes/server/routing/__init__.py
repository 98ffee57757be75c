"""From the change log to what the engine serves: routes, listeners and ports."""
