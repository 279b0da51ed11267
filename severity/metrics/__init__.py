"""From decisions to numbers: every metric, and everything one run's predictions say."""
