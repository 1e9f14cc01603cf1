"""What any experiment needs: configuration, command line, checkpoints, devices, reports."""
