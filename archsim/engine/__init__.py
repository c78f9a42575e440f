"""Builds the netlist of a platform, executes it, and turns what happened into a result."""
