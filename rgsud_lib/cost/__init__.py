"""What work cost: seconds on which machine, measured by the stages themselves and kept in their bundles.

A bundle's digests know nothing of it. Money comes in when it is shown: prices change, seconds do not.
"""
