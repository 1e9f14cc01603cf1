"""Dense baselines."""
