"""From models to SCORES."""
