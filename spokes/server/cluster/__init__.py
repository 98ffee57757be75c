"""The cluster's I/O: what a node answers to the others."""
