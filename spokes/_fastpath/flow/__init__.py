"""What joins two ends: HTTP exchanges, raw flows, datagrams, files."""
