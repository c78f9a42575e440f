"""Proof against references: closed forms of published models, beside what archsim simulates."""
