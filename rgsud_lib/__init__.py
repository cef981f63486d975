"""RGSUD: unpaired image deraining by reward-guided self-reinforcement (arXiv 2605.00719)."""

__version__ = "0.1.0"
