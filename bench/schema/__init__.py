"""What a benchmark is asked and what it answers: options, rows, gates, statistics, the recommendation."""
