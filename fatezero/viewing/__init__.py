"""What a person sees of an edit: its pictures and videos on disk, its page in a notebook."""
