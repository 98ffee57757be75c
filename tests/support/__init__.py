"""Stand-ins and tools that several tests use."""
