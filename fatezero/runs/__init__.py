"""Run folders: which edits, in which order, by whom, and what has become of them."""
