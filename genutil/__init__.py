"""Infrastructure of experiments: configuration, checkpoints, processes, run folders."""
