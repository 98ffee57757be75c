"""Integer types, memory, timers, queues and tables: what every other room stands on."""
