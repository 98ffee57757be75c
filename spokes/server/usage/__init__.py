"""Usage of the server by visitors: access records, traffic, and the bandwidth that users may have."""
