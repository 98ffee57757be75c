"""Command lines: `spokes` for servers, `spoke` for clients."""
