"""Data sets. Those that fit into memory live there as one tensor; their batches are made on the device."""
