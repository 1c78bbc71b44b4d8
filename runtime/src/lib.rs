//! Does it: clocks, sockets, threads, partition store, client and local cluster.
