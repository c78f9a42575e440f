"""Show a run: in a terminal, and as one self-contained HTML file."""
