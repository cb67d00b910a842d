"""Training one fold."""
