"""What people look at: the HTML page of a run, and the contact sheet."""
