"""What SCORES are worth: METRICS, CELLS and PAIRS."""
