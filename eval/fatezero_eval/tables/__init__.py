"""From rows to means with their uncertainty, and leaderboards."""
