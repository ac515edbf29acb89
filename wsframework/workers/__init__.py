"""Several processes that serve one App from one port: a parent that supervises, and its workers.

Theory of operation
-------------------
    parent    binds the sockets, starts the workers and never imports the App. It replaces a worker that has
              died or hangs, and all of them, one after the other, when it is asked to
    worker    a new interpreter that inherits the sockets; it imports the App and serves as one process does
    channel   a socketpair between the parent and each worker: what to do, and how it went
    page      memory that all of them share: one slot of counters for each worker

A worker obeys its channel. When the parent is gone, the channel ends, and so do the workers: none of them
keeps the port. Nothing here is imported by a server that runs in one process.
"""
