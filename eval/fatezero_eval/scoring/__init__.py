"""From run folders, or anyone's videos, to rows."""
