"""Measurements of infobatch_fast against what people would use instead: ``python -m infobatch_fast bench``.

Nothing in the package imports this.
"""
