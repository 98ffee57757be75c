"""A worker's loop, its sockets, and what an end is."""
