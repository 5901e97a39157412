"""One file per runtime: its description and its predictor."""
