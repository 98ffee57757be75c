"""What travels: requests and answers as msgspec structs, one module a noun. They validate, and they are the OpenAPI."""
