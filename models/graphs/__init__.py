"""Networks that are graphs: a node is one channel, an edge one scalar weight."""
