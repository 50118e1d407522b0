"""gRPC and nothing else: codec, status, service, server."""
