"""Runs side by side: what was set differently, which is better and how sure that is, what they make of the same images,
what they cost. A run is known by its evaluation: the bundle that names all it was made from.
"""
