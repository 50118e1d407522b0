"""Processes that share the gRPC port: each parses, decodes and encodes, the server's own process alone runs the models.

keeper.py starts them and starts them again, process.py is what runs there. Rows and answers cross by link.py; remote.py stands
in for the batcher there, reception.py hands what comes to the batcher here.
"""
