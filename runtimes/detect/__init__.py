"""Where in a picture something is: the stage before the embedding, in PP-ShiTu's way."""
