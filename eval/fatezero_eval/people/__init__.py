"""What people prefer: studies that show pairs of edits, and what the answers say."""
