"""Sweeps: many designs simulated, kept and compared.

`space` says which points there are, `evaluation` what one of them is, `store` keeps what was found, `run` drives the
evaluation through any executor, and `report` shows the trade-offs.
"""
