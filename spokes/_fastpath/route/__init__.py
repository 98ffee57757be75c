"""The immutable route table and what it points at."""
