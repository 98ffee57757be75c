"""What every room of the server stands on, and none of it knows of tunnels: the store's thread, the engine's events,
the data directory, the machine's limits."""
