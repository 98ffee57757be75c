"""Certificates: made, found in folders, and shown by name; the keys of TLS tickets."""
