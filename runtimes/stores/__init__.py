"""Galleries in somebody's database: one interface over pgvector and Qdrant."""
