"""From CLIPS to models."""
