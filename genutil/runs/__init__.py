"""The files of runs: folders of reports and checkpoints, what earlier runs left, records of wirings."""
