"""The networks that metrics look through, and the arrays they return."""
