"""Links between the nodes of a cluster: who is on-line where, and the way there for visitors."""
