"""Results for people: tables, the HTML page, plots, and the comparison of two results."""
