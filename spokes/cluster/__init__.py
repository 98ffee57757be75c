"""What nodes of a cluster must agree on, sans-I/O: positions, digests, signatures, batches, snapshots, and decisions.

Nothing here opens a socket, reads a clock or knows SQL. The store (spokes/store/) keeps a position and a digest by
these rules; who carries batches between nodes asks here what to answer.
"""
