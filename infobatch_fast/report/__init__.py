"""``python -m infobatch_fast report``: what a run of JSON lines kept and saved, as a picture or a page."""
