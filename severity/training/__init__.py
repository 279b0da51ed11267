"""Training one run: optimiser, schedule, checkpoints."""
