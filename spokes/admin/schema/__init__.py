"""Requests and answers as msgspec structs, one module for each noun. They validate, and the OpenAPI is made of them."""
