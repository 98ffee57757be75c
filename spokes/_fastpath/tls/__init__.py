"""TLS by libssl: certificates, contexts, ClientHellos; never touches a socket."""
