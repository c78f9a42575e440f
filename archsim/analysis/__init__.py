"""Explain a run: where its energy, time and bits went."""
