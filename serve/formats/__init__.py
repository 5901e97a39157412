"""The protocol's messages: what a request says and how an answer is written, by REST and by gRPC."""
