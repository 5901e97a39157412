"""Retrieval metrics: recall@k, mAP, re-ranking, and the queries that failed."""
