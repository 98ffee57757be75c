"""Whom the server tells of what: alerts and the checks that raise them, webhooks, e-mail."""
