"""HTTP/1.1 and what a file's answer needs, sans-io."""
