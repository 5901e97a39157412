"""Galleries in somebody's database: one interface over pgvector, Qdrant and Milvus."""
