"""What the API does: plain functions, one module a noun. routes.py says which answers what."""
