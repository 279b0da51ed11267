"""What every other folder builds on: errors, files, params, runs, the label hierarchy. It imports no other folder."""
