"""Training and evaluation: the loop, what watches it, schedules, optimizers, metrics."""
