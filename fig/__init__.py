"""Pictures and tables of runs.

Programs that train: `quickstart`, `demo`, `results` (with `train_app`, `results_page`). Readers:
`finished_runs`, `recorded_wiring`, `paper_results`. The others draw and write.
"""
