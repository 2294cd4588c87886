"""What the operating system does for a run: files that appear whole, locks, signals, the terminal."""
