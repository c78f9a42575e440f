"""What exists: hardware files, their models, and the cost library."""
