"""Data sets. Small ones are one tensor in memory; their batches are made on the device."""
