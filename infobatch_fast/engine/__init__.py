"""The engine: scores, plans and their bookkeeping. Only this package imports it; users import from ``infobatch_fast``."""
