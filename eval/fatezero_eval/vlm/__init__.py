"""Judges that look: questions about an edit, put to vision-language models, and what is made of their answers."""
