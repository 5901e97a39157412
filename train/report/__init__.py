"""What a training tells: its record and its page."""
