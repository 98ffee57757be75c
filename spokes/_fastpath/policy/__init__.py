"""What a site asks of a request before it is passed on; each kind of policy is a file."""
